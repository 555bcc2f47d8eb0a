"""Locks across processes: flock(2), which the kernel releases when its owner dies, in one fixed order."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vmhost.drivers import shares
from vmhost.drivers.files import os_errors
from vmhost.drivers.holders import Holder, holder_words, look_at, write_holder
from vmhost.drivers.layout import lock_directory
from vmhost.model.errors import Cancelled, Conflict, VmhostError
from vmhost.ports import PATIENT, Layout, Waiting

if TYPE_CHECKING:
    from filelock import FileLock

PATIENCE: Final = 30.0
_POLL: Final = 0.05
_STARTING: Final = "starting-"

_Key = tuple[int, str]
"""Rank (0: the host, 1: a guest) and UUID: locks are only ever taken in ascending order."""

# What each thread of this process holds, by directory: to take it again would wait for oneself.
_held: dict[tuple[Path, int], list[_Key]] = {}
_held_guard = threading.Lock()


class FileLocks:
    """The locks of one hypervisor, as files in its runtime directory.

    Threads of one process exclude each other as processes do. Lock files stay: removing one while another process waits
    for it would let two processes hold the same lock.

    :param timeout: seconds that one call waits for all the locks that it asks for, unless it says otherwise.
    :param command: what others are told about us; the words of the command line when it is empty.
    """

    def __init__(
        self,
        layout: Layout,
        *,
        timeout: float = PATIENCE,
        command: str = "",
    ) -> None:
        self._layout = layout
        self._timeout = timeout
        self._command = command or _command_line()

    def host(self, waiting: Waiting = PATIENT) -> AbstractContextManager[None]:
        return self._hold([(0, "")], waiting)

    @contextmanager
    def guests(self, uuids: Sequence[str], waiting: Waiting = PATIENT, *, starts: bool = False) -> Iterator[None]:
        with self._hold(sorted({(1, uuid) for uuid in uuids}), waiting), ExitStack() as notes:
            for uuid in uuids if starts else ():
                notes.enter_context(_note(lock_directory(self._layout) / f"{_STARTING}{uuid}"))
            yield

    def budget(self, share: int, whole: int, waiting: Waiting = PATIENT) -> AbstractContextManager[None]:
        return shares.share(lock_directory(self._layout), self._us(), share, whole, waiting)

    def starting(self) -> frozenset[str]:
        directory = self._layout.runtime / "locks"
        try:
            noted = [path.name.removeprefix(_STARTING) for path in directory.glob(f"{_STARTING}*")]
        except OSError:
            return frozenset()  # nobody took a lock yet, or we may not look there, and then may start nothing either
        with _held_guard:
            mine = {uuid for rank, uuid in _held.get((directory, threading.get_ident()), ()) if rank}
        return frozenset(uuid for uuid in noted if uuid not in mine and _is_held(directory / _file_name((1, uuid))))

    def _us(self) -> Holder:
        return Holder(os.getpid(), self._command, time.time())

    @contextmanager
    def _hold(self, keys: Sequence[_Key], waiting: Waiting) -> Iterator[None]:
        directory = lock_directory(self._layout)
        owner = (directory, threading.get_ident())
        seconds = self._timeout if waiting.seconds is None else waiting.seconds
        deadline = time.monotonic() + seconds
        with ExitStack() as stack:
            for key in keys:
                _check_order(owner, key)
                stack.enter_context(self._one(directory, key, replace(waiting, seconds=seconds), deadline))
                stack.enter_context(_noted(owner, key))
            yield

    @contextmanager
    def _one(self, directory: Path, key: _Key, waiting: Waiting, deadline: float) -> Iterator[None]:
        # Imported here: only commands that change something take locks, and it costs more than a listing may.
        from filelock import FileLock

        path = directory / _file_name(key)
        lock = FileLock(path, mode=0o600, thread_local=False)
        with os_errors(path, "lock"):
            if not _taken(lock):
                _wait(lock, path, key, waiting, deadline)
        try:
            write_holder(path, self._us())
            yield
        finally:
            write_holder(path, None)
            lock.release()


@contextmanager
def _note(path: Path) -> Iterator[None]:
    """Say while this lasts what a lock is held for. What a dead process left counts no more than its lock."""
    with os_errors(path, "write"):
        path.touch(mode=0o600)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _is_held(path: Path) -> bool:
    from filelock import FileLock

    lock = FileLock(path, mode=0o600, thread_local=False)
    try:
        free = _taken(lock)
    except OSError:
        return False
    if free:
        lock.release()
    return not free


def _taken(lock: FileLock) -> bool:
    from filelock import Timeout

    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    return True


def _wait(lock: FileLock, path: Path, key: _Key, waiting: Waiting, deadline: float) -> None:
    """Wait for a lock. :raises Conflict: the time is up; :raises Cancelled: the person does not want it any more."""
    speak = time.monotonic() + waiting.quiet
    told = not waiting.seconds
    while not _taken(lock):
        if not told and time.monotonic() >= speak:
            waiting.told(f"{_words(key)} is held by {holder_words(path)}; waiting")
            told = True
        if waiting.cancelled():
            text = f"cancelled; nothing was done: it was held by {holder_words(path)}"
            raise Cancelled(text, subject=_words(key), hint="vmhost job list")
        if time.monotonic() >= deadline:
            raise _conflict(path, key, waiting)
        time.sleep(_POLL)


def _conflict(path: Path, key: _Key, waiting: Waiting) -> Conflict:
    patience = f"; gave up after {waiting.seconds:.0f} s" if waiting.seconds else ""
    return Conflict(
        f"held by {holder_words(path)}{patience}",
        subject=_words(key),
        hint=look_at(path),
    )


def _command_line() -> str:
    program = Path(sys.argv[0]).name if sys.argv and sys.argv[0] else "python"
    return " ".join((program, *sys.argv[1:3]))[:80]


def _file_name(key: _Key) -> str:
    rank, uuid = key
    if rank and not all(char.isalnum() or char == "-" for char in uuid):
        raise VmhostError(f"{uuid[:80]!r} is not the UUID of a guest", subject="lock")
    return f"guest-{uuid}.lock" if rank else "host.lock"


def _words(key: _Key) -> str:
    return f"lock of guest {key[1]}" if key[0] else "lock of the host"


def _check_order(owner: tuple[Path, int], key: _Key) -> None:
    with _held_guard:
        latest = max(_held.get(owner, ()), default=None)
    if latest is None or key > latest:
        return
    if key == latest:
        raise VmhostError("this thread holds it already and would wait for itself", subject=_words(key))
    raise VmhostError(
        f"asked for after the {_words(latest)}: the order is host, then guests by UUID", subject=_words(key)
    )


@contextmanager
def _noted(owner: tuple[Path, int], key: _Key) -> Iterator[None]:
    with _held_guard:
        _held.setdefault(owner, []).append(key)
    try:
        yield
    finally:
        with _held_guard:
            _held[owner].remove(key)
            if not _held[owner]:
                del _held[owner]
