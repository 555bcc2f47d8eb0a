"""How an image becomes visible: at once and whole, by one maker at a time."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from vmhost.drivers.files import make_directory, os_errors, sync_directory
from vmhost.drivers.images import manifest
from vmhost.drivers.images.inspection import ImageFacts
from vmhost.model.errors import Conflict, NoCapacity
from vmhost.model.image import ImageRecord, Source, Status
from vmhost.model.units import format_size

Progress = Callable[[str, float | None], None]
"""Called with what is being done and the share that is done, 0 to 1; None when nobody can know."""

PATIENCE: Final = 3600.0
"""Seconds to wait for another process that makes an image of the same name; a download may take that long."""

_CHUNK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Origin:
    """What an image was made from: its name, the digest of that, and what it boots by."""

    name: str
    id: str
    source: Source
    firmware: frozenset[str]
    status: Status = "ok"


@contextmanager
def locked(directory: Path, name: str, on_progress: Progress, *, patience: float = PATIENCE) -> Iterator[None]:
    """Hold the right to change the images of a name; the kernel releases it when we die.

    :param patience: seconds to wait for another process.
    :raises Conflict: it has not ended by then.
    """
    # Imported here: listing images is on the way of every command, and takes no lock.
    from filelock import FileLock, Timeout

    make_directory(directory)
    lock = FileLock(directory / f".{name}.lock", mode=0o600, thread_local=False)
    with os_errors(directory, "lock images in"):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            on_progress("another process makes this image; waiting", None)
            try:
                lock.acquire(timeout=patience, poll_interval=0.2)
            except Timeout:
                hint = f"fuser -v {shlex.quote(str(lock.lock_file))}"
                raise Conflict("another process is making this image", subject=name, hint=hint) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def making(directory: Path, name: str, on_progress: Progress) -> Iterator[Path]:
    """Hold the lock of a name, and yield an empty directory to work in, on the same file system.

    Whoever holds the lock removes what the dead left behind, so one abandoned attempt of a name at most lies there.

    :raises Conflict: another process makes one for longer than :data:`PATIENCE`.
    """
    with locked(directory, name, on_progress):
        remove_abandoned(directory, name)
        work = directory / f".{name}.work"
        with os_errors(work, "make the directory"):
            work.mkdir(mode=0o755)
        try:
            yield work
        finally:
            remove_tree(work)


def remove_abandoned(directory: Path, name: str) -> None:
    """Remove what makers of that name left when they died; call it under their lock."""
    remove_tree(directory / f".{name}.work")
    unseen = re.compile(re.escape(name) + r"-[0-9a-f]{12}\.(qcow2|raw)")
    with os_errors(directory, "clean up in"):
        for path in directory.iterdir():
            if unseen.fullmatch(path.name) and not path.with_suffix(".json").exists():
                path.unlink()


def remove_tree(path: Path) -> None:
    """Remove a directory with all that is in it, also where its files belong to the ids of a user namespace."""
    with os_errors(path, "look at"):
        if not path.is_dir():
            return
    if os.geteuid() != 0:
        from vmhost.drivers.images.fakeroot import as_root_of_namespace

        as_root_of_namespace(["rm", "-rf", "--one-file-system", str(path)], timeout=300)
        return
    with os_errors(path, "remove"):
        shutil.rmtree(path)


def publish(
    file: Path, facts: ImageFacts, origin: Origin, directory: Path, contents: Mapping[str, str], on_progress: Progress
) -> ImageRecord:
    """Hash an inspected file, bring it to the disk and under its name, and write its manifest last.

    :param file: on the same file system as ``directory``; it is moved.
    """
    final = directory / f"{manifest.stem(origin.name, origin.id)}.{facts.format}"
    digest = hash_file(file, on_progress)
    with os_errors(final, "publish"):
        handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fchmod(handle, 0o644)
            os.fsync(handle)
        finally:
            os.close(handle)
        file.replace(final)
        sync_directory(directory)
    record = ImageRecord(
        name=origin.name,
        id=origin.id,
        path=final,
        format=facts.format,
        virtual_size=facts.virtual_size,
        size=facts.file_size,
        sha256=digest,
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        firmware=origin.firmware,
        source=origin.source,
        status=origin.status,
    )
    manifest.write(record, contents)
    return record


def hash_file(path: Path, on_progress: Progress) -> str:
    """Return the SHA-256 of a file, in hex."""
    digest, done = hashlib.sha256(), 0
    with os_errors(path, "read"), path.open("rb") as file:
        total = os.fstat(file.fileno()).st_size
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            done += len(chunk)
            if done % (64 * _CHUNK) == 0:
                on_progress("hashing", done / total)
    return digest.hexdigest()


def check_space(directory: Path, need: int) -> None:
    """:raises NoCapacity: the file system of ``directory`` has less than ``need`` bytes free."""
    with os_errors(directory, "measure"):
        free = shutil.disk_usage(directory).free
    if free < need:
        raise NoCapacity(
            f"needs {format_size(need)} of free space, but there is {format_size(free)}",
            subject=str(directory),
            hint=f"df -h {shlex.quote(str(directory))}",
        )
