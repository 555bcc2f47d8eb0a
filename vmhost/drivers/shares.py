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
from vmhost.drivers.holders import Holder, holder_words, look_at, write_holder
from vmhost.model.errors import Cancelled, Refused
from vmhost.model.units import format_size
from vmhost.ports import Waiting

if TYPE_CHECKING:
    from filelock import FileLock

_TICKET: Final = "budget-"
_DRAWING: Final = "budget.lock"
_POLL: Final = 0.1

PATIENCE: Final = 12 * 3600.0
"""Seconds that a share is waited for: longer than a night's copies take; what hangs must not keep others for ever."""


@contextmanager
def share(directory: Path, us: Holder, wanted: int, whole: int, waiting: Waiting) -> Iterator[None]:
    """Have a share while this lasts, once all that were drawn before leave enough of the whole.

    :param us: what others are told who wait for it.
    :raises Cancelled: the person does not want it any more. :raises Refused: the time is up.
    """
    with os_errors(directory, "lock"):
        path, lock = _draw(directory, wanted)
    try:
        write_holder(path, us)
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
    began, told = time.monotonic(), False
    seconds = PATIENCE if waiting.seconds is None else waiting.seconds
    while (before := _before(path)) and (copied := sum(map(_wanted, before))) + wanted > whole:
        if not told and time.monotonic() >= began + waiting.quiet:
            they = " and ".join(map(holder_words, before))
            text = f"backups that came before copy {format_size(copied)} a second; waiting for {they}"
            waiting.told(f"{text} ({look_at(before[0])})")
            told = True
        if waiting.cancelled():
            raise Cancelled(
                "cancelled; nothing was done: other backups were to be copied first", hint="vmhost job list"
            )
        if time.monotonic() >= began + seconds:
            text = f"backups that came before did not end in {seconds:.0f} s: {holder_words(before[0])}"
            raise Refused(text, subject="backup rate", hint=look_at(before[0]))
        time.sleep(_POLL)


def _before(path: Path) -> list[Path]:
    """Return all tickets before one, the first one first; those of the dead go."""
    others = sorted(path.parent.glob(f"{_TICKET}*"), key=_number)
    return [other for other in others if _number(other) < _number(path) and _is_held(other)]


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


def _wanted(path: Path) -> int:
    return int(path.name.rpartition("-")[2])


def _number(path: Path) -> int:
    return int(path.name.removeprefix(_TICKET).partition("-")[0])
