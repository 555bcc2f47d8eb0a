"""The pipes and the end of a running program, watched at once."""

from __future__ import annotations

import os
import select
import selectors
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import IO

_CHUNK = 1 << 16
_TOLD_LINES = 5
_IDLE = 1.0
"""Seconds after which somebody who waits for a silent program is asked whether he still wants to."""


class ProcessWatch:
    """A process, held by a file descriptor, so that its number cannot come to mean another one.

    :raises ProcessLookupError: there is no such process.
    """

    def __init__(self, pid: int) -> None:
        self._fd = os.pidfd_open(pid)

    def fileno(self) -> int:
        """A descriptor that becomes readable when the process ends (pidfd_open(2))."""
        return self._fd

    def ended(self, timeout: float) -> bool:
        """Wait at most ``timeout`` seconds for its end; True when it has ended (it may still be a zombie)."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return bool(poll.poll(max(0.0, timeout) * 1000))

    def send(self, number: signal.Signals) -> None:
        """Send a signal; a process that has ended is no reason to complain."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._fd, number)

    def __enter__(self) -> ProcessWatch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        os.close(self._fd)


class Streams:
    """Feeds a program's stdin and drains its stdout and stderr at once, until the program itself has ended.

    ``stdout`` and ``stderr`` hold what was read; of stderr the last ``cap`` bytes.

    :param cap: bytes of stdout after which :meth:`pump` gives up.
    :param on_line: called with each line of both streams as it comes; a carriage return ends a line, too.
    :param on_idle: called whenever the program has said nothing for a second.
    """

    def __init__(
        self,
        stdin: IO[bytes] | None,
        stdout: IO[bytes],
        stderr: IO[bytes],
        *,
        feed: bytes,
        cap: int,
        on_line: Callable[[str], None] | None,
        on_idle: Callable[[], None] | None = None,
    ) -> None:
        self._stdin = stdin
        self._feed = memoryview(feed)
        self._pipes = {"stdout": stdout, "stderr": stderr}
        self._partial = {"stdout": b"", "stderr": b""}
        self._cap = cap
        self._on_line = on_line
        self._on_idle = on_idle
        self.stdout = bytearray()
        self.stderr = bytearray()

    def pump(self, pid: int, timeout: float) -> str:
        """Move bytes until the program ends, at most ``timeout`` seconds; returns "" or the reason to give up."""
        with ProcessWatch(pid) as watch, selectors.DefaultSelector() as waiting:
            waiting.register(watch, selectors.EVENT_READ, "end")
            for name, pipe in self._pipes.items():
                os.set_blocking(pipe.fileno(), False)
                waiting.register(pipe, selectors.EVENT_READ, name)
            if self._stdin is not None:
                os.set_blocking(self._stdin.fileno(), False)
                waiting.register(self._stdin, selectors.EVENT_WRITE, "stdin")
            return self._until_end(waiting, timeout)

    def told(self) -> tuple[str, ...]:
        """The last lines of stderr, without empty ones."""
        lines = (line.strip() for line in self.stderr.decode(errors="replace").splitlines())
        return tuple([line for line in lines if line][-_TOLD_LINES:])

    def _until_end(self, waiting: selectors.BaseSelector, timeout: float) -> str:
        deadline = time.monotonic() + timeout
        over = False
        while not over:
            left = max(0.0, deadline - time.monotonic())
            events = waiting.select(min(left, _IDLE) if self._on_idle else left)
            if not events:
                if time.monotonic() >= deadline:
                    return f"not done after {timeout:g} s"
                if self._on_idle is not None:
                    self._on_idle()
            for key, _ in events:
                if key.data == "end":
                    over = True
                elif key.data == "stdin":
                    self._write(waiting)
                elif not self._read(key.data):
                    waiting.unregister(key.fileobj)
            if len(self.stdout) > self._cap:
                return f"wrote more than {self._cap} bytes"
        return self._last_words()

    def _last_words(self) -> str:
        """Read what still lies in the pipes. A daemon may hold them open, so there need not be an end of file."""
        for name in self._pipes:
            rounds = self._cap // _CHUNK + 2
            while rounds and self._read(name):
                rounds -= 1
            if self._on_line is not None and self._partial[name]:
                self._on_line(self._partial[name].decode(errors="replace"))
        return f"wrote more than {self._cap} bytes" if len(self.stdout) > self._cap else ""

    def _read(self, name: str) -> bool:
        """Take one chunk; False when there is nothing (more)."""
        try:
            chunk = os.read(self._pipes[name].fileno(), _CHUNK)
        except BlockingIOError:
            return False
        kept = self.stdout if name == "stdout" else self.stderr
        kept += chunk
        if name == "stderr":
            del kept[: max(0, len(kept) - self._cap)]
        if self._on_line is not None:
            *lines, self._partial[name] = (self._partial[name] + chunk).replace(b"\r", b"\n").split(b"\n")
            for line in filter(None, lines):
                self._on_line(line.decode(errors="replace"))
        return bool(chunk)

    def _write(self, waiting: selectors.BaseSelector) -> None:
        assert self._stdin is not None
        try:
            while self._feed:
                self._feed = self._feed[os.write(self._stdin.fileno(), self._feed[:_CHUNK]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            # It does not want to read all of it; its exit code says whether that is an error.
            self._feed = memoryview(b"")
        waiting.unregister(self._stdin)
        self._stdin.close()
