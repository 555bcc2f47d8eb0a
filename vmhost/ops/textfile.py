"""Files that people write, read with suspicion: regular, UTF-8, not too large."""

from __future__ import annotations

import stat
from pathlib import Path

from vmhost.model.units import format_size


class TextFault(Exception):
    """A file that is not what it should be; the message says why, without its name."""


def read_text(path: Path, limit: int) -> str:
    """Return the text of a file of at most ``limit`` bytes; a byte order mark at its beginning is dropped.

    :raises TextFault: it is no regular file, too large, or no UTF-8.
    :raises OSError: the system does not let us, or it is not there.
    """
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise TextFault("is a directory")
    if not stat.S_ISREG(mode):
        raise TextFault("is not a regular file")
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise TextFault(f"is larger than {format_size(limit)}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise TextFault(f"is not UTF-8 text: byte {data[error.start]:#04x} on line {line}") from None
