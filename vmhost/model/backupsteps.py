"""Steps of backups and restores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from vmhost.model.points import Compression, NewPoint, PointRef


class _HasRef(Protocol):
    @property
    def ref(self) -> PointRef: ...


class _OfPoint:
    """A step at a point, ``ref``."""

    __slots__ = ()

    @property
    def uuid(self: _HasRef) -> str:
        """The guest, whose lock is held meanwhile."""
        return self.ref.guest


@dataclass(frozen=True, slots=True)
class MakeRepository:
    """Make an empty repository in a directory."""

    path: str
    id: str
    kind: Literal["make-repository"] = "make-repository"


@dataclass(frozen=True, slots=True)
class OpenPoint:
    """Begin a point: a directory that nobody takes for a point yet, with its documents and empty increments."""

    new: NewPoint
    kind: Literal["open-point"] = "open-point"

    @property
    def uuid(self) -> str:
        """The guest, whose lock is held meanwhile."""
        return self.new.point.ref.guest


@dataclass(frozen=True, slots=True)
class DiscardPoint:
    """Delete a point that was begun and never published."""

    ref: PointRef
    kind: Literal["discard-point"] = "discard-point"


@dataclass(frozen=True, slots=True)
class BeginBackup:
    """Begin libvirt's backup job of a running guest: the instant that the point holds, and its checkpoint.

    ``reuse``: the targets are there already. ``rate``: bytes a second that QEMU may write of each disk; 0: no limit.
    """

    uuid: str
    name: str
    xml: str
    checkpoint_xml: str = ""
    reuse: bool = False
    rate: int = 0
    kind: Literal["begin-backup"] = "begin-backup"


@dataclass(frozen=True, slots=True)
class EndBackup:
    """End the backup job whose description holds ``mark``, if it runs, and drop its checkpoint.

    What was written since an older checkpoint stays known.
    """

    uuid: str
    name: str
    mark: str
    checkpoint: str = ""
    kind: Literal["end-backup"] = "end-backup"


@dataclass(frozen=True, slots=True)
class DiskCopy:
    """A disk to be copied: from an export of the backup job (``socket``), or from a file that nobody writes."""

    file: str
    target: str
    source: str = ""
    format: str = ""


@dataclass(frozen=True, slots=True)
class CopyDisks(_OfPoint):
    """Bring the content of a guest's disks into the point.

    ``how``: ``pull`` reads what the backup job exports, ``push`` waits for QEMU, which writes by itself, ``offline``
    reads the files of a guest that is shut off. ``rate``: bytes a second that a copier may copy, or pack; 0: no limit.
    ``compression``: a copier packs what it writes; what QEMU has written is packed afterwards.
    ``nvram`` is what the point calls UEFI's variables; empty: it has none.
    ``instance_id`` and ``hostname`` are what a seed without secrets says, for whoever restores by hand; empty: none.
    """

    ref: PointRef
    name: str
    how: Literal["pull", "push", "offline"]
    disks: tuple[DiskCopy, ...]
    mark: str = ""
    nvram: str = ""
    rate: int = 0
    compression: Compression = "none"
    instance_id: str = ""
    hostname: str = ""
    kind: Literal["copy-disks"] = "copy-disks"


@dataclass(frozen=True, slots=True)
class PublishPoint(_OfPoint):
    """Hash a point's files, bring them to the disk, and make the point one that others see."""

    ref: PointRef
    checkpoint: str = ""
    kind: Literal["publish-point"] = "publish-point"


@dataclass(frozen=True, slots=True)
class DeletePoint(_OfPoint):
    """Delete a published point."""

    ref: PointRef
    kind: Literal["delete-point"] = "delete-point"


@dataclass(frozen=True, slots=True)
class PinPoint(_OfPoint):
    """Pin a point, so that it never goes, or no longer."""

    ref: PointRef
    on: bool
    kind: Literal["pin-point"] = "pin-point"


@dataclass(frozen=True, slots=True)
class DropCheckpoint:
    """Drop a checkpoint; what was written since an older one stays known. ``lost``: its bitmaps are not there."""

    uuid: str
    name: str
    checkpoint: str
    lost: bool = False
    kind: Literal["drop-checkpoint"] = "drop-checkpoint"


@dataclass(frozen=True, slots=True)
class DropBitmap:
    """Drop a bitmap that no checkpoint belongs to any more, from the disk of a running guest."""

    uuid: str
    name: str
    source: str
    bitmap: str
    kind: Literal["drop-bitmap"] = "drop-bitmap"


@dataclass(frozen=True, slots=True)
class RestoreDisk(_OfPoint):
    """Verify a disk of a point with all that it lies on, and write its content into a new file beside ``like``."""

    ref: PointRef
    file: str
    target: str
    like: str
    kind: Literal["restore-disk"] = "restore-disk"


@dataclass(frozen=True, slots=True)
class BringNvram(_OfPoint):
    """Copy the variables of UEFI that a point holds to a new file."""

    ref: PointRef
    target: str
    kind: Literal["bring-nvram"] = "bring-nvram"


@dataclass(frozen=True, slots=True)
class SwapFile:
    """Let ``new`` take the place of ``path``, which is kept as ``kept``; at no moment is there nothing.

    The guest whose disk it is does not run.
    """

    uuid: str
    name: str
    path: str
    new: str
    kept: str
    kind: Literal["swap-file"] = "swap-file"


@dataclass(frozen=True, slots=True)
class UnswapFile:
    """Put ``kept`` back in the place of ``path``. The guest whose disk it is does not run."""

    uuid: str
    name: str
    path: str
    kept: str
    kind: Literal["unswap-file"] = "unswap-file"


@dataclass(frozen=True, slots=True)
class RemoveFile:
    """Delete a file that a restore made or kept."""

    path: str
    kind: Literal["remove-file"] = "remove-file"


BackupStep = (
    MakeRepository
    | OpenPoint
    | DiscardPoint
    | BeginBackup
    | EndBackup
    | CopyDisks
    | PublishPoint
    | DeletePoint
    | PinPoint
    | DropCheckpoint
    | DropBitmap
    | RestoreDisk
    | BringNvram
    | SwapFile
    | UnswapFile
    | RemoveFile
)
