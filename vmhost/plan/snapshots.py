"""Snapshots by overlays: taking one, and going back to one. Why so: docs/decisions/0085."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from vmhost.model.observed import Observed, ObservedGuests, ObservedVolume
from vmhost.model.permit import Permit
from vmhost.model.plan import Change, Note, Plan, Planned
from vmhost.model.snapshots import MOST_DEEP, KeptDisk, Level, Snapshot, nvram_name, overlay_name
from vmhost.model.snapsteps import (
    CheckNvram,
    KeepNvram,
    MakeOverlay,
    MergeOverlays,
    NoteLevel,
    Overlay,
    PutNvram,
    SnapshotDisks,
)
from vmhost.model.steps import (
    CreateVolume,
    DefineDomain,
    DeleteVolume,
    DiscardManagedSave,
    PowerOff,
    ShutDown,
    StartDomain,
)
from vmhost.plan.found import refuse_protected
from vmhost.plan.quiesce import Around, around, thawing
from vmhost.plan.request import Conflict, Refused
from vmhost.plan.snapfiles import DOUBTFUL
from vmhost.plan.snapsubject import PRESENT, Disk, Subject, look, named, refuse_overwritten, refuse_saved, site_of
from vmhost.plan.tuning import check_start
from vmhost.render.parse.domain import agent_connected
from vmhost.render.parse.tuning import parse_tuning
from vmhost.render.snapshots import with_snapshots, with_sources

DIRECTORIES: Final = ("dir", "fs")
"""Kinds of pools whose volumes are files that whoever may change the host may make; a server may not let root do it."""

SAFETY: Final = "before-revert-"
"""What the names of snapshots begin with that a revert takes of what is now."""


def plan_create(
    name: str, snapshot: str, observed: ObservedGuests, *, created: str, quiesce: bool | None = None
) -> Plan:
    """Return the plan that takes a snapshot of a guest, running or not. ``created`` is ISO 8601 in UTC.

    :param observed: with this guest and its disks at least; what else there is does not matter.
    :param quiesce: None: freeze the file systems of a guest that runs, if its agent is there and they let themselves be
        frozen; True: they must; False: do not try.
    :raises NotFound: no such guest; :raises Conflict: it has a snapshot of that name; :raises Refused: it is foreign,
        its memory is saved, its snapshots lie too deep, or a disk is of a kind that has none.
    """
    subject = look(name, observed)
    refuse_saved(subject)
    have = subject.snapshots
    if snapshot == PRESENT or have.named(snapshot):
        text = f"it has a snapshot {snapshot}" if snapshot != PRESENT else f"{PRESENT} means the present state"
        raise Conflict(text, subject=name, hint=f"vmhost snapshot list {name}")
    if snapshot.startswith(SAFETY):
        text = f"names that begin with {SAFETY} are those of the snapshots that a revert takes"
        raise Conflict(text, subject=name, hint=f"vmhost snapshot create {name} --name other-name")
    refuse_overwritten(subject)
    if have.depth >= MOST_DEEP:
        oldest = have.line(have.present)[-1].name
        text = f"its disks rest on {have.depth} snapshots, {MOST_DEEP} are the most"
        raise Refused(text, subject=name, hint=f"vmhost snapshot delete {name} {oldest}")
    new = _taken(subject, snapshot, created)
    after = replace(have, items=(*have.items, new), present=new.number, next=new.number + 1)
    overlays = tuple(_overlay(subject, disk, new.number) for disk in subject.disks)
    steps = [*_keep_nvram(subject, new), *(_on(subject, disk, disk.volume, new.number) for disk in subject.disks)]
    domain = subject.domain
    frozen = around(domain, required=quiesce is True) if _freezes(subject, quiesce) else Around()
    if domain.active:
        steps += frozen.before
        ids = ", ".join(disk.id for disk in subject.disks)
        steps.append(
            subject.planned(
                SnapshotDisks(domain.uuid, domain.name, overlays),
                MergeOverlays(domain.uuid, domain.name, overlays),
                f"snapshot {snapshot} of {ids} at one instant",
            )
        )
        steps += frozen.after
        if new.nvram:
            check = CheckNvram(domain.uuid, domain.name, _nvram_path(subject, new))
            steps.append(subject.planned(check, None, "its UEFI variables did not change meanwhile"))
        undo = subject.records(have)
        steps.append(subject.planned(subject.records(after), undo, f"note snapshot {snapshot}"))
        if frozen.before:
            note = NoteLevel(domain.uuid, domain.name, new.number)
            steps.append(subject.planned(note, None, "note what the snapshot is worth"))
    else:
        xml = with_sources(domain.raw.xml, {overlay.target: overlay.top for overlay in overlays})
        steps.append(_define(subject, with_snapshots(xml, after), f"snapshot {snapshot}: it goes on in new files"))
    return Plan(site_of(subject), tuple(steps), frozen.last)


def plan_thaw(name: str, observed: ObservedGuests) -> Plan:
    """Return the plan that thaws a guest. :raises NotFound: no such guest; :raises Refused: it does not run."""
    subject = look(name, observed)
    domain = subject.domain
    if not domain.active:
        raise Refused("it does not run, so nothing of it is frozen", subject=name, hint=f"vmhost guest start {name}")
    return Plan(site_of(subject), tuple(thawing(domain)))


def _freezes(subject: Subject, quiesce: bool | None) -> bool:
    """Return whether to freeze. :raises Refused: it must be, and nobody is there to do it."""
    domain = subject.domain
    if quiesce is False or not domain.active:
        return False
    connected = agent_connected(domain.raw.live_xml)
    if quiesce and not connected:
        text = "its agent is not connected, so its file systems cannot be frozen"
        raise Refused(text, subject=domain.name, hint=f"vmhost guest console {domain.name}")
    return connected


def plan_revert(
    name: str, snapshot: str, observed: Observed, permit: Permit, *, created: str, timeout: float = 180.0
) -> Plan:
    """Return the plan that puts the disks of a guest back to a snapshot; what they hold now becomes a snapshot, too.

    The definition stays as it is now, and with it the guest's identity, network, memory and pCPUs.

    :raises NotFound: no such guest or snapshot; :raises Protected: it is protected; :raises Refused: it runs, or has
        saved memory, and that was not permitted; it is foreign; files are missing.
    """
    subject = look(name, observed)
    domain, have = subject.domain, subject.snapshots
    back = named(subject, snapshot)
    if back.merging:
        text = f"snapshot {snapshot} is being merged away and is no longer whole"
        raise Refused(text, subject=name, hint=f"vmhost snapshot delete {name} {snapshot}")
    _may_revert(subject, permit)
    _may_go_back(subject, back)
    here = [disk for disk in subject.disks if back.disk(disk.id)]
    if not here:
        text = f"snapshot {snapshot} has none of the disks that the guest has now"
        raise Refused(text, subject=name, hint=f"vmhost guest show {name}")
    notes = list(_differences(subject, back))
    subject = replace(subject, disks=tuple(here))  # what was not there then stays as it is
    why = f"before the revert to {snapshot}"
    new = _taken(subject, f"{SAFETY}{have.next}", created, why)
    after = replace(have, items=(*have.items, new), present=back.number, next=new.number + 1, reverted=created)
    steps = [*_stop(subject, permit, timeout), *_keep_nvram(subject, new)]
    sources = {}
    for disk in here:
        kept = back.disk(disk.id)
        assert kept is not None
        below = subject.file(kept)
        steps.append(_on(subject, disk, below, new.number))
        sources[disk.target] = f"{disk.directory}/{overlay_name(domain.uuid, disk.id, new.number)}"
    xml = with_snapshots(with_sources(domain.raw.xml, sources), after)
    steps.append(_define(subject, xml, f"back to snapshot {snapshot}; what is now is kept as {new.name}"))
    if new.nvram and back.nvram:
        put = PutNvram(domain.uuid, domain.name, _nvram_path(subject, back))
        undo = PutNvram(domain.uuid, domain.name, _nvram_path(subject, new))
        steps.append(subject.planned(put, undo, "its UEFI variables of that time", Change.NEEDS_STOP))
    if domain.active:
        start, stop = StartDomain(domain.uuid, domain.name), PowerOff(domain.uuid, domain.name)
        steps.append(subject.planned(start, stop, "start"))
        steps += check_start(domain.uuid, domain.name, parse_tuning(domain.raw.xml), observed)
    return Plan(site_of(subject), tuple(steps), notes=tuple(notes))


def _may_go_back(subject: Subject, back: Snapshot) -> None:
    """:raises Refused: the snapshot is no longer what it was, or another is the guest's disk of now."""
    name, found = subject.domain.name, subject.files.overwritten(back)
    if found is not None:
        text = f"snapshot {back.name} is overwritten: {found.guest} writes to {found.path}, which it keeps or lies on"
        raise Refused(text, subject=name, hint=f"vmhost snapshot delete {name} {back.name}")
    refuse_overwritten(subject)


def _may_revert(subject: Subject, permit: Permit) -> None:
    domain = subject.domain
    name = domain.name
    refuse_protected(domain)
    if domain.active and not (permit.stop or permit.power_off):
        raise Refused("it runs", subject=name, hint="add --allow-stop (it is shut down) or --power-off")
    if domain.raw.managed_save and not permit.discard_saved:
        raise Refused("its memory is saved and would be lost", subject=name, hint="add --discard-saved")


def _stop(subject: Subject, permit: Permit, timeout: float) -> Iterator[Planned]:
    domain = subject.domain
    uuid, name = domain.uuid, domain.name
    if domain.raw.managed_save:
        yield subject.planned(DiscardManagedSave(uuid, name), None, "discard its saved memory", Change.NEEDS_STOP)
    if domain.active:
        do: PowerOff | ShutDown = ShutDown(uuid, name, timeout)
        text = "shut down"
        if permit.power_off:
            do, text = PowerOff(uuid, name), "power off"
        yield subject.planned(do, StartDomain(uuid, name), text, Change.NEEDS_STOP)


def _taken(subject: Subject, name: str, created: str, why: str = "") -> Snapshot:
    number = subject.snapshots.next or 1
    uefi = subject.domain.facts.firmware == "uefi"
    return Snapshot(
        number=number,
        name=name,
        created=created,
        level=Level.CRASH,
        parent=subject.snapshots.present,
        disks=tuple(KeptDisk(disk.id, disk.volume.pool, disk.volume.name) for disk in subject.disks),
        nvram=nvram_name(subject.domain.uuid, number) if uefi else "",
        why=why,
    )


def _overlay(subject: Subject, disk: Disk, number: int) -> Overlay:
    top = f"{disk.directory}/{overlay_name(subject.domain.uuid, disk.id, number)}"
    return Overlay(disk.target, top, disk.volume.path)


def _on(subject: Subject, disk: Disk, below: ObservedVolume, number: int) -> Planned:
    """Return the step that makes an empty overlay on a file of a disk."""
    domain, name = subject.domain, overlay_name(subject.domain.uuid, disk.id, number)
    pool = subject.observed.pool(disk.volume.pool)
    make: MakeOverlay | CreateVolume = CreateVolume(disk.volume.pool, name, below.capacity, below.path, "qcow2")
    if pool is not None and pool.type in DIRECTORIES:
        make = MakeOverlay(domain.uuid, domain.name, f"{disk.directory}/{name}", below.path, below.capacity)
    return subject.planned(make, DeleteVolume(disk.volume.pool, name), f"overlay of disk {disk.id} on {below.name}")


def _keep_nvram(subject: Subject, new: Snapshot) -> Iterator[Planned]:
    if new.nvram:
        domain = subject.domain
        do = KeepNvram(domain.uuid, domain.name, _nvram_path(subject, new))
        undo = DeleteVolume(new.disks[0].pool, new.nvram)
        yield subject.planned(do, undo, "keep its UEFI variables")


def _nvram_path(subject: Subject, snapshot: Snapshot) -> str:
    return subject.path(snapshot.disks[0].pool, snapshot.nvram)


def _define(subject: Subject, xml: str, text: str) -> Planned:
    domain = subject.domain
    undo = DefineDomain(domain.uuid, domain.name, domain.raw.xml)
    return subject.planned(DefineDomain(domain.uuid, domain.name, xml), undo, text)


def _differences(subject: Subject, back: Snapshot) -> Iterator[Note]:
    have = {disk.id for disk in subject.disks}
    name = subject.domain.name
    if subject.files.state(back, subject.snapshots, subject.domain) == DOUBTFUL:
        text = "somebody else merged or took away what lay on it, so it may hold what is newer than it"
        yield Note(name, f"snapshot {back.name} is doubtful: {text}")
    for disk in sorted(have - {kept.disk for kept in back.disks}):
        yield Note(name, f"disk {disk} was not there then; it stays as it is")
    for kept in back.disks:
        if kept.disk not in have:
            yield Note(name, f"disk {kept.disk} of that time is not the guest's any more; it is not attached")
