"""Snapshots of a guest: points in its own storage, each with the files that hold its disks as they were then."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

SNAPSHOTS: Final = "https://vmhost.dev/xmlns/snapshots"
"""The namespace of the element in the domain's ``<metadata>`` that the records lie in."""

SNAPSHOTS_VERSION: Final = 1
MOST_DEEP: Final = 16
"""Snapshots that a guest's present disks may rest on: every one is a file more that a read may have to look into."""


class Level(StrEnum):
    """What a point is worth: the guest's programs had their say, its file systems had theirs, or neither.

    ``crash`` is what a power cut leaves behind.
    """

    APPLICATION = "application"
    FILESYSTEM = "filesystem"
    CRASH = "crash"


@dataclass(frozen=True, slots=True)
class KeptDisk:
    """A disk, by its stable id, and the volume that holds it as it was."""

    disk: str
    pool: str
    volume: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One snapshot. ``number`` counts in the guest and is never used again; ``parent`` is the one that it rests on, or
    0. ``nvram`` is the volume, beside the first disk, with the variables of its UEFI, or empty.

    ``why`` is empty when a person asked for it. ``merging``: its files are being merged away.
    """

    number: int
    name: str
    created: str
    level: Level
    parent: int = 0
    disks: tuple[KeptDisk, ...] = ()
    nvram: str = ""
    why: str = ""
    merging: bool = False

    def disk(self, disk: str) -> KeptDisk | None:
        """Return what it has of a disk, or None."""
        return next((kept for kept in self.disks if kept.disk == disk), None)


@dataclass(frozen=True, slots=True)
class Snapshots:
    """All snapshots of a guest. ``present`` is the one that its disks rest on now, 0: none; ``next`` the next number.

    ``reverted`` is when the guest last went back to one (ISO 8601, UTC): what was noted of its disks before is void.
    ``frozen`` is since when its file systems are frozen and nobody could thaw them; mostly empty.
    """

    items: tuple[Snapshot, ...] = ()
    present: int = 0
    next: int = 1
    reverted: str = ""
    frozen: str = ""
    version: int = SNAPSHOTS_VERSION

    @property
    def readable(self) -> bool:
        """Whether this vmhost may change them."""
        return self.version <= SNAPSHOTS_VERSION

    def named(self, name: str) -> Snapshot | None:
        """Return the snapshot of that name, or None."""
        return next((item for item in self.items if item.name == name), None)

    def children(self, number: int) -> tuple[Snapshot, ...]:
        """Return the snapshots that rest on one directly."""
        return tuple(item for item in self.items if item.parent == number)

    def line(self, number: int) -> tuple[Snapshot, ...]:
        """Return a snapshot and all that it rests on, downwards."""
        known, found = {item.number: item for item in self.items}, []
        while number in known:
            found.append(known.pop(number))
            number = found[-1].parent
        return tuple(found)

    @property
    def depth(self) -> int:
        """How many snapshots the present disks rest on."""
        return len(self.line(self.present))


NO_SNAPSHOTS: Final = Snapshots()


def overlay_name(uuid: str, disk: str, number: int) -> str:
    """Return the volume that a guest writes a disk to after the snapshot of that number: ``UUID-DISK@N.qcow2``."""
    return f"{uuid}-{disk}@{number}.qcow2"


def nvram_name(uuid: str, number: int) -> str:
    """Return the volume that keeps the variables of a guest's UEFI: ``UUID-nvram@N.fd``."""
    return f"{uuid}-nvram@{number}.fd"


def is_overlay_of(source: str, path: str) -> bool:
    """Whether a file is an overlay over a disk's first file, which lies at ``path``, made by a snapshot."""
    return re.fullmatch(rf"{re.escape(path.removesuffix('.qcow2'))}@\d+\.qcow2", source) is not None
