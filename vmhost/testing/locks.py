"""``ports.Locks`` in memory: between threads, with the order that the real ones insist on."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from vmhost.model.errors import Cancelled, Conflict, Refused, VmhostError
from vmhost.ports import PATIENT, Waiting

_Key = tuple[int, str]
_POLL = 0.02


class FakeLocks:
    """Locks between the threads of one process; :meth:`break_all` is what the kernel does when a process dies.

    :param timeout: real seconds that a call waits.
    """

    def __init__(self, timeout: float = 5.0) -> None:
        self.timeout = timeout
        self._changed = threading.Condition()
        self._holders: dict[_Key, tuple[int, object]] = {}
        self._starts: set[str] = set()
        self._tickets: list[tuple[object, int]] = []

    def host(self, waiting: Waiting = PATIENT) -> AbstractContextManager[None]:
        return self._hold([(0, "")], waiting)

    @contextmanager
    def guests(self, uuids: Sequence[str], waiting: Waiting = PATIENT, *, starts: bool = False) -> Iterator[None]:
        with self._hold(sorted({(1, uuid) for uuid in uuids}), waiting):
            self._starts |= set(uuids if starts else ())
            try:
                yield
            finally:
                self._starts -= set(uuids if starts else ())

    @contextmanager
    def budget(self, share: int, whole: int, waiting: Waiting = PATIENT) -> Iterator[None]:
        ticket = (object(), share)
        with self._changed:
            self._tickets.append(ticket)
        try:
            with self._changed:
                self._await_turn(ticket, whole, waiting)
            yield
        finally:
            with self._changed:
                if ticket in self._tickets:
                    self._tickets.remove(ticket)
                self._changed.notify_all()

    def _await_turn(self, ticket: tuple[object, int], whole: int, waiting: Waiting) -> None:
        told, began = False, time.monotonic()
        while ticket in self._tickets:
            before = sum(share for _, share in self._tickets[: self._tickets.index(ticket)])
            if not before or before + ticket[1] <= whole:
                return
            if not told:
                waiting.told(f"backups that came before copy {before} a second; waiting")
                told = True
            if waiting.cancelled():
                raise Cancelled("cancelled; nothing was done", hint="vmhost job list")
            if waiting.seconds is not None and time.monotonic() >= began + waiting.seconds:
                text = f"backups that came before did not end in {waiting.seconds:.0f} s"
                raise Refused(text, subject="backup rate", hint="vmhost job list")
            self._changed.wait(_POLL)

    def starting(self) -> frozenset[str]:
        with self._changed:
            others = {uuid for (_, uuid), (owner, _) in self._holders.items() if owner != threading.get_ident()}
        return frozenset(others & self._starts)

    def held(self) -> tuple[str, ...]:
        """Return what is locked: ``host``, and UUIDs of guests."""
        with self._changed:
            return tuple(uuid or "host" for _, uuid in sorted(self._holders))

    def break_all(self) -> None:
        """Release everything; those who held it are gone."""
        with self._changed:
            self._holders.clear()
            self._tickets.clear()
            self._changed.notify_all()

    @contextmanager
    def _hold(self, keys: Sequence[_Key], waiting: Waiting) -> Iterator[None]:
        token = object()
        try:
            for key in keys:
                self._take(key, token, waiting)
            yield
        finally:
            with self._changed:
                for key in keys:
                    if self._holders.get(key, (0, None))[1] is token:
                        del self._holders[key]
                self._changed.notify_all()

    def _take(self, key: _Key, token: object, waiting: Waiting) -> None:
        thread = threading.get_ident()
        words = f"lock of guest {key[1]}" if key[0] else "lock of the host"
        with self._changed:
            mine = [other for other, (owner, _) in self._holders.items() if owner == thread]
            if mine and key <= max(mine):
                raise VmhostError("asked for out of order: host, then guests by UUID, each once", subject=words)
            if key in self._holders:
                self._wait(key, words, waiting)
            self._holders[key] = (thread, token)

    def _wait(self, key: _Key, words: str, waiting: Waiting) -> None:
        seconds = self.timeout if waiting.seconds is None else waiting.seconds
        told, speak = not seconds, time.monotonic() + waiting.quiet
        deadline = time.monotonic() + seconds
        while True:
            if not told and time.monotonic() >= speak:
                waiting.told(f"{words} is held by another thread; waiting")
                told = True
            if self._changed.wait_for(lambda: key not in self._holders, min(_POLL, seconds)):
                return
            if waiting.cancelled():
                raise Cancelled("cancelled; nothing was done", subject=words, hint="vmhost job list")
            if time.monotonic() >= deadline:
                patience = f"; gave up after {seconds:.0f} s" if seconds else ""
                raise Conflict(f"held by another thread{patience}", subject=words, hint="vmhost job list")
