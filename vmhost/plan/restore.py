"""Bringing a guest's disks back to a point: the new ones whole and verified before anything is swapped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from shlex import quote

from vmhost.model.backupsteps import BringNvram, DropCheckpoint, RemoveFile, RestoreDisk, SwapFile, UnswapFile
from vmhost.model.domains import DiskFacts
from vmhost.model.errors import NotFound, Refused
from vmhost.model.observed import Observed, ObservedDomain
from vmhost.model.plan import Change, Note, Plan, Planned
from vmhost.model.points import KEPT, Point, PointDisk, Tracking
from vmhost.model.snapsteps import KeepNvram, PutNvram
from vmhost.model.steps import DefineDomain, PowerOff, ShutDown, StartDomain, Step
from vmhost.plan.backup import guest_for_backup
from vmhost.plan.found import refuse_protected
from vmhost.plan.holders import holders, owns
from vmhost.plan.overlays import backing_of, chain_of, live_disks, merge_command
from vmhost.render.parse.domain import DISK_ALIAS, parse_domain
from vmhost.render.parse.snapshots import parse_snapshots
from vmhost.render.snapshots import with_sources

SHUT_DOWN = 180.0
"""Seconds that a guest has to shut down before its disks are restored."""


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """Everything that a plan of restoring in place rests on.

    ``kept`` are the files that former restores keep, by the disk's file; ``stop`` permits to shut the guest down,
    ``power_off`` to take its power away.
    """

    name: str
    point: Point
    observed: Observed
    tracking: Tracking
    kept: Mapping[str, Sequence[str]]
    stop: bool = False
    power_off: bool = False


def plan_in_place(request: RestoreRequest) -> Plan:
    """Return the plan that brings a guest's disks, and UEFI's variables, back to a point; its definition stays.

    :raises NotFound: no such guest; :raises Refused: it runs, has saved memory, other disks, disks that others laid
        overlays over, or an unconfirmed restore; :raises Protected: it is protected.
    """
    domain = guest_for_backup(request.name, request.observed)
    _check(domain, request)
    pairs = _pairs(domain, request.point)
    _refuse_overlays(domain, [now for _, now in pairs], request.observed)
    bring, keep, put, forget = _variables(domain, request.point, pairs[0][1].source)
    steps = [_restore(domain, request.point, then, now.source) for then, now in pairs]
    steps += bring
    steps += _stop(domain, request)
    steps += keep
    steps += _forget_below(domain, [now for _, now in pairs])
    steps += [_swap(domain, request.point, now.source) for _, now in pairs]
    steps += put
    if domain.active:
        start = StartDomain(domain.uuid, domain.name)
        steps.append(_planned(domain, start, PowerOff(domain.uuid, domain.name), Change.NEEDS_STOP, "start"))
    after = [
        *forget,
        *(
            _planned(
                domain,
                DropCheckpoint(domain.uuid, domain.name, checkpoint.name, lost=True),
                None,
                Change.LIVE,
                f"forget checkpoint {checkpoint.name}: it was of the former disks",
            )
            for checkpoint in request.tracking.checkpoints
        ),
    ]
    text = f"what its disks were is kept until vmhost backup confirm {domain.name}"
    site = domain.metadata.site if domain.metadata else ""
    return Plan(site, tuple(steps), tuple(after), notes=(Note(domain.name, text),))


def plan_confirm(name: str, observed: Observed, kept: Mapping[str, Sequence[str]]) -> Plan:
    """Return the plan that deletes what a restore kept.

    :raises NotFound: no such guest, or nothing is kept; :raises Refused: a guest has what is kept, this one perhaps
        since somebody let it go back by hand, or a volume lies on it.
    """
    domain = guest_for_backup(name, observed)
    files = [file for found in kept.values() for file in found]
    have = holders(observed.domains, observed.pools)
    for file in files:
        if file in have:
            text = f"{' and '.join(have[file])} has {file}, which would be deleted"
            raise Refused(text, subject=name, hint="vmhost guest list")
    if not files:
        raise NotFound("nothing of a restore waits to be confirmed", subject=name, hint=f"vmhost backup list {name}")
    after = tuple(
        _planned(domain, RemoveFile(file), None, Change.REMOVE, f"delete {file}, what the disk was before the restore")
        for file in files
    )
    return Plan(domain.metadata.site if domain.metadata else "", after=after)


def disk_files(domain: ObservedDomain) -> tuple[str, ...]:
    """Return the files of a guest's disks that a restore may replace."""
    return tuple(
        disk.source
        for disk in parse_domain(domain.raw.xml).disks
        if disk.device == "disk" and not disk.readonly and disk.source.startswith("/")
    )


def refuse_kept(name: str, kept: Mapping[str, Sequence[str]]) -> None:
    """:raises Refused: a restore waits to be confirmed: what a guest's disks were would be lost sight of."""
    if any(kept.values()):
        text = "an earlier restore was not confirmed: what its disks were is still kept"
        raise Refused(text, subject=name, hint=f"vmhost backup confirm {name}")


def _check(domain: ObservedDomain, request: RestoreRequest) -> None:
    name = domain.name
    refuse_protected(domain)
    refuse_kept(name, request.kept)
    if domain.raw.managed_save:
        text = "its memory is saved, and would not fit to other disks"
        raise Refused(text, subject=name, hint=f"vmhost guest start {name} --discard-saved")
    if found := len(parse_snapshots(domain.raw.xml).items):
        text = f"it has {found} snapshot{'s' * (found != 1)}, on which its present disks rest"
        raise Refused(text, subject=name, hint=f"vmhost snapshot list {name}")
    if domain.raw.snapshots:
        text = f"it has {domain.raw.snapshots} snapshots, which rest on its present disks"
        raise Refused(text, subject=name, hint=f"virsh snapshot-list {quote(name)}")
    if not domain.active:
        return
    if not (request.stop or request.power_off):
        raise Refused("it runs, and its disks would be replaced", subject=name, hint="add --allow-stop")


def _pairs(domain: ObservedDomain, point: Point) -> list[tuple[PointDisk, DiskFacts]]:
    """Return every disk of the point with the one that it replaces.

    :raises Refused: the guest's disks are no longer those of the point.
    """
    now = {}
    for disk in parse_domain(domain.raw.xml).disks:
        if disk.device == "disk" and not disk.readonly:
            name = disk.alias.removeprefix(DISK_ALIAS) if disk.alias.startswith(DISK_ALIAS) else disk.target
            now[name] = disk
    then = {disk.id: disk for disk in point.disks}
    if now.keys() != then.keys():
        text = f"it has disks {', '.join(sorted(now)) or 'none'}, and the point has {', '.join(sorted(then))}"
        raise Refused(text, subject=domain.name, hint=f"vmhost backup list {domain.name}")
    raw = next((name for name, disk in now.items() if disk.format != "qcow2"), "")
    if raw:
        text = f"disk {raw} is {now[raw].format}; only qcow2 disks are restored in place"
        raise Refused(text, subject=domain.name, hint=f"vmhost guest show {domain.name}")
    return [(then[name], now[name]) for name in then]


def _refuse_overlays(domain: ObservedDomain, disks: Sequence[DiskFacts], observed: Observed) -> None:
    """:raises Refused: a disk is an overlay over another file of this guest: what is restored would have its name, and
    whoever made it may take it for what it was, and let the guest go on with the file below.
    """
    backing, running = backing_of(observed.pools), live_disks(domain)
    volumes = domain.metadata.volumes if domain.metadata else ()
    named = {volume.partition("/")[2] for volume in volumes}
    for disk in disks:
        for now in (disk, running.get(disk.alias, disk)):
            if now.source.rpartition("/")[2] in named:
                continue  # ours, whatever its definition says that it lies on
            names = ((path, path.rpartition("/")[2]) for path in chain_of(now, backing)[1:])
            own = next((path for path, name in names if name in named or owns(domain.uuid, name)), "")
            if own:
                text = f"disk {disk.target} lies in {now.source}, an overlay that others made over {own}"
                start = "" if domain.active else f"vmhost guest start {domain.name}; "
                hint = f"{start}{merge_command(domain.name, disk.target, own)}"
                raise Refused(text, subject=domain.name, hint=hint)


def _restore(domain: ObservedDomain, point: Point, disk: PointDisk, path: str) -> Planned:
    new = _new(path, point)
    text = f"verify disk {disk.id} of {point.id} and write it beside the present one"
    return _planned(domain, RestoreDisk(point.ref, disk.file, new, path), RemoveFile(new), Change.LIVE, text)


def _stop(domain: ObservedDomain, request: RestoreRequest) -> Iterator[Planned]:
    if not domain.active:
        return
    start = StartDomain(domain.uuid, domain.name)
    if request.power_off:
        yield _planned(domain, PowerOff(domain.uuid, domain.name), start, Change.NEEDS_STOP, "power off")
    else:
        step = ShutDown(domain.uuid, domain.name, SHUT_DOWN)
        yield _planned(domain, step, start, Change.NEEDS_STOP, "shut down")


def _forget_below(domain: ObservedDomain, disks: Sequence[DiskFacts]) -> Iterator[Planned]:
    """Yield the end of what libvirt noted of the files below the present ones: QEMU would put them below the new."""
    xml = domain.raw.xml
    plain = with_sources(xml, {disk.target: disk.source for disk in disks})
    if plain != with_sources(xml, {}):
        do, undo = (DefineDomain(domain.uuid, domain.name, text) for text in (plain, xml))
        yield _planned(domain, do, undo, Change.LIVE, "forget what its present disks lie on")


def _swap(domain: ObservedDomain, point: Point, path: str) -> Planned:
    kept = f"{path}{KEPT}{point.id}"
    step = SwapFile(domain.uuid, domain.name, path, _new(path, point), kept)
    undo = UnswapFile(domain.uuid, domain.name, path, kept)
    return _planned(domain, step, undo, Change.REPLACE, f"replace {path}, kept as {kept}")


def _variables(domain: ObservedDomain, point: Point, path: str) -> tuple[list[Planned], ...]:
    """Return the steps that bring UEFI's variables back: at any time, before the disks are swapped, after, at the end.

    What they were is kept beside the first disk, whose ``path`` it is, and is given up with what that was. It is kept
    before any disk is another one: a guest that somebody starts in between writes new ones.
    """
    if not point.nvram or parse_domain(domain.raw.xml).firmware != "uefi":
        return [], [], [], []
    new, kept = f"{_new(path, point)}.nvram", f"{path}{KEPT}{point.id}.nvram"
    uuid, name = domain.uuid, domain.name
    bring, keep, put = BringNvram(point.ref, new), KeepNvram(uuid, name, kept), PutNvram(uuid, name, new)
    return (
        [
            _planned(
                domain, bring, RemoveFile(new), Change.LIVE, f"verify UEFI's variables of {point.id}, and copy them"
            )
        ],
        [_planned(domain, keep, RemoveFile(kept), Change.LIVE, f"keep UEFI's variables as {kept}")],
        [_planned(domain, put, PutNvram(uuid, name, kept), Change.REPLACE, "replace UEFI's variables")],
        [_planned(domain, RemoveFile(new), None, Change.LIVE, "delete the copy of UEFI's variables")],
    )


def _new(path: str, point: Point) -> str:
    return f"{path}.restored-{point.id}"


def _planned(domain: ObservedDomain, do: Step, undo: Step | None, change: Change, text: str) -> Planned:
    return Planned(do, undo, change, domain.name, f"{domain.name}: {text}")
