"""Disks out of points: verified before anything is written, whole before anything is replaced."""

from __future__ import annotations

import os
from pathlib import Path

from vmhost.backupports import Tell
from vmhost.drivers.files import os_errors, sync_directory
from vmhost.drivers.repository import checking, copying, places
from vmhost.model.errors import Absent, DamagedData, NoCapacity
from vmhost.model.points import KEPT, PointRef
from vmhost.model.units import format_size


def restore(ref: PointRef, file: str, target: Path, like: Path | None, tell: Tell) -> None:
    """Verify a disk with all that it lies on, and write it whole into a new file."""
    needed = checking.levels(ref, file)
    entries = [(point, next(entry for entry in point.files if entry.name == file)) for point, _ in needed]
    total = sum(entry.size for _, entry in entries)
    capacity = needed[0][1].capacity
    meter = copying.Meter(total + capacity, tell)
    for point, entry in entries:
        if damage := checking.file_damage(point, entry, meter):
            raise DamagedData(f"is not restorable: {damage}", subject=ref.id, hint="vmhost backup verify --all")
    _check_room(target.parent, min(total, capacity))
    copying.make(target)
    try:
        source = places.published(ref) / file
        copying.convert(
            str(source), "qcow2", target, lambda share: tell(total + int(share * capacity), total + capacity)
        )
        with os_errors(target, "restore"):
            if like is not None:
                _look_like(target, like)
            copying.sync_file(target)
            sync_directory(target.parent)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def swap(path: Path, new: Path, kept: Path) -> None:
    """Put a new file in the place of another one, which gets a second name first."""
    with os_errors(kept, "keep"):
        if not new.exists() and kept.exists():
            return  # done before
        os.link(path, kept)
        new.replace(path)
        sync_directory(path.parent)


def unswap(path: Path, kept: Path) -> None:
    """Put what was kept back. :raises Absent: nothing is kept."""
    with os_errors(kept, "put back"):
        if path.exists() and kept.samefile(path):
            kept.unlink()  # rename(2) of two names of one file does nothing
        else:
            kept.replace(path)
        sync_directory(path.parent)


def remove(path: Path) -> None:
    """Delete a file. :raises Absent: there is none."""
    with os_errors(path, "remove"):
        if not path.exists() and not path.is_symlink():
            raise Absent("there is no such file", subject=str(path))
        path.unlink()


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


def _check_room(directory: Path, need: int) -> None:
    """:raises NoCapacity: there is not enough room for a disk."""
    with os_errors(directory, "measure"):
        found = os.statvfs(directory)
    free = found.f_bavail * found.f_frsize
    if free < need:
        text = f"needs {format_size(need)} of free space, but there is {format_size(free)}"
        raise NoCapacity(text, subject=str(directory), hint=f"df -h {directory}")
