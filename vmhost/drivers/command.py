"""Other programs: the only module of vmhost that starts any.

A command line is a sequence of words and never goes through a shell. What a program says is read while it runs, so it
cannot block on a pipe; it has a deadline; and when the deadline passes or the caller is interrupted, its whole process
group ends with it.

**Secrets never stand in** ``argv``: every user of the machine can read it in ``/proc``. Hand them over through
``input``, through ``env``, or as a file that ``argv`` names or ``pass_fds`` passes.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, NoReturn

from vmhost.drivers.programs import PACKAGES, find
from vmhost.drivers.streams import ProcessWatch, Streams
from vmhost.model.errors import DriverError, PermissionDenied

__all__ = [
    "CAP",
    "GRACE",
    "PACKAGES",
    "Child",
    "CommandFailed",
    "Completed",
    "ProcessWatch",
    "find",
    "foreground",
    "in_words",
    "replace",
    "run",
    "socket_to",
    "spawn",
]

CAP = 16 * 1024 * 1024
"""Bytes of output that are kept of one stream when the caller does not say otherwise."""

GRACE = 5.0
"""Seconds between asking a program to end (SIGTERM) and ending it (SIGKILL)."""

_Sink = int | IO[bytes] | None
_Directory = str | os.PathLike[str] | None


@dataclass(frozen=True, slots=True)
class Completed:
    """A program that ended: its command line, exit code (negative: the signal that ended it) and what it wrote."""

    argv: tuple[str, ...]
    code: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """What it wrote on stdout, as text; bytes that are not UTF-8 are replaced."""
        return self.stdout.decode(errors="replace")


class CommandFailed(DriverError):
    """A program ended with an error, or had to be ended.

    ``program`` is its name, ``code`` its exit code (negative: a signal; None: its time was over, or it wrote more than
    was allowed), ``stderr`` the last lines that it wrote there.
    """

    def __init__(
        self, program: str, what: str, *, code: int | None, stderr: Sequence[str] = (), hint: str = ""
    ) -> None:
        message = f"{what}: {' | '.join(stderr)}" if stderr else what
        super().__init__(message, subject=program, hint=hint, retryable=code is None)
        self.program = program
        self.code = code
        self.stderr = tuple(stderr)


def run(
    argv: Sequence[str],
    *,
    timeout: float,
    input: bytes | None = None,  # noqa: A002 - the word that subprocess uses
    env: Mapping[str, str] | None = None,
    cwd: _Directory = None,
    check: bool = True,
    cap: int = CAP,
    on_line: Callable[[str], None] | None = None,
    on_idle: Callable[[], None] | None = None,
    pass_fds: Sequence[int] = (),
    grace: float = GRACE,
    hint: str = "",
) -> Completed:
    """Run a program to its end and return what it said.

    Processes that it leaves behind (daemons) are not waited for, even if they keep its stdout open.

    :param argv: the program and its arguments; never a secret among them.
    :param timeout: seconds that it may take.
    :param input: what it reads on stdin; None: nothing.
    :param env: variables added to ours; ``LC_ALL`` is ``C`` in any case.
    :param check: False: return a non-zero exit code instead of raising.
    :param cap: bytes of stdout that are allowed (more is an error: half an answer is none) and of stderr that are kept.
    :param on_line: called with each line of both streams as it comes; a carriage return ends a line, too.
    :param on_idle: called whenever it has said nothing for a second; what either of them raises ends the program.
    :param pass_fds: file descriptors that stay open in the program.
    :param grace: seconds between SIGTERM and SIGKILL when it has to be ended.
    :param hint: the hint of the error if it fails.
    :raises Absent: the program is not installed.
    :raises PermissionDenied: it may not be started.
    :raises CommandFailed: it failed, took too long or wrote too much; its process group has ended.
    """
    words = tuple(argv)
    stdin = subprocess.DEVNULL if input is None else subprocess.PIPE
    with _started(words, stdin, subprocess.PIPE, subprocess.PIPE, _plain(env), cwd, pass_fds) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        pipes = (process.stdin, process.stdout, process.stderr)
        streams = Streams(*pipes, feed=input or b"", cap=cap, on_line=on_line, on_idle=on_idle)
        try:
            reason = streams.pump(process.pid, timeout)
        except BaseException:
            _end(process, grace)
            raise
        if reason:
            _end(process, grace)
            raise CommandFailed(words[0], reason, code=None, stderr=streams.told(), hint=hint)
        code = process.wait()
    if check and code != 0:
        raise CommandFailed(words[0], in_words(code), code=code, stderr=streams.told(), hint=hint)
    return Completed(words, code, bytes(streams.stdout), bytes(streams.stderr))


class Child:
    """A program that runs beside us; as a context manager it never outlives its block."""

    def __init__(self, process: subprocess.Popen[bytes], program: str) -> None:
        self._process = process
        self.program = program

    @property
    def pid(self) -> int:
        """Its process id, which is its process group, too."""
        return self._process.pid

    def code(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._process.poll()

    def wait(self, timeout: float) -> int:
        """Wait at most ``timeout`` seconds for its end and return its exit code.

        :raises CommandFailed: it still runs.
        """
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise CommandFailed(self.program, f"still runs after {timeout:g} s", code=None) from error

    def reap(self) -> None:
        """Wait for its end, however long that takes, so that no dead process is left behind."""
        self._process.wait()

    def stop(self, grace: float = GRACE) -> int:
        """End it and its process group, politely for ``grace`` seconds, and return its exit code."""
        _end(self._process, grace)
        return self._process.wait()

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.stop()


def spawn(
    argv: Sequence[str],
    *,
    log: Path | None = None,
    env: Mapping[str, str] | None = None,
    cwd: _Directory = None,
    pass_fds: Sequence[int] = (),
) -> Child:
    """Start a program that lives longer than this call, in a process group of its own.

    :param log: the file that its stdout and stderr are appended to; None: they are dropped.
    :param env: variables added to ours; ``LC_ALL`` is ``C`` in any case.
    :raises Absent: the program is not installed.
    :raises PermissionDenied: it may not be started.
    """
    words = tuple(argv)
    with Path(log or os.devnull).open("ab") as out:
        process = _started(words, subprocess.DEVNULL, out, subprocess.STDOUT, _plain(env), cwd, pass_fds)
    return Child(process, words[0])


def foreground(
    argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: _Directory = None, grace: float = GRACE
) -> int:
    """Run a program on our own terminal and return its exit code (negative: the signal that ended it).

    :param env: its whole environment; None: ours.
    :param grace: seconds that it has to end after a Ctrl-C, and again after SIGTERM.
    :raises Absent: the program is not installed.
    :raises KeyboardInterrupt: Ctrl-C; the program, which got it with us, has ended.
    """
    process = _started(tuple(argv), None, None, None, env, cwd, (), own_session=False)
    try:
        return process.wait()
    except BaseException as error:
        if process.returncode is None:
            _end_alone(process, grace, interrupted=isinstance(error, KeyboardInterrupt))
        raise


def replace(argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: _Directory = None) -> NoReturn:
    """Become another program: it gets our terminal, our process id and our signals.

    :param env: its whole environment; None: ours.
    :raises Absent: the program is not installed; nothing has changed.
    :raises DriverError: it cannot be started.
    """
    path = find(argv[0])
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        if cwd is not None:
            os.chdir(cwd)
        os.execve(path, list(argv), dict(os.environ if env is None else env))  # noqa: S606 - no shell is the point
    except OSError as error:
        raise _refused(argv[0], error) from error


def in_words(code: int) -> str:
    """An exit code for people: ``exit code 3``, ``ended by SIGKILL``."""
    if code >= 0:
        return f"exit code {code}"
    with suppress(ValueError):
        return f"ended by {signal.Signals(-code).name}"
    return f"ended by signal {-code}"


def socket_to(argv: Sequence[str]) -> socket.socket:
    """Start a program and return a socket that is its standard input and output; it ends when that is closed.

    :raises Absent: the program is not installed. :raises PermissionDenied: it may not be started.
    """
    ours, theirs = socket.socketpair()
    try:
        end = theirs.fileno()
        process = _started(tuple(argv), end, end, subprocess.DEVNULL, _plain(None), None, ())
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    threading.Thread(target=process.wait, name=f"reap-{process.pid}", daemon=True).start()
    return ours


def _plain(extra: Mapping[str, str] | None) -> dict[str, str]:
    """Our environment with additions, and with messages in the one language that we can read."""
    environment = {**os.environ, **(extra or {}), "LC_ALL": "C"}
    environment.pop("LANGUAGE", None)
    return environment


def _started(
    words: tuple[str, ...],
    stdin: _Sink,
    stdout: _Sink,
    stderr: _Sink,
    env: Mapping[str, str] | None,
    cwd: _Directory,
    pass_fds: Sequence[int],
    own_session: bool = True,
) -> subprocess.Popen[bytes]:
    """Start a program; a session of its own makes it a process group and keeps it from asking on our terminal."""
    path = find(words[0])
    try:
        return subprocess.Popen(
            words,
            executable=path,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=env,
            cwd=cwd,
            pass_fds=pass_fds,
            start_new_session=own_session,
            bufsize=0,
        )
    except OSError as error:
        raise _refused(words[0], error) from error


def _refused(program: str, error: OSError) -> DriverError:
    place = f" ({error.filename})" if error.filename and error.filename != program else ""
    kind = PermissionDenied if isinstance(error, PermissionError) else DriverError
    return kind(f"cannot be started: {error.strerror}{place}", subject=program)


def _end_alone(process: subprocess.Popen[bytes], grace: float, interrupted: bool) -> None:
    """End a program that shares our process group; one that was interrupted with us may first end by itself.

    What ended us may have come between the moment when it was reaped and the one when that was noted.
    """
    with suppress(ProcessLookupError), ProcessWatch(process.pid) as watch:
        if not watch.ended(grace if interrupted else 0):
            watch.send(signal.SIGTERM)
            if not watch.ended(grace):
                watch.send(signal.SIGKILL)
    process.wait()


def _end(process: subprocess.Popen[bytes], grace: float) -> None:
    """End the process group of a program and reap it, unless that was done before.

    The group is killed before its leader is reaped: until then its number cannot belong to anybody else.
    """
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError), ProcessWatch(process.pid) as watch:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        watch.ended(grace)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
