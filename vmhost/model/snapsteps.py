"""Steps about snapshots; a part of :mod:`vmhost.model.steps`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Overlay:
    """A file of a guest's disk over the one below it; ``target`` is the disk in libvirt's words (``vda``).

    ``in_use``: it is, or was when this was planned, the file that the guest writes or one below that.
    ``above`` are the files that lie on it, which are to lie on ``base`` once it is merged.
    """

    target: str
    top: str
    base: str
    in_use: bool = True
    above: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MakeOverlay:
    """Make an empty overlay of ``capacity`` bytes over the file of a disk that is there; both lie in a directory."""

    uuid: str
    name: str
    path: str
    base: str
    capacity: int
    kind: Literal["make-overlay"] = "make-overlay"


@dataclass(frozen=True, slots=True)
class SnapshotDisks:
    """Let a running guest write to other files from now on, all its disks at one instant; the files are there."""

    uuid: str
    name: str
    overlays: tuple[Overlay, ...]
    kind: Literal["snapshot-disks"] = "snapshot-disks"


@dataclass(frozen=True, slots=True)
class MergeOverlays:
    """Write what overlays hold into the files below them, which take their places; the overlays are of no use then.

    The guest may run meanwhile. Whatever ended an earlier try, doing it again is right.
    """

    uuid: str
    name: str
    overlays: tuple[Overlay, ...]
    kind: Literal["merge-overlays"] = "merge-overlays"


@dataclass(frozen=True, slots=True)
class KeepSnapshots:
    """Replace the records of a guest's snapshots; ``xml`` is their element's text, empty for none."""

    uuid: str
    name: str
    xml: str
    kind: Literal["keep-snapshots"] = "keep-snapshots"


@dataclass(frozen=True, slots=True)
class KeepNvram:
    """Copy the variables of a guest's UEFI to ``path``; a guest that has none yet leaves an empty file there."""

    uuid: str
    name: str
    path: str
    kind: Literal["keep-nvram"] = "keep-nvram"


@dataclass(frozen=True, slots=True)
class CheckNvram:
    """Look whether the variables of a guest's UEFI are still those at ``path``; a difference is a failure."""

    uuid: str
    name: str
    path: str
    kind: Literal["check-nvram"] = "check-nvram"


@dataclass(frozen=True, slots=True)
class PutNvram:
    """Give a guest that does not run the variables of UEFI that are kept at ``path``; an empty file: none."""

    uuid: str
    name: str
    path: str
    kind: Literal["put-nvram"] = "put-nvram"


@dataclass(frozen=True, slots=True)
class Freeze:
    """Let a guest freeze its file systems through its agent, at most so many seconds; a guest that does not is no
    failure unless it is ``required``.
    """

    uuid: str
    name: str
    timeout: float
    required: bool = False
    kind: Literal["freeze"] = "freeze"


@dataclass(frozen=True, slots=True)
class Thaw:
    """Thaw a guest's file systems: through its agent, then over SSH. ``must``: that it cannot be done is a failure."""

    uuid: str
    name: str
    must: bool = False
    kind: Literal["thaw"] = "thaw"


@dataclass(frozen=True, slots=True)
class PreFreeze:
    """Let services in a guest bring their data into order: the ``pre_freeze`` hooks that its metadata tells, by name.

    What they say costs the level and no more.
    """

    uuid: str
    name: str
    kind: Literal["pre-freeze"] = "pre-freeze"


@dataclass(frozen=True, slots=True)
class PostThaw:
    """Let them go on: the ``post_thaw`` hooks, the other way round, all of them, whatever became of the others.

    Those that have run well in the same operation are left out. ``must``: that one did not is a failure.
    """

    uuid: str
    name: str
    must: bool = False
    kind: Literal["post-thaw"] = "post-thaw"


@dataclass(frozen=True, slots=True)
class NoteLevel:
    """Note with a snapshot, by its number, what it is worth: what the freeze of the same operation has reached."""

    uuid: str
    name: str
    number: int
    kind: Literal["note-level"] = "note-level"


@dataclass(frozen=True, slots=True)
class SeeThawed:
    """Look whether the guest was thawed; if it was not, try again, and then say everywhere that it is frozen."""

    uuid: str
    name: str
    kind: Literal["see-thawed"] = "see-thawed"


DiskStep = MakeOverlay | SnapshotDisks | MergeOverlays | KeepSnapshots | KeepNvram | CheckNvram | PutNvram
QuiesceStep = Freeze | Thaw | PreFreeze | PostThaw | NoteLevel | SeeThawed
SnapshotStep = DiskStep | QuiesceStep
