"""A file that is here already, copied into the store."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from vmhost.drivers.files import os_errors
from vmhost.drivers.images.publish import Progress, check_space

_CHUNK = 1 << 20


def copy_in(file: Path, work: Path, on_progress: Progress) -> tuple[Path, str]:
    """Copy a file into ``work`` while hashing it, and return the copy and its SHA-256.

    Holes stay holes.
    """
    copy, digest = work / "image", hashlib.sha256()
    with os_errors(file, "read"):
        size = file.stat().st_size
    check_space(work, size)
    zeros = bytes(_CHUNK)
    with os_errors(file, "copy"), file.open("rb") as source, copy.open("wb") as target:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
            if chunk == zeros[: len(chunk)]:
                target.seek(len(chunk), os.SEEK_CUR)
            else:
                target.write(chunk)
            on_progress("copying", source.tell() / size)
        target.truncate(source.tell())
    return copy, digest.hexdigest()
