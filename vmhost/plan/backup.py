"""Taking a point of a guest: which disks, resting on what, in which steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from shlex import quote
from typing import Final, Literal

from vmhost.model.backupsteps import (
    BeginBackup,
    CopyDisks,
    DeletePoint,
    DiscardPoint,
    DiskCopy,
    DropBitmap,
    DropCheckpoint,
    EndBackup,
    MakeRepository,
    OpenPoint,
    PublishPoint,
)
from vmhost.model.domains import DiskFacts
from vmhost.model.errors import Conflict, NoCapacity, Refused
from vmhost.model.observed import Observed, ObservedDomain
from vmhost.model.plan import Change, Note, Plan, Planned
from vmhost.model.points import NVRAM, Compression, NewPoint, Point, PointDisk, PointRef, RepositoryId, Tracking
from vmhost.model.steps import Step
from vmhost.model.units import format_size
from vmhost.plan.found import find_ours
from vmhost.plan.quiesce import Around, around
from vmhost.plan.reconcile import Decision, checkpoint_name, decide, next_generation, point_id, prefix_of
from vmhost.render.backup import checkpoint_xml, pull_xml, push_xml
from vmhost.render.parse.domain import DISK_ALIAS, SEED_ALIAS, agent_connected, parse_domain
from vmhost.render.parse.snapshots import parse_snapshots

SOCKET: Final = "vmhost-backup-"
"""What the names of our sockets begin with: a job that exports on one is ours."""
SCRATCH: Final = ".vmhost-scratch"
BEGUN: Final = ".new-"
MARGIN: Final = 64 << 20
"""Bytes that a repository should have left over."""


@dataclass(frozen=True, slots=True)
class BackupRequest:
    """Everything that a plan of one point rests on.

    ``points`` are those of the guest that can be read; ``taken`` is the time that it will carry
    (``20261119T220000Z``); ``sockets`` is the directory in which QEMU may make one; ``rate`` is how many bytes a second
    may be copied of this guest, 0: no limit; ``compression`` is how what is copied is packed; ``room`` is how many
    bytes are free in the directories of its disks.
    """

    name: str
    observed: Observed
    repository: RepositoryId
    points: tuple[Point, ...]
    tracking: Tracking
    taken: str
    sockets: str
    full: bool = False
    rate: int = 0
    compression: Compression = "none"
    room: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Draft:
    """A point on its way to a plan."""

    request: BackupRequest
    domain: ObservedDomain
    disks: tuple[PointDisk, ...]
    others: tuple[str, ...]
    decision: Decision
    ref: PointRef
    generation: int

    @property
    def checkpoint(self) -> str:
        tracked = self.domain.active and self.domain.raw.persistent and all(d.format == "qcow2" for d in self.disks)
        return checkpoint_name(self.request.repository, self.ref.id) if tracked else ""

    @property
    def socket(self) -> str:
        return f"{self.request.sockets}/{SOCKET}{self.domain.uuid[:8]}.sock"

    @property
    def begun(self) -> str:
        """The directory that QEMU writes increments into."""
        ref = self.ref
        return f"{ref.repository}/hosts/{ref.host}/guests/{ref.guest}/points/{BEGUN}{ref.id}"

    @property
    def mark(self) -> str:
        """What the description of its job holds and no other's."""
        return self.begun if self.decision.parent else self.socket


def guest_for_backup(name: str, observed: Observed) -> ObservedDomain:
    """Return a guest that may be backed up. :raises NotFound: there is none; :raises Refused: it is not ours."""
    return find_ours(name, observed, since="a backup leaves a checkpoint in it")


def plan_backup(request: BackupRequest) -> Plan:
    """Return the plan of one point.

    :raises NotFound: no such guest; :raises Refused: it is foreign, or a disk is no file; :raises Conflict: somebody
        else backs it up; :raises NoCapacity: the repository is too small.
    """
    draft = _draft(request)
    steps = [*_ground(draft), *_taking(draft)]
    after = (*_around(draft).last, *_old_checkpoints(draft), *_orphaned_bitmaps(draft))
    site = draft.domain.metadata.site if draft.domain.metadata else ""
    return Plan(site, tuple(steps), after, notes=tuple(_notes(draft)))


def _draft(request: BackupRequest) -> _Draft:
    domain = guest_for_backup(request.name, request.observed)
    if not request.repository.writable:
        hint = f"findmnt --target {quote(request.repository.path)}"
        raise Refused("the repository cannot be written to", subject=request.repository.path, hint=hint)
    facts = parse_domain(domain.raw.live_xml or domain.raw.xml)
    chosen = [disk for disk in facts.disks if disk.device == "disk" and not disk.readonly]
    disks = tuple(_disk(disk, domain, request) for disk in chosen)
    if not disks:
        raise Refused("it has no disks", subject=domain.name, hint=f"vmhost guest show {domain.name}")
    others = tuple(disk.target for disk in facts.disks if disk not in chosen)
    decision = decide(
        *(request.points, request.repository, request.tracking, disks),
        running=domain.active,
        full=request.full,
        now=_time(request.taken),
        reverted=parse_snapshots(domain.raw.xml).reverted,
    )
    generation = next_generation(request.points, request.repository, request.tracking, request.taken)
    point = point_id(request.taken, generation)
    ref = PointRef(request.repository.path, request.repository.host, domain.uuid, point)
    draft = _Draft(request, domain, disks, others, decision, ref, generation)
    _check_room(draft)
    return draft


def _disk(disk: DiskFacts, domain: ObservedDomain, request: BackupRequest) -> PointDisk:
    if not disk.source.startswith("/") or disk.format not in ("qcow2", "raw"):
        text = (
            f"disk {disk.target} ({disk.source or 'nothing'}, {disk.format or 'of no format'}) is no qcow2 or raw file"
        )
        raise Refused(text, subject=domain.name, hint=f"vmhost guest show {domain.name}")
    size = next((found.capacity for found in request.tracking.sizes if found.target == disk.target), 0)
    if not size:
        text = f"libvirt does not know how large disk {disk.target} is"
        raise Refused(text, subject=domain.name, hint=f"virsh domblkinfo {quote(domain.name)} {disk.target}")
    name = disk.alias.removeprefix(DISK_ALIAS) if disk.alias.startswith(DISK_ALIAS) else disk.target
    return PointDisk(name, disk.target, f"{name}.qcow2", size, source=disk.source, format=disk.format)


def _check_room(draft: _Draft) -> None:
    """:raises NoCapacity: a full copy will not fit; how much an increment takes nobody knows before."""
    if draft.decision.parent:
        return
    need = sum(_used(disk, draft.request) for disk in draft.disks) + MARGIN
    free = draft.request.repository.free
    if free < need:
        text = f"a full copy needs up to {format_size(need)}, and the repository has {format_size(free)} free"
        path = draft.request.repository.path
        raise NoCapacity(f"{draft.domain.name}: {text}", subject=path, hint=f"df -h {quote(path)}")


def _used(disk: PointDisk, request: BackupRequest) -> int:
    """Return how much of a disk a full copy holds at most: what its file and the images below it take."""
    total = next((found.allocation for found in request.tracking.sizes if found.target == disk.target), 0)
    volumes = {volume.path: volume for pool in request.observed.pools for volume in pool.volumes}
    images = {str(image.path): image.size for image in request.observed.images}
    path = disk.source
    while (volume := volumes.get(path)) is not None and volume.backing and volume.backing != path:
        path = volume.backing
        total += images.get(path) or (volumes[path].allocation if path in volumes else disk.capacity)
    return min(total, disk.capacity)


def _ground(draft: _Draft) -> Iterator[Planned]:
    """Yield what has to be there, and has to be gone, before a point begins."""
    name, uuid, job = draft.domain.name, draft.domain.uuid, draft.request.tracking.job
    repository = draft.request.repository
    if not repository.known:
        text = f"{name}: new repository of backups in {repository.path}"
        yield Planned(MakeRepository(repository.path, repository.id), None, Change.LIVE, name, text)
    if not job:
        return
    mark = next((mark for mark in (SOCKET, f"/{BEGUN}") if mark in job), "")
    if not mark:
        text = "another program is backing it up; nothing was done"
        raise Conflict(text, subject=name, hint=f"virsh domjobinfo {quote(name)}")
    yield _planned(draft, EndBackup(uuid, name, mark), None, "end the backup job that a dead vmhost left")


def _taking(draft: _Draft) -> Iterator[Planned]:
    name, uuid, ref = draft.domain.name, draft.domain.uuid, draft.ref
    parent = draft.decision.parent
    what = f"incremental since {parent.id}" if parent else f"full, because {draft.decision.because}"
    yield _planned(draft, OpenPoint(_new_point(draft)), DiscardPoint(ref), f"begin point {ref.id}: {what}")
    if draft.domain.active:
        begin = _begin(draft)
        end = EndBackup(uuid, name, draft.mark, draft.checkpoint)
        yield from _around(draft).before
        yield _planned(draft, begin, end, "the instant that the point holds")
        yield from _around(draft).after
    copies = tuple(DiskCopy(d.file, d.target, d.source, d.format) for d in draft.disks)
    how: Literal["pull", "push", "offline"] = "push" if parent else "pull" if draft.domain.active else "offline"
    packed = draft.request.compression
    ours = not parent or packed != "none"  # else QEMU alone copies
    mark, rate = (draft.socket if how == "pull" else ""), (draft.request.rate if ours else 0)
    instance, hostname = _known_as(draft.domain)
    copy = CopyDisks(
        *(ref, name, how, copies),
        mark=mark,
        nvram=_nvram(draft.domain),
        rate=rate,
        compression=packed,
        instance_id=instance,
        hostname=hostname,
    )
    listed = ", ".join(disk.id for disk in draft.disks)
    limit = f", {format_size(draft.request.rate)} a second at most" if draft.request.rate else ""
    how_packed = f", compressed by {packed}" if packed != "none" else ""
    yield _planned(draft, copy, None, f"copy {'what changed on ' if parent else ''}{listed}{limit}{how_packed}")
    yield _planned(draft, PublishPoint(ref, draft.checkpoint), DeletePoint(ref), "hash and publish it")


def _around(draft: _Draft) -> Around:
    """Return what is done around the instant: it is frozen by its agent, if that is connected."""
    frozen = draft.domain.active and agent_connected(draft.domain.raw.live_xml)
    return around(draft.domain) if frozen else Around()


def _begin(draft: _Draft) -> BeginBackup:
    targets = [disk.target for disk in draft.disks]
    checkpoint = checkpoint_xml(draft.checkpoint, targets, draft.others) if draft.checkpoint else ""
    parent = draft.decision.parent
    if parent:
        files = {disk.target: f"{draft.begun}/{disk.file}" for disk in draft.disks}
        xml = push_xml(parent.checkpoint, files, draft.others)
    else:
        scratch = {disk.target: f"{disk.source}{SCRATCH}" for disk in draft.disks}
        xml = pull_xml(draft.socket, scratch, draft.others)
    rate = -(-draft.request.rate // len(draft.disks)) if parent else 0  # QEMU copies all disks at once
    return BeginBackup(draft.domain.uuid, draft.domain.name, xml, checkpoint, reuse=parent is not None, rate=rate)


def _new_point(draft: _Draft) -> NewPoint:
    domain, parent = draft.domain, draft.decision.parent
    metadata = domain.metadata
    disks = tuple(
        PointDisk(
            *(disk.id, disk.target, disk.file, disk.capacity),
            backing=f"../{parent.id}/{disk.file}" if parent else "",
            source=disk.source,
            format=disk.format,
        )
        for disk in draft.disks
    )
    point = Point(
        ref=draft.ref,
        generation=draft.generation,
        taken=_time(draft.request.taken),
        kind="incremental" if parent else "full",
        name=domain.name,
        host_name=draft.request.observed.host.hostname,
        because=draft.decision.because,
        parent=parent.id if parent else "",
        site=metadata.site if metadata else "",
        checkpoint=draft.checkpoint,
        nvram=_nvram(domain),
        disks=disks,
    )
    return NewPoint(point, domain.raw.xml, spec=metadata.spec if metadata else "")


def _time(taken: str) -> str:
    """Return a time as points carry it, of one as their names do: ``20260102T030405Z``."""
    return f"{taken[:4]}-{taken[4:6]}-{taken[6:8]}T{taken[9:11]}:{taken[11:13]}:{taken[13:15]}Z"


def _nvram(domain: ObservedDomain) -> str:
    return NVRAM if parse_domain(domain.raw.xml).firmware == "uefi" else ""


def _known_as(domain: ObservedDomain) -> tuple[str, str]:
    """Return the instance-id and the name by which cloud-init knows a guest; nothing for one that has no seed."""
    seeded = any(disk.alias == SEED_ALIAS for disk in parse_domain(domain.raw.xml).disks)
    if not seeded or domain.metadata is None:
        return "", ""
    return domain.metadata.identity.instance_id, domain.name


def _old_checkpoints(draft: _Draft) -> Iterator[Planned]:
    """Yield the end of checkpoints that no point will be taken from any more: each slows every write."""
    prefix, name = prefix_of(draft.request.repository), draft.domain.name
    parent = draft.decision.parent
    for checkpoint in draft.request.tracking.checkpoints:
        if not checkpoint.name.startswith(prefix):
            continue
        if not draft.checkpoint and parent is None and not draft.request.full and _usable(checkpoint.name, draft):
            continue  # taken while it was shut off: the next point may still rest on it
        step = DropCheckpoint(draft.domain.uuid, name, checkpoint.name)
        yield _planned(draft, step, None, f"drop checkpoint {checkpoint.name}")


def _orphaned_bitmaps(draft: _Draft) -> Iterator[Planned]:
    """Yield the end of bitmaps of ours that outlived their checkpoints: nobody will ask them, and they slow writes."""
    known = {checkpoint.name for checkpoint in draft.request.tracking.checkpoints}
    sources = {disk.source for disk in draft.disks}
    for bitmap in draft.request.tracking.bitmaps:
        ours = bitmap.name.startswith(prefix_of(draft.request.repository)) and bitmap.source in sources
        if ours and bitmap.name not in known:
            step = DropBitmap(draft.domain.uuid, draft.domain.name, bitmap.source, bitmap.name)
            yield _planned(draft, step, None, f"drop bitmap {bitmap.name}, which no checkpoint belongs to")


def _usable(checkpoint: str, draft: _Draft) -> bool:
    return any(point.checkpoint == checkpoint for point in draft.request.points)


def _notes(draft: _Draft) -> Iterator[Note]:
    if draft.domain.raw.managed_save:
        yield Note(draft.domain.name, "its memory is saved; the point holds its disks only")
    if draft.domain.active and not draft.decision.parent:
        yield from _tight(draft)


def _tight(draft: _Draft) -> Iterator[Note]:
    """Yield each place that a guest could fill if it wrote all of its disks anew while they are copied."""
    allocated = {size.target: size.allocation for size in draft.request.tracking.sizes}
    for place, free in draft.request.room.items():
        need = sum(allocated.get(d.target, 0) for d in draft.disks if str(PurePosixPath(d.source).parent) == place)
        if free < need:
            text = f"what it overwrites while it is copied is kept in {place}, which has {format_size(free)} free"
            more = f"its disks take {format_size(need)}; the copy is ended before that runs out"
            yield Note(draft.domain.name, f"{text}, and {more}")


def _planned(draft: _Draft, do: Step, undo: Step | None, text: str) -> Planned:
    return Planned(do, undo, Change.LIVE, draft.domain.name, f"{draft.domain.name}: {text}")
