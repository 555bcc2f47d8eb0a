"""The inner end of a line: starts one command after another and speaks for it."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pty
import select
import signal
import struct
import termios
from collections import deque
from contextlib import suppress
from typing import Any, NoReturn

from vmhost.lab.uml.line import HEAD, LARGEST, Frames, Kind, answer_to, frame

_ABSENT = 127
_REFUSED = 126


class Agent:
    """One line, open and raw, and at most one command."""

    def __init__(self, line: int) -> None:
        self._line = line
        self._frames = Frames()
        self._request = bytearray()
        self._command: Command | None = None

    def run(self) -> NoReturn:
        """Serve the line for ever: wait for whatever comes first: from the line, from the command, or its end."""
        while True:
            command = self._command
            readable, writable = [self._line], []
            if command:
                readable += [command.end, *command.outputs]
                writable = [command.input] if command.waiting and command.input >= 0 else []
            ready, free, _ = select.select(readable, writable, [])
            if command and free:
                self._taken(command.feed())
            for output in [fd for fd in ready if command and fd in command.outputs]:
                self._pass_on(output)
            if self._line in ready:
                for kind, content in self._frames.feed(os.read(self._line, 65536)):
                    self._hear(kind, content)
            if command and command is self._command and command.end in ready:
                self._finish(command)

    def _hear(self, kind: Kind, content: bytes) -> None:
        command = self._command
        match kind:
            case Kind.RESET:
                self._drop()
                self._write(answer_to(content))
            case Kind.PART:
                self._request += content
                self._taken(HEAD + len(content))
            case Kind.START:
                self._taken(HEAD)
                self._start(json.loads(self._request))
                self._request.clear()
            case Kind.INPUT if command:
                command.waiting.append(content)
            case Kind.INPUT_END if command:
                command.waiting.append(b"")
            case Kind.SIGNAL if command:
                command.send(content[0])
            case Kind.SIZE if command and command.terminal >= 0:
                fcntl.ioctl(command.terminal, termios.TIOCSWINSZ, content)
            case _:
                # What was meant for a command that has ended meanwhile.
                pass

    def _taken(self, size: int) -> None:
        """Tell that so many bytes are off the line, and off our hands."""
        if size:
            self._say(Kind.TAKEN, struct.pack(">H", size))

    def _start(self, request: dict[str, Any]) -> None:
        try:
            self._command = Command(request)
        except OSError as error:
            self._say(Kind.ERR, f"vmhost: {request['argv'][0]}: {error.strerror}\n".encode())
            self._say(Kind.EXIT, bytes([_ABSENT if error.errno == errno.ENOENT else _REFUSED]))

    def _pass_on(self, output: int) -> bool:
        """Hand on what an output of the command has; False when it has nothing more to say."""
        assert self._command is not None
        try:
            data = os.read(output, LARGEST)
        except BlockingIOError:
            return False
        except OSError:  # a terminal that nobody holds any more
            data = b""
        if not data:
            self._command.close_output(output)
            return False
        self._say(Kind.ERR if output == self._command.error else Kind.OUT, data)
        return True

    def _finish(self, command: Command) -> None:
        """The command has ended; what it has said comes first. Programs that it left behind are not waited for."""
        for output in tuple(command.outputs):
            while self._pass_on(output):
                pass
        code = command.collect()
        self._command = None
        self._say(Kind.EXIT, bytes([code]))

    def _drop(self) -> None:
        self._request.clear()
        if self._command:
            self._command.send(signal.SIGKILL)
            self._command.collect()
            self._command = None

    def _say(self, kind: Kind, content: bytes) -> None:
        self._write(frame(kind, content))

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._line, view) :]


class Command:
    """A command in a session of its own, on a terminal or on pipes; ``waiting`` is its input, an empty piece the end.

    :raises OSError: it cannot be started.
    """

    def __init__(self, request: dict[str, Any]) -> None:
        self.waiting: deque[bytes] = deque()
        self.terminal = self.error = -1
        failed, fails = os.pipe2(os.O_CLOEXEC)
        theirs = self._terminal(request["size"]) if request["tty"] else self._pipes()
        self.pid = os.fork()
        if self.pid == 0:
            _become(request, theirs, fails, on_terminal=self.terminal >= 0)
        for descriptor in {*theirs, fails}:
            os.close(descriptor)
        with os.fdopen(failed, "rb") as report:
            number = report.read()
        self.end = os.pidfd_open(self.pid)
        if number:
            self.collect()
            raise OSError(int(number), os.strerror(int(number)))

    def _terminal(self, size: list[int]) -> tuple[int, int, int]:
        self.terminal, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("4H", *size, 0, 0))
        os.set_blocking(self.terminal, False)
        self.input, self.outputs = self.terminal, [self.terminal]
        return inner, inner, inner

    def _pipes(self) -> tuple[int, int, int]:
        inner_in, self.input = os.pipe()
        out, inner_out = os.pipe()
        self.error, inner_err = os.pipe()
        self.outputs = [out, self.error]
        for descriptor in (self.input, *self.outputs):
            os.set_blocking(descriptor, False)
        return inner_in, inner_out, inner_err

    def feed(self) -> int:
        """Give the command some of its input and return how many bytes are off our hands."""
        piece = self.waiting.popleft()
        if not piece and self.terminal < 0:
            self._close_input()
            return HEAD
        try:
            # An end of input on a terminal is a character that its user types.
            taken = os.write(self.input, piece or b"\x04")
        except BlockingIOError:
            taken = 0
        except OSError:
            # It reads no more: what else comes is passed over.
            self._close_input()
            return 0
        if taken < len(piece):
            self.waiting.appendleft(piece[taken:])
            return taken
        return HEAD + len(piece)

    def _close_input(self) -> None:
        if self.input >= 0 and self.terminal < 0:
            os.close(self.input)
            self.input = -1
        self.waiting.clear()

    def close_output(self, output: int) -> None:
        """Let go of an output that has ended."""
        self.outputs.remove(output)
        if output != self.terminal:
            os.close(output)

    def send(self, number: int) -> None:
        """Send a signal to the command and what it has started in its process group."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def collect(self) -> int:
        """Bury the command, let go of everything of it, and return its exit code as a shell tells it."""
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self._close_input()
        for output in tuple(self.outputs):
            self.close_output(output)
        if self.terminal >= 0:
            os.close(self.terminal)
        os.close(self.end)
        return code if code >= 0 else 128 - code


def _become(request: dict[str, Any], descriptors: tuple[int, int, int], fails: int, *, on_terminal: bool) -> NoReturn:
    try:
        os.setsid()
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
        if on_terminal:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        os.chdir(request["cwd"] if os.path.isdir(request["cwd"]) else "/")  # noqa: PTH112 - any text may be there
        for number in (signal.SIGINT, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        os.execvpe(request["argv"][0], request["argv"], request["env"])  # noqa: S606 - no shell is the point
    except OSError as error:
        os.write(fails, str(error.errno).encode())
    finally:
        os._exit(_REFUSED)
