"""The TCP connection under SSH: no Nagle delay, buffered reads, a bound on every wait."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
import time
from collections.abc import Iterator
from typing import Final

_CHUNK: Final = 64 * 1024
_KEEPALIVE_IDLE: Final = 30
_KEEPALIVE_INTERVAL: Final = 10
_KEEPALIVE_COUNT: Final = 3
_UNANSWERED_MS: Final = 30_000


class Wire(socket.socket):
    """A connected socket as the SSH library sees it.

    - ``TCP_NODELAY``: a command is a handful of small packets each way; Nagle's algorithm would hold each back until
      the peer's delayed acknowledgement, 40 ms apiece (tcp(7)).
    - ``SO_KEEPALIVE`` and ``TCP_USER_TIMEOUT``: a peer that is gone or frozen ends the connection within about a
      minute.
    - Reads are buffered: the library asks for a packet in two or three pieces; they come from one system call.
    - ``limit`` bounds the sends of one thread; the library by itself retries a send for ever.
    - ``close`` from another thread shuts the connection down, which wakes the reader at once, and leaves the file
      descriptor to the reader, so that it cannot be reused under it.

    :param sock: the connected socket; it is taken over.
    :param received: bytes that were already received from it.
    """

    def __init__(self, sock: socket.socket, received: bytes = b"") -> None:
        family, kind, protocol = sock.family, sock.type, sock.proto
        super().__init__(family, kind, protocol, fileno=sock.detach())
        self._received = received
        self._limits = threading.local()
        self._reader: threading.Thread | None = None
        if self.family in {socket.AF_INET, socket.AF_INET6}:
            self._tune()

    def _tune(self) -> None:
        if self.family == socket.AF_UNIX:  # the way leads through a program, which sees to this itself
            return
        self.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE)
        self.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_INTERVAL)
        self.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _KEEPALIVE_COUNT)
        self.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNANSWERED_MS)

    def belongs_to(self, reader: threading.Thread) -> None:
        """Name the thread that receives; from then on it alone gives the file descriptor back."""
        self._reader = reader

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Return up to ``size`` bytes, from the buffer if it has any."""
        if not self._received:
            self._received = super().recv(_CHUNK, flags)
        data = self._received[:size]
        self._received = self._received[size:]
        return data

    def send(self, data: bytes, flags: int = 0) -> int:  # type: ignore[override]  # the library sends bytes
        """Send some of ``data``. :raises OSError: ``ETIMEDOUT`` when this thread's :meth:`limit` has passed."""
        try:
            return super().send(data, flags)
        except TimeoutError:
            if time.monotonic() > getattr(self._limits, "deadline", float("inf")):
                raise OSError(errno.ETIMEDOUT, "the peer takes no more data") from None
            raise

    @contextlib.contextmanager
    def limit(self, deadline: float) -> Iterator[None]:
        """Bound every send of the calling thread; a connection whose send was given up is of no further use."""
        self._limits.deadline = deadline
        try:
            yield
        finally:
            del self._limits.deadline

    def close(self) -> None:
        """End the connection; safe from any thread, at any time, any number of times."""
        with contextlib.suppress(OSError):  # not connected any more: that is what was wanted
            self.shutdown(socket.SHUT_RDWR)
        reader = self._reader
        if reader is None or reader is threading.current_thread() or not reader.is_alive():
            super().close()
