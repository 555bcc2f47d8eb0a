"""Whether what the records of snapshots say is still so: others write to files, merge them, and delete them.

Why so: docs/decisions/0085.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vmhost.model.domains import DiskFacts, DomainFacts, ObservedDomain
from vmhost.model.observed import ObservedPool
from vmhost.model.snapshots import KeptDisk, Snapshot, Snapshots
from vmhost.render.parse.domain import DISK_ALIAS, parse_domain

WHOLE, DAMAGED, MERGING = "whole", "damaged", "merging"
OVERWRITTEN, DOUBTFUL = "overwritten", "doubtful"


def disk_id(disk: DiskFacts) -> str:
    """Return what snapshots call a disk."""
    return disk.alias.removeprefix(DISK_ALIAS) or disk.target


def facts_now(domain: ObservedDomain) -> DomainFacts:
    """Return what a guest runs with, or would start with."""
    return parse_domain(domain.raw.live_xml) if domain.active and domain.raw.live_xml else domain.facts


def written_disks(facts: DomainFacts) -> tuple[DiskFacts, ...]:
    """Return the disks of a definition that its guest writes to."""
    return tuple(disk for disk in facts.disks if disk.device == "disk" and not disk.readonly)


@dataclass(frozen=True, slots=True)
class Writer:
    """A file, and the guest that writes to it."""

    path: str
    guest: str


class Files:
    """What lies on what, and who writes to which file: by a definition, also one that its guest does not run with."""

    def __init__(self, domains: Iterable[ObservedDomain], pools: Iterable[ObservedPool]) -> None:
        pools = tuple(pools)
        volumes = [volume for pool in pools for volume in pool.volumes]
        self._places = {pool.path for pool in pools if pool.active}
        self._below = {volume.path: volume.backing for volume in volumes}
        self._paths = {(volume.pool, volume.name): volume.path for volume in volumes}
        named = {f"{volume.pool}/{volume.name}": volume.path for volume in volumes}
        self._writers: dict[str, str] = {}
        for domain in domains:
            for disk in (*written_disks(domain.facts), *written_disks(facts_now(domain))):
                self._writers[named.get(disk.source, disk.source)] = domain.name

    def path(self, kept: KeptDisk) -> str:
        """Return where the file of a snapshot lies; empty: it is gone."""
        return self._paths.get((kept.pool, kept.volume), "")

    def chain(self, path: str) -> tuple[str, ...]:
        """Return a file and all that it lies on, each once."""
        found: dict[str, None] = {}
        while path and path not in found:
            found[path] = None
            path = self._below.get(path, "")
        return tuple(found)

    def writer(self, path: str) -> Writer | None:
        """Return who writes to a file, or to one below it, which changes what it holds."""
        for one in self.chain(path):
            if one in self._writers:
                return Writer(one, self._writers[one])
        return None

    def overwritten(self, snapshot: Snapshot) -> Writer | None:
        """Return who writes to what a snapshot keeps."""
        return next((found for kept in snapshot.disks if (found := self.writer(self.path(kept)))), None)

    def state(self, snapshot: Snapshot, have: Snapshots, domain: ObservedDomain) -> str:
        """Return what a snapshot is worth.

        ``whole``; ``merging``: it is being deleted; ``damaged``: a file is gone; ``overwritten``: a guest writes to
        one; ``doubtful``: somebody else merged, or took away, what lay on it, so it may hold what is newer.
        """
        if snapshot.merging:
            return MERGING
        if not all(self._there(self.path(kept)) for kept in snapshot.disks):
            return DAMAGED
        if self.overwritten(snapshot):
            return OVERWRITTEN
        return DOUBTFUL if snapshot.number in self._doubtful(have, domain) else WHOLE

    def lies_below(self, snapshot: Snapshot, domain: ObservedDomain) -> bool:
        """Whether the disks that a guest has now, as far as a snapshot has them, rest on its files."""
        chains = self._chains(domain)
        return all(self.path(kept) in chains[kept.disk][1:] for kept in snapshot.disks if kept.disk in chains)

    def _there(self, path: str) -> bool:
        """Whether a file is there, and all that it lies on, as far as that is in pools."""
        below = [one for one in self.chain(path) if one.rpartition("/")[0] in self._places]
        return path != "" and all(one in self._below for one in below)

    def _chains(self, domain: ObservedDomain) -> dict[str, tuple[str, ...]]:
        return {disk_id(disk): self.chain(disk.source) for disk in written_disks(facts_now(domain))}

    def _doubtful(self, have: Snapshots, domain: ObservedDomain) -> set[int]:
        """Return the snapshots next to which others are no longer below the disk of now that the records have there."""
        found: set[int] = set()
        for disk, chain in self._chains(domain).items():
            missing = False
            for snapshot in have.line(have.present):
                kept = snapshot.disk(disk)
                if kept is None or snapshot.merging:
                    continue
                there = self.path(kept) in chain
                if there and missing:
                    found.add(snapshot.number)
                missing = not there
        return found
