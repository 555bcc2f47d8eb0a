"""One command on an open connection: sent once, both streams drained together, under a cap and an absolute deadline."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from typing import Final

from paramiko import Channel

from vmhost.drivers.ssh.transport import ChannelWatch, PinnedTransport
from vmhost.model.errors import DriverError, UsageError
from vmhost.model.shell import CommandResult

_ENVIRONMENT: Final = "LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""What commands may rely on, whatever the guest's profile says: programs of the system first, answers in English.

Not C.UTF-8: bash would load that locale before it starts the command, 0.4 ms of 3.
"""

_MARK: Final = "VMHOST_COMMAND"
"""Environment variable by which a command and its children are found again, to end them."""

_SLICE: Final = 1.0
"""Seconds after which a waiter looks again although nothing woke it."""

_LINGER: Final = 2.0
"""Seconds of silence after a command's end until its streams count as kept open by a child that stays behind."""

_READ: Final = 1 << 20
_PIECE: Final = 32 * 1024


def command_line(argv: Sequence[str], *, mark: str, sudo: bool = False) -> bytes:
    """Quote an argument tuple once for the guest's shell, which must be a POSIX shell.

    :param mark: a word that no other command has; :func:`ending_line` finds the command by it.
    :param sudo: run it as root through ``sudo -n``, which never asks.
    :raises UsageError: no program, or a NUL, which no argument can carry (execve(2)).
    """
    if isinstance(argv, str) or not argv or not argv[0] or argv[0].startswith("-"):
        raise UsageError("a command is a tuple of arguments that begins with a program", subject=repr(argv)[:80])
    if any("\0" in word for word in argv):
        raise UsageError("an argument contains a NUL byte", subject=argv[0])
    # sudo resets the environment (sudoers(5), env_reset), so the mark is given again behind it.
    prefix = f"sudo -n -- env {_MARK}={mark} " if sudo else ""
    return f"{_ENVIRONMENT} {_MARK}={mark} exec {prefix}{shlex.join(argv)}".encode("utf-8", "surrogateescape")


def ending_line(mark: str, *, sudo: bool = False) -> bytes:
    """Return the command that ends a marked command and its children: SIGTERM, and SIGKILL 0.2 s later.

    SSH's own signal request does not do: sshd refuses it for root, and it reaches the first process only.
    """
    found = f"$(grep -lasF {_MARK}={mark} /proc/[0-9]*/environ | cut -d/ -f3)"
    script = f'p={found}; test "$p" && kill $p; p={found}; test "$p" && sleep 0.2 && p={found} && kill -KILL $p'
    prefix = "sudo -n -- " if sudo else ""
    return f"{_ENVIRONMENT} exec {prefix}sh -c {shlex.quote(script)}".encode()


class Exchange:
    """A running command.

    :param deadline: monotonic time in seconds at which the command is ended if it still runs.
    :param cap: bytes kept of each stream; what comes beyond is read and dropped.
    :param until: bytes of stdout after which nothing is waited for any longer; none: the command's end.
    """

    def __init__(
        self, transport: PinnedTransport, channel: Channel, data: bytes, *, deadline: float, cap: int, until: bytes
    ) -> None:
        self._transport = transport
        self._channel = channel
        self._watch: ChannelWatch = transport.watch(channel)
        self._input = data
        self._sent = 0
        self._deadline = deadline
        self._cap = cap
        self._until = until
        self._watch.reading = bool(until)
        self._out = bytearray()
        self._err = bytearray()
        self._last_byte = time.monotonic()
        self._truncated = False

    def run(
        self, argv: Sequence[str], line: bytes, *, timeout: float, check: Callable[[], None] = lambda: None
    ) -> CommandResult:
        """Send the command and wait for its end.

        :param timeout: the seconds that the caller gave for everything together, to be told when they were too few.
        :param check: called about once a second; what it raises ends the waiting.
        :raises DriverError: it did not end in time and may still run, or the server refused to run it.
        :raises EOFError: the connection ended.
        """
        began = time.monotonic()
        try:
            self._transport.request(self._channel, "exec", line, deadline=self._deadline)
            while not self._finished():
                check()
                if time.monotonic() >= self._deadline:
                    raise DriverError(f"no end within {timeout:g} s: {shlex.join(argv)[:200]}")
                self._watch.wake.wait(max(0.0, min(_SLICE, self._deadline - time.monotonic())))
        finally:
            self._transport.unwatch(self._channel)
            self._channel.close()
        self._require_answer(argv)
        exit_code = self._channel.exit_status
        return CommandResult(
            argv=tuple(argv),
            exit_code=exit_code if exit_code >= 0 else None,
            signal=self._watch.signal,
            stdout=bytes(self._out),
            stderr=bytes(self._err),
            truncated=self._truncated,
            seconds=time.monotonic() - began,
        )

    def _finished(self) -> bool:
        """Move what can be moved; True when nothing more will come."""
        # The order matters: whatever wakes us after this line is looked at by the next call.
        self._watch.wake.clear()
        closed = self._channel.closed or not self._transport.is_active()
        self._feed()
        self._drain()
        if closed or self._enough():
            return True
        if self._ended() and time.monotonic() - self._last_byte > _LINGER:
            self._truncated = True
            return True
        return False

    def _enough(self) -> bool:
        """Whether all that the caller wants to read has come."""
        return bool(self._until) and self._until in self._out

    def _ended(self) -> bool:
        """Whether the server has said how the command ended."""
        return self._channel.exit_status >= 0 or self._watch.signal is not None

    def _feed(self) -> None:
        """Write as much input as the peer has room for; close the stream when all is written."""
        if self._channel.eof_sent or self._channel.closed:
            return
        # Before the answer to "exec" the peer has no room at all: OpenSSH opens its window then.
        self._watch.sending = True
        try:
            while self._sent < len(self._input):
                piece = self._input[self._sent : self._sent + _PIECE]
                sent = self._transport.send_data(self._channel, piece, self._deadline)
                if not sent:
                    return  # the peer's next window adjustment wakes us
                self._sent += sent
        except BrokenPipeError:
            return  # the command does not read any more
        self._watch.sending = False
        self._transport.send_eof(self._channel, self._deadline)

    def _drain(self) -> None:
        """Take what has come on both streams, so that neither fills its window and stops the other."""
        while (out := self._channel.recv_ready()) | (err := self._channel.recv_stderr_ready()):
            if out:
                self._keep(self._out, self._channel.recv(_READ))
            if err:
                self._keep(self._err, self._channel.recv_stderr(_READ))
            if time.monotonic() >= self._deadline:
                return

    def _keep(self, kept: bytearray, data: bytes) -> None:
        room = self._cap - len(kept)
        kept += data[:room] if room > 0 else b""
        self._truncated = self._truncated or len(data) > room
        self._last_byte = time.monotonic()

    def _require_answer(self, argv: Sequence[str]) -> None:
        """Tell a refusal and a lost connection from a command that ended."""
        if self._ended() or self._enough():
            return
        if not self._transport.is_active():
            raise EOFError
        if not self._channel.event_ready:
            raise DriverError(f"the SSH server refuses to run commands: {argv[0]}")
