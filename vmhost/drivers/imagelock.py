"""Whether QEMU has an image open: it holds locks on the file as long as it does."""

from __future__ import annotations

import fcntl
import os
import struct
from contextlib import suppress
from typing import Final

_FLOCK: Final = struct.Struct("hhqqi4x")
"""struct flock of fcntl(2) on 64-bit Linux: type, whence, start, length, owner."""

_FIRST, _COUNT = 100, 200
"""RAW_LOCK_PERM_BASE, and the bytes to the end of what RAW_LOCK_SHARED_BASE begins (block/file-posix.c of QEMU)."""


def is_open(path: str) -> bool:
    """Return whether a QEMU on this machine has an image open, its own or one below it; False where nobody can tell."""
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, _FIRST, _COUNT, 0)
            kind: int = _FLOCK.unpack(fcntl.fcntl(handle, fcntl.F_OFD_GETLK, asked))[0]
            return kind != fcntl.F_UNLCK
        finally:
            os.close(handle)
    return False
