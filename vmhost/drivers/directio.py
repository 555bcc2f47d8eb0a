"""Whether a file system takes O_DIRECT (open(2)), so that the host need not cache what guests cache themselves."""

from __future__ import annotations

import os
from pathlib import Path


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
