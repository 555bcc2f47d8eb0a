"""Learn within a blink that a guest's SSH server is up: several short attempts side by side, the first banner wins.

One long attempt would be slow to notice: a lost SYN is sent again after 1, 3, 7 s (tcp(7)), an address without an
answer to ARP costs 3 s. A refusal, on the other hand, comes at once and is cheap: then the next attempt follows after
50 ms.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from vmhost.model.shell import SshTarget

AFTER_REFUSAL: Final = 0.05
"""Seconds between attempts when the guest is up and its server is not."""

AFTER_SILENCE: Final = 0.1
"""Seconds between attempts when nobody answers."""

AFTER_ACCEPTANCE: Final = 0.5
"""Seconds between attempts when one is accepted and the banner is still to come: each costs the server a process."""

_UNANSWERED_AT_ONCE: Final = 4
_ACCEPTED_AT_ONCE: Final = 3
_ACCEPTED_FOR: Final = 10.0


@dataclass(slots=True)
class _Attempt:
    sock: socket.socket
    began: float
    accepted: bool = False


class Knocker:
    """Knocks at a guest's SSH server in a thread of its own until it opens or until it is closed.

    :param on_open: called once, from that thread, with the connected socket; its first bytes, the banner, are still
        to be read, and it belongs to whoever is called.
    """

    def __init__(self, target: SshTarget, on_open: Callable[[socket.socket], None]) -> None:
        self._target = target
        self._on_open = on_open
        self._attempts: dict[int, _Attempt] = {}
        self._poll = select.poll()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll.register(self._wake, select.POLLIN)
        self._stopped = False
        self._refused = False
        self._thread = threading.Thread(target=self._run, name=f"knock-{target.guest}", daemon=True)
        self._thread.start()

    def __enter__(self) -> Knocker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop knocking; the thread and its sockets are gone when this returns. Closing twice is fine."""
        if self._stopped:
            return
        self._stopped = True
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        os.close(self._wake)

    def _run(self) -> None:
        began = float("-inf")
        opened: socket.socket | None = None
        try:
            while not self._stopped and opened is None:
                if time.monotonic() >= began + self._pace():
                    began = time.monotonic()
                    self._begin()
                remaining = max(0.0, began + self._pace() - time.monotonic())
                for number, events in self._poll.poll(remaining * 1000):
                    opened = opened or self._look(number, gone=bool(events & select.POLLHUP))
        finally:
            for attempt in [*self._attempts.values()]:
                self._drop(attempt)
        if opened is not None:
            self._on_open(opened)

    def _pace(self) -> float:
        if any(attempt.accepted for attempt in self._attempts.values()):
            return AFTER_ACCEPTANCE
        return AFTER_REFUSAL if self._refused else AFTER_SILENCE

    def _begin(self) -> None:
        """Begin an attempt, after giving up those that have waited longest."""
        now = time.monotonic()
        accepted = [attempt for attempt in self._attempts.values() if attempt.accepted]
        waiting = [attempt for attempt in self._attempts.values() if not attempt.accepted]
        for attempt in accepted:
            if now - attempt.began > _ACCEPTED_FOR:
                self._drop(attempt)
            else:
                self._poll.modify(attempt.sock, select.POLLIN)
        if len(accepted) >= _ACCEPTED_AT_ONCE:
            return
        for attempt in waiting[: max(0, len(waiting) - _UNANSWERED_AT_ONCE + 1)]:
            self._drop(attempt)
        with contextlib.suppress(OSError):  # no route, no address: the next attempt may find one
            self._add(self._connect())

    def _connect(self) -> _Attempt:
        if self._target.socket_factory:
            sock = self._target.socket_factory(AFTER_SILENCE)
            sock.setblocking(False)
            return _Attempt(sock, time.monotonic(), accepted=True)
        family, kind, protocol, _, address = socket.getaddrinfo(
            self._target.host, self._target.port, type=socket.SOCK_STREAM
        )[0]
        sock = socket.socket(family, kind, protocol)
        sock.setblocking(False)
        try:
            with contextlib.suppress(BlockingIOError):
                sock.connect(address)
        except ConnectionRefusedError:
            self._refused = True
            sock.close()
            raise
        except OSError:
            self._refused = False
            sock.close()
            raise
        return _Attempt(sock, time.monotonic())

    def _add(self, attempt: _Attempt) -> None:
        self._attempts[attempt.sock.fileno()] = attempt
        self._poll.register(attempt.sock, select.POLLIN if attempt.accepted else select.POLLOUT)

    def _look(self, number: int, *, gone: bool) -> socket.socket | None:
        """See what became of an attempt; return its socket if the server has shown its banner.

        :param gone: nothing more will come.
        """
        attempt = self._attempts.get(number)
        if attempt is None:
            return None
        try:
            if not attempt.accepted:
                self._accept(attempt)
                return None
            seen = attempt.sock.recv(4096, socket.MSG_PEEK)
        except OSError as error:
            self._refused = isinstance(error, ConnectionError)
            self._drop(attempt)
            return None
        if b"SSH-" in seen and b"\n" in seen[seen.index(b"SSH-") :]:
            return self._take(attempt)
        if not seen or gone:
            # Accepted and closed: a port forward whose guest refuses.
            self._refused = True
            self._drop(attempt)
        else:
            # What has come stays unread, so poll would tell it for ever; the next attempt looks at this one again.
            self._poll.modify(attempt.sock, 0)
        return None

    def _accept(self, attempt: _Attempt) -> None:
        error = attempt.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))
        attempt.accepted = True
        self._poll.modify(attempt.sock, select.POLLIN)

    def _take(self, attempt: _Attempt) -> socket.socket:
        self._poll.unregister(attempt.sock)
        del self._attempts[attempt.sock.fileno()]
        attempt.sock.setblocking(True)
        return attempt.sock

    def _drop(self, attempt: _Attempt) -> None:
        self._poll.unregister(attempt.sock)
        del self._attempts[attempt.sock.fileno()]
        attempt.sock.close()
