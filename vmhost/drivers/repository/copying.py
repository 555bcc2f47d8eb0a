"""Content of disks on its way into a repository and out of it: qemu-img does the work, and can be ended."""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final
from urllib.parse import quote

from vmhost.backupports import Tell
from vmhost.drivers.command import find, run
from vmhost.drivers.directio import pieces, takes_direct
from vmhost.drivers.files import os_errors
from vmhost.drivers.repository import places
from vmhost.model.errors import Cancelled, DamagedData
from vmhost.model.points import Compression

HOURS: Final = 24 * 3600.0
"""Seconds that copying one disk may take, longer within a rate; whoever loses patience cancels."""

CLOSING: Final = 60.0
"""Seconds that QEMU may take to close a file: a busy disk lets it wait when it brings its last tables there."""

_CHUNK: Final = 1 << 20
_LOOK_AGAIN: Final = 0.05
_OPEN: Final = re.compile(rb'Failed to get (shared )?"[a-z ]+" lock')
_PERCENT: Final = re.compile(r"\((\d+(?:\.\d+)?)/100%\)")
_AT_ONCE: Final = "4"
"""Pieces of 2 MiB that a copier has in work: with more they leave the processor's cache, and it is slower."""

_WITH_US: Final = ("setpriv", "--pdeathsig", "KILL", "--")
"""A copier that outlives us would hold locks on disks, and write into what the next run has begun."""


def make(path: Path) -> None:
    """Make an empty file that nobody else may read; qemu-img, which fills it, would make one for everybody.

    :raises AlreadyThere: there is something.
    """
    with os_errors(path, "make"):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))


def create(path: Path, capacity: int, backing: str) -> None:
    """Make an empty qcow2 file, on the file of that relative name if there is one."""
    make(path)
    below = ["-b", backing, "-F", "qcow2"] if backing else []
    run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-u", *below, path.name, str(capacity)], timeout=60, cwd=path.parent
    )


def export_of(socket: str, name: str) -> str:
    """Return the URI of an export of a backup job."""
    return f"nbd+unix:///{quote(name, safe='')}?socket={quote(socket, safe='/')}"


def patience(capacity: int, rate: int) -> float:
    """Return how many seconds copying one disk may take; ``rate``: bytes a second at most; 0: no limit."""
    return HOURS + (2 * capacity / rate if rate else 0)


def convert(
    source: str,
    form: str,
    target: Path,
    tell: Callable[[float], None],
    *,
    cwd: Path | None = None,
    rate: int = 0,
    timeout: float = HOURS,
    compression: Compression = "none",
    backing: str = "",
    direct: bool = False,
) -> None:
    """Write the whole content of a disk, as qcow2, into a file that :func:`make` made; zeros take no space.

    :param cwd: where relative names in the source begin.
    :param backing: what the file is to lie on, by a name relative to it: only what the source itself holds is written.
    :param direct: write past the host's cache where that can be done: for what nobody reads again soon.
    :param rate: bytes a second at most; 0: no limit. :param timeout: seconds that it may take.
    :param tell: called with the share that is done, 0 to 1, also while nothing moves; what it raises ends the copying.
    """
    done = 0.0

    def told(line: str) -> None:
        nonlocal done
        if found := _PERCENT.search(line):
            done = float(found[1]) / 100
            tell(done)

    limit = ["-r", str(rate)] if rate else []
    # QEMU packs a disk's clusters in order only
    packing = ["-W"] if compression == "none" else ["-c", "-o", f"compression_type={compression}"]
    below = ["-B", backing, "-F", "qcow2"] if backing else []
    cache = ["-t", "none"] if direct and takes_direct(target.parent) else []
    how = [*packing, *cache, *limit, *below, "-m", _AT_ONCE]
    words = ["convert", "-p", *how, "-f", form, "-O", "qcow2", source, str(target)]
    run(
        [*_WITH_US, find("qemu-img"), *words],
        timeout=timeout,
        on_line=told,
        on_idle=lambda: tell(done),
        cwd=cwd,
        hint=f"df -h {target.parent}",
    )


def size_of(path: str, form: str) -> int:
    """Return the capacity of an image in bytes, by its header."""
    found = run(["qemu-img", "info", "--output=json", "-U", "-f", form, path], timeout=60)
    return int(_json(found.text, path)["virtual-size"])


def need_of(source: str, cwd: Path) -> int:
    """Return the bytes that a qcow2 file takes at most which holds all that a disk holds, unpacked, by its tables."""
    found = run(["qemu-img", "measure", "--output=json", "-f", "qcow2", "-O", "qcow2", source], timeout=HOURS, cwd=cwd)
    return int(_json(found.text, source)["required"])


def check(path: Path) -> str:
    """Return what is wrong inside a qcow2 file (``qemu-img check``), or empty; its backing file is not opened.

    A file that QEMU is still about to close is waited for: libvirt calls a backup done a moment before that.
    """
    image = json.dumps({"driver": "qcow2", "backing": None, "file": {"driver": "file", "filename": str(path)}})
    words = ["qemu-img", "check", "-q", "--output=json", f"json:{image}"]
    deadline = monotonic() + CLOSING
    while _OPEN.search((done := run(words, timeout=HOURS, check=False)).stderr) and monotonic() < deadline:
        sleep(_LOOK_AGAIN)
    if done.code == 0:
        return ""
    try:
        found = _json(done.text, str(path))
    except DamagedData:
        return (done.stderr.decode(errors="replace").strip() or f"qemu-img check: exit code {done.code}")[:300]
    if done.code == 3 and not found.get("corruptions"):
        return ""  # clusters that nobody uses, of a job that ended early: they harm nobody
    return f"qemu-img check: {found.get('corruptions', 0)} corruptions, {found.get('check-errors', 0)} errors"


def _json(text: str, subject: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise DamagedData("qemu-img gives no answer that can be read", subject=subject) from error


def hash_file(path: Path, tell: Callable[[int], None], *, direct: bool = False) -> tuple[int, str]:
    """Return a regular file's size and SHA-256; ``tell`` is called with every number of bytes read.

    :param direct: read what is on the disk, where that can be told, and leave the kernel's cache to others; else what
        is read stays there for whoever reads it next.
    :raises DamagedData: it is a symbolic link or no file; :raises DriverError: it cannot be read now.
    """
    digest, size = hashlib.sha256(), 0
    with os_errors(path, "read"), places.opened(path) as file:
        for piece in pieces(file) if direct else _cached(file):
            digest.update(piece)
            size += len(piece)
            tell(len(piece))
    return size, digest.hexdigest()


def _cached(file: FileIO) -> Iterator[memoryview]:
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
    buffer = bytearray(_CHUNK)
    while count := file.readinto(buffer):
        yield memoryview(buffer)[:count]


def sync_file(path: Path, mode: int | None = None) -> None:
    """Bring a file's content to the disk, and its mode if it gets one."""
    with os_errors(path, "sync"):
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if mode is not None:
                os.fchmod(handle, mode)
            os.fsync(handle)
        finally:
            os.close(handle)


class Meter:
    """Adds up bytes that are worked on, in several threads, and tells how far it is; ``end`` ends those threads."""

    def __init__(self, total: int, tell: Tell) -> None:
        self._total = total
        self._done = 0
        self._ended = False
        self._tell = tell
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        """Note that so many bytes more are done; from any thread."""
        with self._lock:
            if self._ended:
                raise Cancelled("nobody waits for it any more")
            self._done += count
            self._tell(self._done, self._total)

    def end(self) -> None:
        """Let the next ``add`` of every thread raise."""
        self._ended = True
