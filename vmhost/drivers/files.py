"""Files that are whole or not there: atomic writes, private directories, JSON state with version and checksum."""

from __future__ import annotations

import errno
import json
import os
import shlex
import stat
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmhost.drivers.processes import process_is_alive
from vmhost.model.errors import Absent, AlreadyThere, DamagedData, DriverError, PermissionDenied

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def _look(path: Path) -> str:
    return f"ls -ld {shlex.quote(str(path.parent))}"


@contextmanager
def os_errors(path: Path, doing: str) -> Iterator[None]:
    """Turn every ``OSError`` of the block into the error of ours that fits; ``doing`` is a verb: ``write``, ``read``.

    :raises Absent: the path, or a directory above it, is not there.
    :raises AlreadyThere: it was to be new.
    :raises PermissionDenied: the kernel does not let us.
    :raises DriverError: the disk or quota is full, or anything else.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise Absent(f"cannot {doing}: no such file", subject=str(path), hint=_look(path)) from error
    except FileExistsError as error:
        raise AlreadyThere(f"cannot {doing}: it is there already", subject=str(path), hint=_look(path)) from error
    except PermissionError as error:
        hint = _look(path)
        raise PermissionDenied(f"cannot {doing}: permission denied", subject=str(path), hint=hint) from error
    except OSError as error:
        full = error.errno in _FULL
        hint = f"df -h {shlex.quote(str(path.parent))}" if full else _look(path)
        reason = f"no space left ({error.strerror})" if full else str(error.strerror or error)
        raise DriverError(f"cannot {doing}: {reason}", subject=str(path), hint=hint) from error


def sync_directory(path: Path) -> None:
    """Bring the names in a directory to the disk, so that a power cut does not take a new file or a rename back."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_all(handle: int, data: bytes) -> None:
    """Write all of ``data``; write(2) may take less than it is given, on a disk that becomes full for example."""
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def write_atomically(path: Path, data: bytes, *, mode: int = 0o600, owner: tuple[int, int] | None = None) -> None:
    """Replace a file so that a reader, or the next boot, finds the old content or the new, never a part.

    The directory must exist. After a failure the old file is untouched.

    :param mode: permissions of the file, whatever the umask is.
    :param owner: user and group of the file; None: ours.
    :raises DriverError: as :func:`os_errors` says.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_native_id()}.tmp")
    with os_errors(path, "write"):
        _remove_abandoned(path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        handle = os.open(temporary, flags, 0o600)
        try:
            try:
                if owner is not None:
                    os.fchown(handle, *owner)
                os.fchmod(handle, mode)
                write_all(handle, data)
                os.fsync(handle)
            finally:
                os.close(handle)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)


def _remove_abandoned(path: Path) -> None:
    """Remove what writers of this file left behind when they were killed."""
    for name in path.parent.glob(f".{path.name}.*.tmp"):
        owner, _, thread = name.name.removesuffix(".tmp").rpartition(".")[2].partition("-")
        if owner.isdigit() and thread.isdigit() and not _other_is_alive(int(owner), int(thread)):
            name.unlink(missing_ok=True)


def _other_is_alive(pid: int, thread: int) -> bool:
    return thread != threading.get_native_id() if pid == os.getpid() else process_is_alive(pid)


def make_directory(path: Path, *, mode: int = 0o755, durable: bool = False) -> Path:
    """Make a directory and what is missing above it (0755), and return it; one that exists keeps its mode.

    :param durable: bring each new name to the disk, so that a power cut does not take it and all below it back.
    :raises DriverError: as :func:`os_errors` says.
    """
    with os_errors(path, "make the directory"):
        missing = [directory for directory in (path, *path.parents) if not directory.exists()]
        for directory in reversed(missing):
            with suppress(FileExistsError):
                directory.mkdir(mode=0o700)
                directory.chmod(mode if directory == path else 0o755)
            if durable:
                sync_directory(directory.parent)
    return path


def make_private_directory(path: Path) -> Path:
    """Make a directory that only its owner may enter (0700), or tighten ours, and return it.

    :raises PermissionDenied: it is another user's, or not a directory: what lies in it cannot be trusted.
    :raises DriverError: as :func:`os_errors` says.
    """
    make_directory(path, mode=0o700)
    with os_errors(path, "use the directory"):
        status = path.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            raise PermissionDenied(
                "is not a directory of this user", subject=str(path), hint=f"ls -ld {shlex.quote(str(path))}"
            )
        if stat.S_IMODE(status.st_mode) & 0o077:
            path.chmod(0o700)
    return path


@dataclass(frozen=True, slots=True)
class StateFile:
    """What a state file holds: its format's version and its data."""

    version: int
    data: dict[str, Any]


def spelled(value: object) -> bytes:
    """Return a JSON value in one canonical spelling, on one line.

    :raises TypeError: it is not JSON.
    :raises ValueError: it holds a number that JSON has not (NaN).
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def checksum(value: object) -> str:
    """Return the SHA-256 (hex) of a JSON value in its canonical spelling."""
    # Imported here: whoever only asks whether a journal is open computes none.
    from hashlib import sha256

    return sha256(spelled(value)).hexdigest()


def write_state(path: Path, data: Mapping[str, Any], *, version: int, mode: int = 0o600) -> None:
    """Write a JSON state file with version and checksum, atomically; its directory is made (0755) when it is missing.

    :raises DriverError: as :func:`os_errors` says; the old file is untouched then.
    """
    make_directory(path.parent)
    plain = dict(data)
    document = {"version": version, "sha256": checksum([version, plain]), "data": plain}
    write_atomically(path, json.dumps(document, indent=1, sort_keys=True).encode() + b"\n", mode=mode)


def read_state(path: Path, *, newest: int) -> StateFile:
    """Read a JSON state file whose version is at most ``newest``.

    :raises Absent: there is none.
    :raises DamagedData: it is torn, edited, or from a newer vmhost; nothing of it is used.
    """
    with os_errors(path, "read"):
        text = path.read_bytes()
    try:
        document = json.loads(text)
        version, data, found = document["version"], document["data"], document["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path, "is not a state file of vmhost") from error
    if not isinstance(version, int) or not isinstance(data, dict):
        raise _damaged(path, "is not a state file of vmhost")
    if version > newest:
        raise DamagedData(
            f"was written by a newer vmhost (format {version}, this one reads up to {newest})",
            subject=str(path),
            hint="vmhost --version",
        )
    if found != checksum([version, data]):
        raise _damaged(path, "its checksum does not hold")
    return StateFile(version=version, data=data)


def _damaged(path: Path, reason: str) -> DamagedData:
    quoted = shlex.quote(str(path))
    return DamagedData(reason, subject=str(path), hint=f"mv {quoted} {shlex.quote(f'{path}.damaged')}")
