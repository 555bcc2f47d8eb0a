"""What backups ask of the hypervisor and of repositories. The same rules as in :mod:`vmhost.ports` hold."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from vmhost.model.backupsteps import DiskCopy
    from vmhost.model.nightsteps import ObservedTimers, TimerFile
    from vmhost.model.points import (
        BackupProgress,
        Compression,
        Damage,
        Level,
        NewPoint,
        Point,
        PointRef,
        RepositoryId,
        Tracking,
    )

Tell = Callable[[int, int], None]
"""Called with the bytes done and all bytes; it may raise, which ends the work and leaves nothing half."""


class Backups(Protocol):
    """Backup jobs and checkpoints of one hypervisor: a part of :class:`vmhost.ports.Hypervisor`."""

    def tracking(self, uuid: str) -> Tracking:
        """What a guest's backups rest on. :raises Absent: there is no such guest."""

    def begin_backup(self, uuid: str, xml: str, checkpoint_xml: str, *, reuse: bool, rate: int = 0) -> None:
        """Begin a backup job, and a checkpoint at the same instant; AlreadyThere when a job runs.

        :param rate: bytes a second that QEMU may write of each disk; 0: no limit.
        """

    def backup_progress(self, uuid: str) -> BackupProgress: ...
    def end_backup(self, uuid: str) -> None:
        """End the backup job, whoever began it, and wait until it has ended; Absent when there is none."""

    def drop_checkpoint(self, uuid: str, name: str, *, lost: bool = False) -> None:
        """Drop a checkpoint with its bitmaps; ``lost`` or where they are gone: libvirt's record of it only.

        Absent when there is none of that name.
        """

    def drop_bitmap(self, uuid: str, source: str, name: str) -> None:
        """Drop a bitmap of a running guest's disk; Absent when there is none."""


class Repositories(Protocol):
    """Repositories of backups on this machine's file systems, and the files of disks that restores replace.

    Paths name repositories. DamagedData when one is not what it should be; Refused when it is not mounted.
    """

    def look(self, path: str, *, new_id: str) -> RepositoryId:
        """What is at a path; a directory that is empty or not there is a repository to be made, with ``new_id``.

        :raises Refused: something else is there, or a repository was there and is not mounted now.
        """

    def make(self, path: str, id: str) -> None:  # noqa: A002 - what it is
        """Make one; AlreadyThere when there is one."""

    def points(self, path: str, guest: str = "") -> tuple[Point, ...]:
        """All published points that can be read, of all hosts, or of one guest (UUID): the oldest first."""

    def damaged(self, path: str, guest: str = "") -> tuple[Damage, ...]:
        """Points whose manifests cannot be understood, and what is noted about points, by looking at nothing else."""

    def begin(self, new: NewPoint) -> None:
        """Make the directory of a point that is to be; what a dead owner left of this guest is removed."""

    def copy(
        self,
        ref: PointRef,
        disk: DiskCopy,
        socket: str,
        tell: Tell,
        *,
        rate: int = 0,
        compression: Compression = "none",
    ) -> None:
        """Write a whole disk into a point that was begun, so many bytes a second at most (0: no limit).

        ``socket`` empty: from the disk's file.
        """

    def pack(self, ref: PointRef, file: str, compression: Compression, tell: Tell, *, rate: int = 0) -> None:
        """Compress what QEMU has written of a disk into a point that was begun, so many bytes a second at most (0: no
        limit); what it lies on stays as it is.
        """

    def put(self, ref: PointRef, name: str, data: bytes) -> None:
        """Write a small file into a point that was begun."""

    def publish(self, ref: PointRef, documents: Mapping[str, str], tell: Tell, *, level: Level = "crash") -> Point:
        """Hash and publish a point that was begun, with what it is worth; AlreadyThere when it is published."""

    def discard(self, ref: PointRef) -> None:
        """Delete a point that was begun, or whose deletion was; Absent when there is none."""

    def delete(self, ref: PointRef) -> None:
        """Delete a published point; Absent when there is none."""

    def verify(self, ref: PointRef, tell: Tell, known: Collection[str] = ()) -> tuple[Damage, ...]:
        """Read every byte of a point and of those that it lies on; return all that is not as it was.

        :param known: those among them (ids) that were read lately: of these it is seen only that all is there.
        :raises DriverError: something cannot be read now, which is no damage.
        """

    def note(self, ref: PointRef, **values: bool | str) -> None:
        """Note ``pinned``, ``verified`` or ``damaged`` of a published point.

        :raises DamagedData: what was noted before cannot be read; nothing is changed.
        """

    def read(self, ref: PointRef, name: str) -> str:
        """A small text of a published point, whose hash holds; Absent, or DamagedData."""

    def need(self, ref: PointRef, file: str) -> int:
        """Bytes that a disk of a published point takes at most where it is restored to; 0 when it is damaged."""

    def room(self, directory: str) -> int:
        """Bytes that are free for files in a directory, or in the nearest one above it that is there."""

    def restore(self, ref: PointRef, file: str, target: str, like: str, tell: Tell) -> None:
        """Verify a disk with all that it lies on and write it whole into a new file, owned as ``like`` is, if any.

        :raises AlreadyThere: the target is there; :raises DamagedData: it is not restorable; nothing is left then.
        """

    def expose(self, ref: PointRef, file: str, socket: str) -> None:
        """Let QEMU read a disk of a published point at a socket, with all that it lies on; nobody can write to it.

        It lasts until :meth:`conceal`, whoever began it. :raises DriverError: it cannot be read; nothing is left.
        """

    def conceal(self, socket: str) -> None:
        """End what :meth:`expose` began; Absent when there is none."""

    def overlay(self, path: str, socket: str, capacity: int) -> None:
        """Make a qcow2 file, to be written to by a guest, that lies on what is read at a socket.

        :raises AlreadyThere: there is such a file.
        """

    def bring(self, ref: PointRef, name: str, target: str) -> None:
        """Copy a small file of a published point, whose hash holds, to a new place."""

    def place(self, path: str, data: bytes) -> None:
        """Write a new small file that a guest reads."""

    def swap(self, path: str, new: str, kept: str) -> None:
        """Put ``new`` in the place of ``path``, kept as ``kept``; AlreadyThere when something is kept there.

        It gets the time of the last change of ``path``, by which :meth:`written` tells.
        """

    def swapped(self, path: str, kept: str) -> bool:
        """Whether ``path`` is another file than ``kept``, and both are there."""

    def written(self, path: str, kept: str) -> bool:
        """Whether somebody has written to ``path`` since it took the place of ``kept``; or perhaps, if another vmhost
        swapped them.
        """

    def unswap(self, path: str, kept: str) -> None:
        """Put ``kept`` back; Absent when nothing is kept."""

    def remove(self, path: str) -> None:
        """Delete a file. Absent when there is none."""

    def kept(self, path: str) -> tuple[str, ...]:
        """What restores keep of the disk at a path."""


class Timers(Protocol):
    """What wakes the night's work on this machine: files for systemd or cron, each with our mark."""

    def state(self) -> ObservedTimers: ...
    def check(self, files: Sequence[TimerFile]) -> None:
        """Let systemd read units before they are put in place. :raises UsageError: it would not take them."""

    def put(self, file: TimerFile) -> None:
        """Write a file, or write it anew, by which a timer goes at once; AlreadyThere when it is another's."""

    def drop(self, path: str) -> None:
        """Delete a file; Absent when there is none, AlreadyThere when it is another's."""

    def start(self, timer: str, *, boot: bool = True, now: bool = True) -> None:
        """Let systemd start a timer, now, at every boot, or both; Absent when it has none of that name."""

    def stop(self, timer: str, *, boot: bool = True, now: bool = True) -> None:
        """Let systemd stop a timer, no more start it at boot, or both, also one whose file is gone.

        Absent when there is nothing of that name.
        """
