"""An open connection to a guest: commands and files, from several threads at once."""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from paramiko import SSHException

from vmhost.drivers.ssh.command import Exchange, command_line, ending_line
from vmhost.drivers.ssh.connect import end_transport
from vmhost.drivers.ssh.files import RemoteFiles
from vmhost.drivers.ssh.forward import forwarded
from vmhost.drivers.ssh.transport import PinnedTransport
from vmhost.model.errors import DriverError, Unreachable, VmhostError
from vmhost.model.shell import CommandResult

_CHANNELS: Final = 4
"""Commands at once on one connection.

sshd allows 10 channels (``MaxSessions``), and a channel counts until sshd has turned its loop once more after our
close, so for a moment each command may count twice. One channel is for files, one for ending commands.
"""

_ENDING: Final = 2.0
"""Seconds that ending a command may take after its time is up."""


class SshSession:
    """One connection to one guest. Safe to use from several threads; a context manager.

    :param guest: the guest's name, for errors.
    :param on_close: called once or more when the session ends by :meth:`close`.
    """

    def __init__(
        self, guest: str, transport: PinnedTransport, *, on_close: Callable[[SshSession], None] = lambda _: None
    ) -> None:
        self.guest = guest
        self._transport = transport
        self._room = threading.BoundedSemaphore(_CHANNELS)
        self._files = RemoteFiles(transport)
        self._closed = False
        self._on_close = on_close

    def __enter__(self) -> SshSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(
        self,
        argv: Sequence[str],
        *,
        input: bytes = b"",  # noqa: A002 - the word of subprocess
        timeout: float,
        cap: int = 1 << 20,
        sudo: bool = False,
        until: bytes = b"",
        check: Callable[[], None] = lambda: None,
    ) -> CommandResult:
        """Run a command and wait for its end.

        No terminal, no environment of ours; ``PATH`` and ``LC_ALL`` are set. At the time-out the command and its
        children are sent SIGTERM and then SIGKILL, which may take up to 2 s more.

        :param argv: program and arguments, quoted here for the guest's POSIX shell.
        :param input: bytes for its standard input, which is closed after them.
        :param timeout: seconds for everything together, waiting for one of the connection's channels included.
        :param cap: bytes kept of each of stdout and stderr.
        :param sudo: run as root by ``sudo -n``.
        :param until: return as soon as stdout holds these bytes; the command is left to end by itself, and its exit
            code may be None.
        :param check: called about once a second while it runs; what it raises ends the command, as the time-out does.
        :return: the result, whatever the exit code is.
        :raises UsageError: ``argv`` is empty or contains a NUL.
        :raises Unreachable: the connection was lost; whether the command ran is not known.
        :raises DriverError: it did not end in time, or the server refuses commands.
        """
        mark = secrets.token_hex(8)
        line = command_line(argv, mark=mark, sudo=sudo)
        deadline = time.monotonic() + timeout
        with self._channel_room(timeout), self._translated():
            try:
                with self._transport.wire.limit(deadline):
                    return self._exchange(input, deadline=deadline, cap=cap, until=until).run(
                        argv, line, timeout=timeout, check=check
                    )
            except (VmhostError, KeyboardInterrupt):
                self._end_command(mark, sudo=sudo)
                raise

    def _exchange(self, data: bytes, *, deadline: float, cap: int, until: bytes = b"") -> Exchange:
        channel = self._transport.open_command_channel(deadline)
        return Exchange(self._transport, channel, data, deadline=deadline, cap=cap, until=until)

    def _end_command(self, mark: str, *, sudo: bool) -> None:
        """End a command that we do not wait for any longer, if the guest still answers."""
        line = ending_line(mark, sudo=sudo)
        deadline = time.monotonic() + _ENDING
        with contextlib.suppress(DriverError, SSHException, EOFError, OSError), self._transport.wire.limit(deadline):
            self._exchange(b"", deadline=deadline, cap=0).run(("sh",), line, timeout=_ENDING)

    def write_file(self, path: str, data: bytes, *, mode: int = 0o644, timeout: float = 60.0) -> None:
        """Put a file in place atomically: a reader sees the old content or the new, complete and with its mode.

        A temporary file beside it (mode 0600) is filled, given its mode, synced where the server can, and renamed
        over it. A symbolic link at ``path`` is replaced, not followed. The owner is the user of the connection.

        :param mode: permission bits.
        :param timeout: seconds for everything together.
        :raises Absent: the directory is not there.
        :raises PermissionDenied: the user may not write there.
        :raises DriverError: any other refusal, such as a full disk; the old file is untouched and the temporary one
            gone.
        :raises Unreachable: the connection was lost or too slow; the old file or the new one is there, whole.
        """
        deadline = time.monotonic() + timeout
        with self._translated(), self._transport.wire.limit(deadline):
            self._files.write(path, data, mode=mode, deadline=deadline)

    def read_file(self, path: str, *, cap: int = 1 << 20, timeout: float = 60.0) -> bytes:
        """Return a file's content.

        :param cap: the largest size in bytes that is read.
        :param timeout: seconds for everything together.
        :raises Absent: it is not there.
        :raises PermissionDenied: the user may not read it.
        :raises DriverError: it is larger than ``cap``, or cannot be read.
        """
        deadline = time.monotonic() + timeout
        with self._translated(), self._transport.wire.limit(deadline):
            return self._files.read(path, cap=cap, deadline=deadline)

    def dial(self, port: int, *, timeout: float) -> socket.socket:
        """Return a connection to a port of the guest's loopback, which the SSH server makes (RFC 4254, 7.2).

        :raises Unreachable: nobody listens there; :raises DriverError: the SSH server forwards nothing.
        """
        with self._channel_room(timeout), self._translated():
            return forwarded(self._transport, port, timeout)

    @property
    def alive(self) -> bool:
        """Whether the connection was not closed, and is not known to be lost."""
        return not self._closed and self._transport.is_active()

    def close(self) -> None:
        """End the connection; commands that still run raise Unreachable in their threads. Closing twice is fine."""
        self._closed = True
        end_transport(self._transport)
        self._on_close(self)

    @contextlib.contextmanager
    def _channel_room(self, timeout: float) -> Iterator[None]:
        if not self._room.acquire(timeout=timeout):
            raise DriverError(f"{_CHANNELS} other commands run on this connection", subject=self.guest, retryable=True)
        try:
            yield
        finally:
            self._room.release()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn the library's errors into ours."""
        try:
            yield
        except DriverError as error:
            error.subject = error.subject or self.guest
            error.hint = error.hint or f"vmhost guest ssh {self.guest}"
            raise
        except (SSHException, EOFError, OSError) as error:
            raise self._lost(error) from error

    def _lost(self, error: Exception) -> DriverError:
        """Say how the connection ended, and leave nothing of it."""
        alive = self._transport.is_active()
        end_transport(self._transport)
        if self._closed:
            return Unreachable("the connection was closed by us", subject=self.guest)
        hint = f"vmhost guest console {self.guest}"
        what = "the SSH server does not answer any more" if alive else "the SSH connection was lost"
        detail = f": {error}" if str(error) and not isinstance(error, EOFError) else ""
        return Unreachable(what + detail, subject=self.guest, hint=hint)
