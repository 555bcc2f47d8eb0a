"""Where things lie in a repository, and names that cannot lead out of it.

::

    REPOSITORY/format                                    which format, and the repository's own id
    REPOSITORY/README.md                                 how to restore by hand
    REPOSITORY/hosts/HOST/guests/UUID/points/POINT/      manifest.json, SHA256SUMS, domain.xml, one qcow2 for each disk
    REPOSITORY/hosts/HOST/guests/UUID/points/.new-POINT/ a point that is being made
"""

from __future__ import annotations

import errno
import os
import re
import shlex
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Final

from vmhost.model.errors import Conflict, DamagedData
from vmhost.model.points import PointRef

FORMAT: Final = "format"
README: Final = "README.md"
MANIFEST: Final = "manifest.json"
SUMS: Final = "SHA256SUMS"
HOSTS: Final = "hosts"
NEW: Final = ".new-"
LOCK: Final = ".lock"
PATIENCE: Final = 10.0
"""Seconds that another one, perhaps of another host, may take who writes what several write."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def checked(name: str, what: str) -> str:
    """Return a name that is one plain component of a path. :raises DamagedData: it is not."""
    if not _NAME.fullmatch(name):
        raise DamagedData(f"{name[:80]!a} cannot be the name of {what}", subject="repository")
    return name


def guests(repository: str, host: str) -> Path:
    """Return the directory of a host's guests."""
    return Path(repository, HOSTS, checked(host, "a host"), "guests")


def points(ref: PointRef) -> Path:
    """Return the directory of a guest's points."""
    return guests(ref.repository, ref.host) / checked(ref.guest, "a guest") / "points"


def published(ref: PointRef) -> Path:
    """Return the directory of a point that others see."""
    return points(ref) / checked(ref.id, "a point")


def begun(ref: PointRef) -> Path:
    """Return the directory of a point that is being made; as deep as it will be, so relative names hold."""
    return points(ref) / f"{NEW}{checked(ref.id, 'a point')}"


def check_levels(ref: PointRef) -> None:
    """:raises DamagedData: a directory above a guest's points is a symbolic link, or no directory."""
    above = points(ref)
    for path in (above, *above.parents):
        if path == Path(ref.repository):
            return
        if os.path.lexists(path) and not plain_directory(path):
            raise DamagedData("is no directory", subject=str(path), hint=f"ls -l {shlex.quote(str(path))}")


def plain_directory(path: Path) -> bool:
    """Whether there is a directory, and no symbolic link to one."""
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except OSError:
        return False


@contextmanager
def opened(path: Path) -> Iterator[FileIO]:
    """Give a regular file to be read. :raises DamagedData: it is a symbolic link or no file; :raises OSError: else."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO):  # a link; a socket
            raise
        raise _no_file(path) from error
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise _no_file(path)
        with FileIO(handle, closefd=False) as file:
            yield file
    finally:
        os.close(handle)


@contextmanager
def locked(path: Path, subject: str, doing: str) -> Iterator[None]:
    """Hold a lock in the repository, which dies with us. :raises Conflict: another has it for long; ``doing`` what."""
    from filelock import FileLock, Timeout

    lock = FileLock(path, mode=0o600)
    try:
        lock.acquire(timeout=PATIENCE)
    except Timeout:
        raise Conflict(f"another vmhost {doing}", subject=subject, hint=f"fuser -v {shlex.quote(str(path))}") from None
    try:
        yield
    finally:
        lock.release()


def _no_file(path: Path) -> DamagedData:
    what = "is a symbolic link" if path.is_symlink() else "is no regular file"
    return DamagedData(what, subject=str(path), hint=f"ls -l {shlex.quote(str(path))}")
