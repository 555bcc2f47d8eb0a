"""Shares of what all may use together, across processes: whoever wants one draws a ticket, and has it in that order.

A ticket is a file that its owner has locked (flock(2)), so it ends with him; its name is its number and its share.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vmhost.drivers.files import os_errors
from vmhost.model.errors import Cancelled
from vmhost.model.units import format_size
from vmhost.ports import Waiting

if TYPE_CHECKING:
    from filelock import FileLock

_TICKET: Final = "budget-"
_DRAWING: Final = "budget.lock"
_POLL: Final = 0.1


@contextmanager
def share(directory: Path, wanted: int, whole: int, waiting: Waiting) -> Iterator[None]:
    """Have a share while this lasts, once all that were drawn before leave enough of the whole.

    :raises Cancelled: the person does not want it any more.
    """
    with os_errors(directory, "lock"):
        path, lock = _draw(directory, wanted)
    try:
        with os_errors(directory, "lock"):
            _await_turn(path, wanted, whole, waiting)
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()


def _draw(directory: Path, wanted: int) -> tuple[Path, FileLock]:
    """Make the next ticket and lock it; nobody sees it before that."""
    from filelock import FileLock

    with FileLock(directory / _DRAWING, mode=0o600, thread_local=False):
        number = max((_number(path) for path in directory.glob(f"{_TICKET}*")), default=0) + 1
        path = directory / f"{_TICKET}{number:012d}-{wanted}"
        lock = FileLock(path, mode=0o600, thread_local=False)
        lock.acquire()
    return path, lock


def _await_turn(path: Path, wanted: int, whole: int, waiting: Waiting) -> None:
    speak, told = time.monotonic() + waiting.quiet, False
    while (before := _before(path)) and before + wanted > whole:
        if not told and time.monotonic() >= speak:
            waiting.told(f"backups that came before copy {format_size(before)} a second; waiting")
            told = True
        if waiting.cancelled():
            raise Cancelled(
                "cancelled; nothing was done: other backups were to be copied first", hint="vmhost job list"
            )
        time.sleep(_POLL)


def _before(path: Path) -> int:
    """Return what all tickets before one have together; those of the dead go."""
    total = 0
    for other in path.parent.glob(f"{_TICKET}*"):
        if _number(other) < _number(path):
            total += int(other.name.rpartition("-")[2]) if _is_held(other) else 0
    return total


def _is_held(path: Path) -> bool:
    from filelock import FileLock, Timeout

    lock = FileLock(path, mode=0o600, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    path.unlink(missing_ok=True)
    lock.release()
    return False


def _number(path: Path) -> int:
    return int(path.name.removeprefix(_TICKET).partition("-")[0])
