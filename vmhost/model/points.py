"""Points in time that backups hold: as they are planned, as they lie in a repository, and what a guest has for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["full", "incremental"]
Level = Literal["application", "filesystem", "crash"]
Compression = Literal["none", "zstd"]
"""How what a point holds of disks is packed; whoever reads it with qemu-img need not know."""

CHECKPOINT_PREFIX: Final = "vmhost-"
NVRAM: Final = "nvram.fd"
SEED: Final = "seed.iso"
"""What a point calls UEFI's variables, and the seed without secrets that a guest restored by hand needs."""
KEPT: Final = ".before-"
"""What stands between the name of a disk and the point that replaced it, in the name of what it was before."""


@dataclass(frozen=True, slots=True)
class RepositoryId:
    """A repository: where it lies now, its id, which travels with it, and the id under which this host has its place.

    ``known`` False: there is none yet, and it would be made. ``free`` bytes of its file system.
    """

    path: str
    id: str
    host: str
    known: bool = True
    free: int = 0
    writable: bool = True


@dataclass(frozen=True, slots=True)
class PointRef:
    """The place of a point: repository (path), host, guest (UUID) and the point's own id."""

    repository: str
    host: str
    guest: str
    id: str


@dataclass(frozen=True, slots=True)
class PointDisk:
    """A disk of a point.

    ``id`` is our stable one or the target's name; ``file`` its name beside the manifest; ``capacity`` bytes as the
    guest sees them; ``backing`` the file that an increment lies on, relative to the point, empty for a full copy;
    ``source`` where the disk was, and ``format`` what it was.
    """

    id: str
    target: str
    file: str
    capacity: int
    backing: str = ""
    source: str = ""
    format: str = "qcow2"


@dataclass(frozen=True, slots=True)
class PointFile:
    """A file of a point with its size in bytes and its SHA-256."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Point:
    """A guest at one instant, as its manifest says.

    ``generation`` counts a guest's points, since clocks jump; ``taken`` is UTC (ISO 8601). ``because`` says why it is
    a full one, ``parent`` is the point that an incremental one lies on. ``level`` is how consistent it is.
    ``checkpoint`` is what the next increment would begin from; empty: nothing. ``nvram`` is the file with UEFI's
    variables. ``pinned``, ``verified`` (when it was last found whole, ISO 8601) and ``damaged`` are noted beside it,
    not in its manifest.
    """

    ref: PointRef
    generation: int
    taken: str
    kind: Kind
    name: str
    host_name: str = ""
    because: str = ""
    parent: str = ""
    level: Level = "crash"
    site: str = ""
    checkpoint: str = ""
    nvram: str = ""
    disks: tuple[PointDisk, ...] = ()
    files: tuple[PointFile, ...] = ()
    pinned: bool = False
    verified: str = ""
    damaged: bool = False

    @property
    def id(self) -> str:
        return self.ref.id

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(file.size for file in self.files)


def beneath(point: Point, known: Mapping[PointRef, Point]) -> tuple[Point, ...]:
    """Return those that a point lies on, the nearest first, as far as they are known."""
    found: list[Point] = []
    place = point.ref
    while point.parent and len(found) < len(known):  # more is a circle
        below = known.get(PointRef(place.repository, place.host, place.guest, point.parent))
        if below is None:
            break
        found.append(below)
        point = below
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Damage:
    """Something in a repository that is not what it was: the point, the file, and what is wrong with it.

    ``guest`` is the UUID of the guest whose points are no longer all known because of it, or empty. Where what is noted
    beside all points of a guest is damaged, ``point`` is its UUID.
    """

    point: str
    file: str
    text: str
    guest: str = ""

    @property
    def holds(self) -> str:
        """The UUID of the guest none of whose points may go because of it; no guest's: there is no such guest."""
        return self.guest or self.point

    def __str__(self) -> str:
        return f"{self.point}/{self.file}: {self.text}" if self.file else f"{self.point}: {self.text}"


@dataclass(frozen=True, slots=True)
class NewPoint:
    """A point that is to be taken, with all that its manifest will say except sizes and hashes."""

    point: Point
    domain_xml: str
    spec: str = ""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint that libvirt knows; ``xml`` is its full description, with the domain."""

    name: str
    parent: str = ""
    xml: str = ""


@dataclass(frozen=True, slots=True)
class Bitmap:
    """A dirty bitmap of a running guest's disk; unsound ones cannot be used."""

    source: str
    name: str
    sound: bool = True


@dataclass(frozen=True, slots=True)
class DiskSize:
    """How large a disk of a guest is: bytes as the guest sees them, and bytes that its own file takes."""

    target: str
    capacity: int
    allocation: int


@dataclass(frozen=True, slots=True)
class Tracking:
    """What a guest has that backups rest on. ``job`` is the XML of the backup that runs, empty for none."""

    checkpoints: tuple[Checkpoint, ...] = ()
    bitmaps: tuple[Bitmap, ...] = ()
    sizes: tuple[DiskSize, ...] = ()
    job: str = ""


@dataclass(frozen=True, slots=True)
class BackupProgress:
    """How far a backup job is, in bytes; ``error`` is libvirt's word when it failed."""

    state: Literal["none", "running", "done", "failed"]
    done: int = 0
    total: int = 0
    error: str = ""
