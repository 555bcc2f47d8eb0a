"""A command on a terminal of its own, typed at by a test that waits for what it sees."""

from __future__ import annotations

import os
import pty
import select
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager


class Typist:
    """One end of a terminal; the command has the other."""

    def __init__(self, pid: int, terminal: int) -> None:
        self.seen = ""
        self._past = 0
        self._pid = pid
        self._terminal = terminal

    def type(self, text: str) -> None:
        """Press keys; a control character acts as on a keyboard."""
        os.write(self._terminal, text.encode())

    def until(self, text: str, *, seconds: float = 30.0, nudge: str = "") -> None:
        """Return when the text has been shown behind what the last call waited for.

        :param nudge: is typed after each second of silence.

        :raises AssertionError: it was not shown in time.
        """
        deadline = time.monotonic() + seconds
        while (found := self.seen.find(text, self._past)) < 0:
            assert time.monotonic() < deadline, f"{text!r} was not shown: {self.seen[self._past :]!r}"
            if select.select([self._terminal], [], [], 1.0)[0]:
                self._read()
            elif nudge:
                self.type(nudge)
        self._past = found + len(text)

    def end(self, *, seconds: float = 30.0) -> int:
        """Read to the end and return the command's exit code."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and select.select([self._terminal], [], [], seconds)[0] and self._read():
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])

    def _read(self) -> str:
        try:
            data = os.read(self._terminal, 4096).decode("utf-8", "replace")
        except OSError:  # how Linux says that the other end is closed
            return ""
        self.seen += data
        return data


@contextmanager
def on_a_terminal(argv: Sequence[str], env: Mapping[str, str] | None = None) -> Iterator[Typist]:
    """Run a command on a terminal of its own."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe(argv[0], list(argv), {**os.environ, **(env or {})})
    try:
        yield Typist(pid, terminal)
    finally:
        os.close(terminal)
