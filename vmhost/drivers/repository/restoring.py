"""Disks out of points: verified while they are written, and whole before anything is replaced."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from shlex import quote
from typing import Final

from vmhost.backupports import Tell
from vmhost.drivers.command import CommandFailed
from vmhost.drivers.files import os_errors, sync_directory
from vmhost.drivers.imagelock import is_open
from vmhost.drivers.repository import checking, copying, notes, places
from vmhost.drivers.retries import tried
from vmhost.model.errors import Absent, DamagedData, DriverError, NoCapacity, VmhostError
from vmhost.model.points import KEPT, Damage, Point, PointFile, PointRef
from vmhost.model.units import format_size

_CLOSING: Final = 2.0
"""Seconds that a program which ends may take to close a file."""


class _Open(DriverError):
    """QEMU, or a program of it, has a file open."""


def restore(ref: PointRef, file: str, target: Path, like: Path | None, tell: Tell) -> None:
    """Verify a disk with all that it lies on, and write it whole into a new file, which stays only if all holds.

    What is damaged is noted beside the points, as by verifying them.
    """
    needed = checking.levels(ref, file)
    entries = [(point, next(entry for entry in point.files if entry.name == file)) for point, _ in needed]
    total, capacity = sum(entry.size for _, entry in entries), needed[0][1].capacity
    source = f"json:{checking.tree(ref, file)}"
    _check_room(target.parent, need(ref, file))
    copying.make(target)
    try:
        _write(target, source, capacity, entries, copying.Meter(total + capacity, tell))
        with os_errors(target, "restore"):
            if like is not None:
                _look_like(target, like)
            copying.sync_file(target)
            sync_directory(target.parent)
    except BaseException as error:
        target.unlink(missing_ok=True)
        if isinstance(error, DamagedData):
            _mark([point.ref for point, _ in entries], error.subject)
        raise


def _mark(refs: Sequence[PointRef], bad: str) -> None:
    """Note that a point is damaged, and so are those of these that lie on it: the next point shall lie on none."""
    for ref in refs:
        with suppress(VmhostError):  # a repository that cannot be written to
            notes.note(ref, verified="", damaged=True)
        if ref.id == bad:
            return


def _write(
    target: Path, source: str, capacity: int, entries: Sequence[tuple[Point, PointFile]], meter: copying.Meter
) -> None:
    """Write a disk while every byte that it comes from is verified. :raises DamagedData: something is damaged."""
    written = 0

    def told(share: float) -> None:
        nonlocal written
        before, written = written, int(share * capacity)
        meter.add(written - before)
        _refuse(check for check in checks if check.done())

    with ThreadPoolExecutor(2, thread_name_prefix="restore") as pool:
        checks = [pool.submit(checking.file_damage, point, entry, meter) for point, entry in entries]
        try:
            try:
                cwd = places.points(entries[0][0].ref)
                copying.convert(source, "qcow2", target.absolute(), told, cwd=cwd, direct=True)
            except CommandFailed:
                os.truncate(target, 0)  # if it filled the disk, guests wait for room while the rest is read
                _refuse(checks)  # damage may be why it could not be read
                raise
            _refuse(checks)
        except BaseException:
            meter.end()
            for check in checks:
                check.cancel()
            raise


def _refuse(checks: Iterable[Future[Damage | None]]) -> None:
    """:raises DamagedData: one of the files that were looked at is damaged."""
    for check in checks:
        if damage := check.result():
            raise DamagedData(f"is not restorable: {damage}", subject=damage.point, hint="vmhost backup verify --all")


def swap(path: Path, new: Path, kept: Path) -> None:
    """Put a new file in the place of another one, which gets a second name first.

    It gets its time of the last change, too: whoever writes to it gives it another one.
    """
    with os_errors(kept, "keep"):
        if not new.exists() and kept.exists():
            return  # done before
        os.utime(new, ns=(new.stat().st_atime_ns, path.stat().st_mtime_ns))
        os.link(path, kept)
        new.replace(path)
        sync_directory(path.parent)


def swapped(path: Path, kept: Path) -> bool:
    """Whether another file has the place of the one that is kept."""
    with os_errors(kept, "look at"):
        return kept.exists() and path.exists() and not kept.samefile(path)


def written(path: Path, kept: Path) -> bool:
    """Whether a file was written to since it took the place of the one that is kept."""
    with os_errors(path, "look at"):
        return path.stat().st_mtime_ns != kept.stat().st_mtime_ns


def unswap(path: Path, kept: Path) -> None:
    """Put what was kept back. :raises Absent: nothing is kept."""
    with os_errors(kept, "put back"):
        if path.exists() and kept.samefile(path):
            kept.unlink()  # rename(2) of two names of one file does nothing
        else:
            kept.replace(path)
        sync_directory(path.parent)


def remove(path: Path) -> None:
    """Delete a file that no QEMU has open. :raises Absent: there is none; :raises DriverError: one has."""
    # A copier that was killed may be about to close it
    tried(lambda: _refuse_open(path), _Open, timeout=_CLOSING, wait_initial=0.02, wait_max=0.2, wait_jitter=0.02)
    with os_errors(path, "remove"):
        if not path.exists() and not path.is_symlink():
            raise Absent("there is no such file", subject=str(path))
        path.unlink()


def _refuse_open(path: Path) -> None:
    if is_open(str(path)):
        hint = f"fuser -v {quote(str(path))}"
        raise _Open("a guest or a program has it open; it stays", subject=str(path), hint=hint, retryable=True)


def kept(path: Path) -> tuple[str, ...]:
    """Return what restores keep of the disk at a path. :raises DriverError: its directory cannot be looked into."""
    try:
        with os_errors(path.parent, "look into"):
            beside = sorted(path.parent.iterdir())
    except Absent:
        return ()
    return tuple(str(found) for found in beside if found.name.startswith(f"{path.name}{KEPT}"))


def _look_like(target: Path, like: Path) -> None:
    """Give a file the owner and the mode of another one, which it is to replace."""
    try:
        status = like.stat()
    except FileNotFoundError:
        return
    target.chmod(status.st_mode & 0o777)
    if os.geteuid() == 0:
        os.chown(target, status.st_uid, status.st_gid)


def need(ref: PointRef, file: str) -> int:
    """Return the bytes that a disk takes; what is compressed in a point is not where it is restored to."""
    try:
        return copying.need_of(f"json:{checking.tree(ref, file)}", places.points(ref))
    except (CommandFailed, DamagedData):
        return 0  # it is damaged: whoever reads it says where


def _check_room(directory: Path, need: int) -> None:
    """:raises NoCapacity: there is not enough room for a disk."""
    with os_errors(directory, "measure"):
        found = os.statvfs(directory)
    free = found.f_bavail * found.f_frsize
    if free < need:
        text = f"needs {format_size(need)} of free space, but there is {format_size(free)}"
        raise NoCapacity(text, subject=str(directory), hint=f"df -h {directory}")
