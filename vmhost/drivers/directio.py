"""O_DIRECT (open(2)): files past the host's cache, so that it need not hold what guests cache or nobody reads again."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import FileIO
from itertools import cycle
from pathlib import Path
from typing import Final

PIECE: Final = 2 << 20
"""Bytes that are read at once: fewer do not keep a disk busy, more leave the processor's cache."""


def takes_direct(directory: Path) -> bool:
    """Return whether files in a directory can be read and written past the host's cache; nothing is left there.

    Of a directory that is yet to be made, the nearest one above it is asked. Where no file without a name can be made
    (O_TMPFILE), or we may not write, the answer is no: that is always safe.
    """
    there = next((path for path in (directory, *directory.parents) if path.is_dir()), Path("/"))
    try:
        handle = os.open(there, os.O_TMPFILE | os.O_DIRECT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:
        return False
    os.close(handle)
    return True


def pieces(file: FileIO) -> Iterator[memoryview]:
    """Yield what a file holds now, from the disk where it can be read past the cache, the next piece read meanwhile.

    A piece is good until the next one is asked for. :raises OSError: it cannot be read.
    """
    left = os.fstat(file.fileno()).st_size
    with suppress(OSError):
        _pass_the_cache(file)
    buffers = cycle((mmap.mmap(-1, PIECE), mmap.mmap(-1, PIECE)))
    with ThreadPoolExecutor(1, thread_name_prefix="read") as reader:
        ahead = reader.submit(_filled, file, next(buffers))
        while left > 0 and (piece := ahead.result()):
            left -= len(piece)
            if left > 0:
                ahead = reader.submit(_filled, file, next(buffers))
            yield piece


def _pass_the_cache(file: FileIO, *, on: bool = True) -> None:
    """Read a file directly from now on, or no longer. :raises OSError: its file system cannot do that."""
    flags = fcntl.fcntl(file, fcntl.F_GETFL) & ~os.O_DIRECT
    fcntl.fcntl(file, fcntl.F_SETFL, flags | os.O_DIRECT if on else flags)


def _filled(file: FileIO, buffer: mmap.mmap) -> memoryview:
    try:
        count = file.readinto(buffer)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        _pass_the_cache(file, on=False)  # a file system that takes the flag, and then wants other pieces
        count = file.readinto(buffer)
    return memoryview(buffer)[: count or 0]
