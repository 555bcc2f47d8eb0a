"""A guest as its snapshots see it: the disks that it writes, the records, and what lies on what."""

from __future__ import annotations

from dataclasses import dataclass
from shlex import quote
from typing import Final

from vmhost.model.observed import DiskFacts, ObservedDomain, ObservedGuests, ObservedVolume
from vmhost.model.plan import Change, Planned
from vmhost.model.snapshots import KeptDisk, Snapshot, Snapshots
from vmhost.model.snapsteps import KeepSnapshots
from vmhost.model.steps import Step
from vmhost.plan.found import find_ours
from vmhost.plan.request import NotFound, Refused
from vmhost.plan.snapfiles import Files, disk_id, facts_now, written_disks
from vmhost.render.parse.snapshots import parse_snapshots
from vmhost.render.snapshots import snapshots_xml

PRESENT: Final = "present"
"""What the present state of a guest is called, so no snapshot may be."""


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk of a guest that is written, with the volume behind it."""

    id: str
    target: str
    volume: ObservedVolume

    @property
    def directory(self) -> str:
        """Where its files lie."""
        return self.volume.path.rpartition("/")[0]


@dataclass(frozen=True, slots=True)
class Subject:
    """A guest of ours, its disks, the records of its snapshots, and what lies on what and who writes to which file."""

    domain: ObservedDomain
    disks: tuple[Disk, ...]
    snapshots: Snapshots
    observed: ObservedGuests
    files: Files

    def path(self, pool: str, volume: str) -> str:
        """Return where a volume lies."""
        found = self.observed.pool(pool)
        if found is None or not found.active:
            text, hint = f"storage pool {pool} is not there or not active", f"virsh pool-start {quote(pool)}"
            raise Refused(text, subject=self.domain.name, hint=hint)
        return f"{found.path}/{volume}"

    def chain(self, path: str) -> list[str]:
        """Return a file of a disk and all that it lies on, as the files themselves say."""
        below = {volume.path: volume.backing for pool in self.observed.pools for volume in pool.volumes}
        found = [path]
        while (path := below.get(path, "")) and path not in found:
            found.append(path)
        return found

    def above(self, path: str) -> tuple[ObservedVolume, ...]:
        """Return every volume that lies directly on a file, whoever made it."""
        return tuple(volume for pool in self.observed.pools for volume in pool.volumes if volume.backing == path)

    def file(self, kept: KeptDisk) -> ObservedVolume:
        """Return the volume that holds a disk as it was. :raises Refused: it is gone."""
        path = self.path(kept.pool, kept.volume)
        found = self._volume(kept.pool, kept.volume)
        if found is None:
            text = f"the volume of disk {kept.disk} is gone: {path}"
            raise Refused(text, subject=self.domain.name, hint=f"virsh vol-list {quote(kept.pool)}")
        return found

    def has(self, pool: str, volume: str) -> bool:
        """Whether a volume is there."""
        return self._volume(pool, volume) is not None

    def _volume(self, pool: str, name: str) -> ObservedVolume | None:
        found = self.observed.pool(pool)
        return next((volume for volume in found.volumes if volume.name == name), None) if found else None

    def planned(self, do: Step, undo: Step | None, text: str, change: Change = Change.LIVE) -> Planned:
        """Return a step about this guest."""
        return Planned(do, undo, change, self.domain.name, f"{self.domain.name}: {text}")

    def records(self, snapshots: Snapshots) -> KeepSnapshots:
        """Return the step that notes these records."""
        return KeepSnapshots(self.domain.uuid, self.domain.name, snapshots_xml(snapshots))


def look(name: str, observed: ObservedGuests) -> Subject:
    """Return a guest with its disks and snapshots.

    :raises NotFound: no such guest; :raises Refused: nothing of it may be changed, or a disk is of a kind without
        snapshots.
    """
    domain = find_ours(name, observed)
    snapshots = parse_snapshots(domain.raw.xml)
    if not snapshots.readable:
        raise Refused("its metadata is newer than this vmhost", subject=name, hint="vmhost --version")
    if domain.raw.snapshots:
        text = f"it has {domain.raw.snapshots} snapshots that others made with libvirt; the two kinds do not mix"
        raise Refused(text, subject=name, hint=f"virsh snapshot-list {quote(domain.name)}")
    if not domain.raw.persistent:
        raise Refused("it has no definition any more", subject=name, hint=f"virsh dominfo {quote(domain.name)}")
    volumes = {volume.path: volume for pool in observed.pools for volume in pool.volumes}
    disks = tuple(_disk(domain, disk, volumes) for disk in written_disks(facts_now(domain)))
    _refuse_differing(domain)
    if not disks:
        raise Refused("it has no disk that it writes", subject=name, hint=f"vmhost guest show {name}")
    return Subject(domain, disks, snapshots, observed, Files(observed.domains, observed.pools))


def _disk(domain: ObservedDomain, disk: DiskFacts, volumes: dict[str, ObservedVolume]) -> Disk:
    volume = volumes.get(disk.source)
    reason = "lies in no storage pool" if volume is None else f"is {disk.format}" if disk.format != "qcow2" else ""
    if volume is None or reason:
        text = f"disk {disk.target} {reason}, so it cannot be kept at the instant of the others"
        raise Refused(text, subject=domain.name, hint=f"vmhost guest show {domain.name}")
    return Disk(disk_id(disk), disk.target, volume)


def _refuse_differing(domain: ObservedDomain) -> None:
    """:raises Refused: the guest runs with another file than its definition says, so it would start with that."""
    defined = {disk_id(disk): disk.source for disk in written_disks(domain.facts)}
    for disk in written_disks(facts_now(domain)):
        source = defined.get(disk_id(disk), disk.source)
        if source != disk.source:
            text = f"disk {disk_id(disk)} is {disk.source} while it runs, and {source} at its next start"
            hint = f"virsh domblklist {quote(domain.name)}; virsh domblklist --inactive {quote(domain.name)}"
            raise Refused(text, subject=domain.name, hint=hint)


def refuse_overwritten(subject: Subject) -> None:
    """:raises Refused: a disk of now is the file of a snapshot: by the next one two would have the same file."""
    name = subject.domain.name
    present = {(disk.volume.pool, disk.volume.name): disk.id for disk in subject.disks}
    for item in subject.snapshots.items:
        if found := next((kept for kept in item.disks if (kept.pool, kept.volume) in present), None):
            disk = present[found.pool, found.volume]
            why = "somebody else merged it, or redefined the guest"
            text = f"disk {disk} is the very file of snapshot {item.name}: {why}"
            raise Refused(text, subject=name, hint=f"vmhost snapshot delete {name} {item.name}")


def named(subject: Subject, snapshot: str) -> Snapshot:
    """Return a snapshot by its name. :raises NotFound: there is none."""
    found = subject.snapshots.named(snapshot)
    if found is None:
        name = subject.domain.name
        raise NotFound(f"it has no snapshot {snapshot}", subject=name, hint=f"vmhost snapshot list {name}")
    return found


def refuse_saved(subject: Subject) -> None:
    """Return, or raise when the memory of the guest is saved. :raises Refused: it is."""
    if subject.domain.raw.managed_save:
        name = subject.domain.name
        text = "its memory is saved, and would go on with the files of then"
        raise Refused(text, subject=name, hint=f"vmhost guest start {name}")


def site_of(subject: Subject) -> str:
    """Return the site of the guest."""
    return subject.domain.metadata.site if subject.domain.metadata else ""
