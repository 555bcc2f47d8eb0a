"""The outer end of a line: runs a command in a lab, on our stdin, stdout, stderr or terminal."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import select
import signal
import struct
import sys
import termios
import time
import tty
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, Final

from vmhost.lab.uml.line import HEAD, LARGEST, LINES, WINDOW, Frames, Kind, answer_to, frame, into, out_of
from vmhost.model.errors import Conflict, Unreachable

_ANSWER: Final = 60.0
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def call(directory: Path, name: str, argv: Sequence[str], env: Mapping[str, str], cwd: str) -> int:
    """Run a command in the lab of that directory and return its exit code.

    :param env: its whole environment.
    :param cwd: its directory, if the lab has it.
    :raises Conflict: every line is in use.
    :raises Unreachable: the lab does not answer, or ended meanwhile.
    """
    with _line(directory, name) as (inward, outward):
        on_terminal = os.isatty(0) and os.isatty(1)
        request = {"argv": list(argv), "env": dict(env), "cwd": cwd, "tty": on_terminal, "size": _size()}
        text = json.dumps(request).encode()
        parts = [frame(Kind.PART, text[start : start + LARGEST]) for start in range(0, len(text), LARGEST)]
        with _signals(inward), _raw(on_terminal):
            return Call(name, inward, outward, [*parts, frame(Kind.START)]).run()


@contextmanager
def _line(directory: Path, name: str) -> Iterator[tuple[int, int]]:
    """A line of our own, with nothing of earlier commands on it."""
    inward, number = _free(directory, name)
    try:
        outward = os.open(out_of(directory, number), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.set_blocking(inward, True)
            _synchronise(name, inward, outward)
            yield inward, outward
        finally:
            os.close(outward)
    finally:
        os.close(inward)


def _free(directory: Path, name: str) -> tuple[int, int]:
    deadline = time.monotonic() + _ANSWER
    while time.monotonic() < deadline:
        for number in range(LINES):
            try:
                inward = os.open(into(directory, number), os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError as error:
                if error.errno not in (errno.ENXIO, errno.ENOENT):
                    raise
                raise _gone(name) from error
            try:
                fcntl.flock(inward, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(inward)
                continue
            return inward, number
        time.sleep(0.05)
    raise Conflict(f"{LINES} commands run in it already", subject=name, hint=f"vmhost lab exec {name} -- ps ax")


def _synchronise(name: str, inward: int, outward: int) -> None:
    number = secrets.token_bytes(16)
    os.write(inward, frame(Kind.RESET, number))
    wanted, seen = answer_to(number), b""
    deadline = time.monotonic() + _ANSWER
    # The answer is the last thing on the line: nothing else is said before the next request.
    while not seen.endswith(wanted):
        if not select.select([outward], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise Unreachable(f"no answer for {_ANSWER:g} s", subject=name, hint=f"vmhost lab down {name}")
        data = os.read(outward, 65536)
        if not data:
            raise _gone(name)
        seen = (seen + data)[-len(wanted) :]


def _gone(name: str) -> Unreachable:
    return Unreachable("the lab has ended", subject=name, hint=f"vmhost lab down {name}")


class Call:
    """A command that runs; ``request`` are the frames that start it."""

    def __init__(self, name: str, inward: int, outward: int, request: list[bytes]) -> None:
        self._name = name
        self._inward = inward
        self._outward = outward
        self._frames = Frames()
        self._request = deque(request)
        self._credit = WINDOW
        self._input = True

    def run(self) -> int:
        """Carry input in and output out until the command ends."""
        while True:
            while self._request and self._credit >= len(self._request[0]):
                self._write(self._request.popleft())
            hears = self._input and not self._request and self._credit > HEAD
            wanted = [self._outward, *([0] if hears else [])]
            ready, _, _ = select.select(wanted, [], [])
            if 0 in ready:
                self._send_input()
            if self._outward in ready:
                data = os.read(self._outward, 65536)
                if not data:
                    raise _gone(self._name)
                for kind, content in self._frames.feed(data):
                    if kind is Kind.EXIT:
                        return content[0]
                    self._hear(kind, content)

    def _send_input(self) -> None:
        try:
            data = os.read(0, min(LARGEST, self._credit - HEAD))
        except OSError:  # a terminal that hung up, or no input at all
            data = b""
        self._input = bool(data)
        self._write(frame(Kind.INPUT if data else Kind.INPUT_END, data))

    def _write(self, data: bytes) -> None:
        self._credit -= len(data)
        os.write(self._inward, data)

    def _hear(self, kind: Kind, content: bytes) -> None:
        if kind is Kind.TAKEN:
            self._credit += struct.unpack(">H", content)[0]
            return
        view = memoryview(content)
        # Who closed our output wants no more of it; the command goes on, as it would without us in between.
        with suppress(BrokenPipeError):
            while view:
                view = view[os.write(2 if kind is Kind.ERR else 1, view) :]


def _size() -> list[int]:
    with suppress(OSError):
        size = os.get_terminal_size(1)
        return [size.lines, size.columns]
    return [24, 80]


@contextmanager
def _signals(inward: int) -> Iterator[None]:
    """Hand on the signals that end programs, and changes of the terminal's size."""

    def pass_on(number: int, where: FrameType | None) -> None:
        os.write(inward, frame(Kind.SIGNAL, bytes([number])))

    def resize(number: int, where: FrameType | None) -> None:
        os.write(inward, frame(Kind.SIZE, struct.pack("4H", *_size(), 0, 0)))

    before: dict[int, Any] = {number: signal.signal(number, pass_on) for number in _SIGNALS}
    before[signal.SIGWINCH] = signal.signal(signal.SIGWINCH, resize)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _raw(on_terminal: bool) -> Iterator[None]:
    """Leave what keys mean to the terminal inside."""
    if not on_terminal:
        yield
        return
    before = termios.tcgetattr(0)
    tty.setraw(0)
    try:
        yield
    finally:
        sys.stdout.flush()
        termios.tcsetattr(0, termios.TCSADRAIN, before)
