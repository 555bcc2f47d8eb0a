"""``ports.Locks`` in memory: between threads, with the order that the real ones insist on."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from vmhost.model.errors import Conflict, VmhostError

_Key = tuple[int, str]


class FakeLocks:
    """Locks between the threads of one process; :meth:`break_all` is what the kernel does when a process dies.

    :param timeout: real seconds that a call waits.
    """

    def __init__(self, timeout: float = 5.0) -> None:
        self.timeout = timeout
        self._changed = threading.Condition()
        self._holders: dict[_Key, tuple[int, object]] = {}

    def host(self) -> AbstractContextManager[None]:
        return self._hold([(0, "")])

    def guests(self, uuids: Sequence[str]) -> AbstractContextManager[None]:
        return self._hold(sorted({(1, uuid) for uuid in uuids}))

    def held(self) -> tuple[str, ...]:
        """Return what is locked: ``host``, and UUIDs of guests."""
        with self._changed:
            return tuple(uuid or "host" for _, uuid in sorted(self._holders))

    def break_all(self) -> None:
        """Release everything; those who held it are gone."""
        with self._changed:
            self._holders.clear()
            self._changed.notify_all()

    @contextmanager
    def _hold(self, keys: Sequence[_Key]) -> Iterator[None]:
        token = object()
        try:
            for key in keys:
                self._take(key, token)
            yield
        finally:
            with self._changed:
                for key in keys:
                    if self._holders.get(key, (0, None))[1] is token:
                        del self._holders[key]
                self._changed.notify_all()

    def _take(self, key: _Key, token: object) -> None:
        thread = threading.get_ident()
        words = f"lock of guest {key[1]}" if key[0] else "lock of the host"
        with self._changed:
            mine = [other for other, (owner, _) in self._holders.items() if owner == thread]
            if mine and key <= max(mine):
                raise VmhostError("asked for out of order: host, then guests by UUID, each once", subject=words)
            if not self._changed.wait_for(lambda: key not in self._holders, self.timeout):
                text = f"held by another thread; gave up after {self.timeout:.0f} s"
                raise Conflict(text, subject=words, hint="vmhost job list")
            self._holders[key] = (thread, token)
