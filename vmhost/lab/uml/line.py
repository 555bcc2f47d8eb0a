"""What goes over a line into a lab: frames, small enough that a pipe takes each of them whole or not at all (pipe(7)).

A line is a serial line of the lab's kernel; its two directions are FIFOs in the lab's directory. Whoever holds the lock
(flock(2)) of the first one has the line, until it dies. The next one cannot know what was left in the FIFOs, so it
begins with RESET and a number drawn for this call, and passes over everything until that very number comes back.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from pathlib import Path
from typing import Final

LINES: Final = 8
"""Commands that may run in a lab at once."""

LARGEST: Final = 1021
"""Bytes of a frame's content; with its head it is less than PIPE_BUF."""

WINDOW: Final = 3072
"""Bytes that may be under way into a lab.

A terminal's buffer holds 4095, and a serial line of User-Mode Linux that was once told to wait may never be told to go
on (seen with 6.1): so it is never filled. Signals come on top, a few bytes each.
"""

SYNC: Final = b"\x00vmhost-line\x00"
_HEAD: Final = struct.Struct(">BH")


class Kind(IntEnum):
    """What a frame says. RESET to STOP go in, the others come out."""

    RESET = 1
    PART = 2
    START = 3
    INPUT = 4
    INPUT_END = 5
    SIGNAL = 6
    SIZE = 7
    OUT = 20
    ERR = 21
    TAKEN = 22
    EXIT = 23


HEAD: Final = _HEAD.size
"""Bytes of a frame before its content."""


def frame(kind: Kind, content: bytes = b"") -> bytes:
    """Return a frame.

    :raises ValueError: the content is too long for one.
    """
    if len(content) > LARGEST:
        raise ValueError(f"{len(content)} bytes are more than the {LARGEST} of a frame")
    return _HEAD.pack(kind, len(content)) + content


class Frames:
    """Bytes as they come in, frames as they go out."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[tuple[Kind, bytes]]:
        """Take in more bytes and return the frames that are complete now."""
        self._rest += data
        found = []
        while len(self._rest) >= _HEAD.size:
            kind, length = _HEAD.unpack_from(self._rest)
            end = _HEAD.size + length
            if len(self._rest) < end:
                break
            found.append((Kind(kind), bytes(self._rest[_HEAD.size : end])))
            del self._rest[:end]
        return found


def answer_to(number: bytes) -> bytes:
    """Return what comes back for a RESET with that number, and never else."""
    return SYNC + number


def into(directory: Path, number: int) -> Path:
    """The FIFO into a lab."""
    return directory / f"line{number}.in"


def out_of(directory: Path, number: int) -> Path:
    """The FIFO out of a lab."""
    return directory / f"line{number}.out"
