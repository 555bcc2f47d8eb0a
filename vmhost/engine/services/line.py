"""One line to each guest: a connection that many commands share, made anew when it breaks, behind a circuit breaker."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from vmhost.engine.services.breaker import Breaker, Circuit
from vmhost.model.errors import PermissionDenied, Unreachable, VmhostError
from vmhost.model.guestops import GuestCommand
from vmhost.model.shell import CommandResult
from vmhost.ports import Clock, ShellSession

CONNECT: Final = 15.0
"""Seconds that a connection to a guest may take."""

CAP: Final = 1 << 20
"""Bytes that are kept of what a command says."""

_SUDO: Final = (b"sudo: a password is required", b"is not in the sudoers file", b"sudo: a terminal is required")


@dataclass(frozen=True, slots=True)
class LineState:
    """How the line to a guest is, for people: its breaker, and the last error if it is not well."""

    guest: str
    circuit: Circuit
    failures: int
    error: str


@dataclass(slots=True)
class _Line:
    """``opening`` is held while a session is made, ``lock`` for a moment only."""

    breaker: Breaker
    opening: threading.Lock = field(default_factory=threading.Lock)
    lock: threading.Lock = field(default_factory=threading.Lock)
    session: ShellSession | None = None

    def usable(self) -> ShellSession | None:
        """Return the open session; one that is known to be lost is none."""
        with self.lock:
            if self.session is None or self.session.alive:
                return self.session
            lost, self.session = self.session, None
        lost.close()
        return None


Opener = Callable[[str, float], ShellSession]
"""Opens a session to the guest of that name until a monotonic deadline."""


class Lines:
    """The lines to guests; safe from several threads; a context manager that closes them.

    :param open_session: makes a session: SSH, or the guest agent where the host has no other way in.
    """

    def __init__(self, open_session: Opener, clock: Clock) -> None:
        self._open_session = open_session
        self._clock = clock
        self._lock = threading.Lock()
        self._lines: dict[str, _Line] = {}

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, guest: str, command: GuestCommand, *, again: bool = False, cap: int = CAP) -> CommandResult:
        """Run a command on the guest's line and return its result, whatever its exit code is.

        :param again: it only looks, so that it may run twice: when an open line turns out to be broken, a new one is
            opened at once.
        :raises Unreachable: there is no line, or it broke; whether the command ran is not known then.
        :raises PermissionDenied: the account may not become root without a password.
        :raises DriverError: it did not end in time.
        """
        session, fresh = self._session(guest)
        if again and not fresh:
            try:
                return self._checked(guest, session, command, cap)
            except Unreachable:
                # It had been open for a while: whether the guest is there, a new one shows.
                self.drop(guest, session)
                session, _ = self._session(guest)
        try:
            return self._checked(guest, session, command, cap)
        except Unreachable as error:
            self.drop(guest, session)
            self._line(guest).breaker.failed(self._clock.monotonic(), error.message)
            raise

    def session(self, guest: str, patience: float = CONNECT) -> ShellSession:
        """Return the guest's open session, made if there is none.

        :param patience: seconds to wait for somebody else who is making one. :raises Unreachable: as :meth:`run`.
        """
        return self._session(guest, patience)[0]

    def drop(self, guest: str, session: ShellSession | None = None) -> None:
        """Close a guest's session, if it still is the given one; the next call opens a new one."""
        line = self._line(guest)
        with line.lock:
            if line.session is None or (session is not None and line.session is not session):
                return
            broken, line.session = line.session, None
        broken.close()

    def states(self) -> tuple[LineState, ...]:
        """Return how each line is, by guest."""
        now = self._clock.monotonic()
        with self._lock:
            lines = sorted(self._lines.items())
        return tuple(
            LineState(guest, line.breaker.state(now), line.breaker.failures, line.breaker.error)
            for guest, line in lines
        )

    def close(self) -> None:
        """Close all sessions."""
        with self._lock:
            lines = [self._lines.popitem()[1] for _ in range(len(self._lines))]
        for line in lines:
            if line.session is not None:
                line.session.close()

    def _checked(self, guest: str, session: ShellSession, command: GuestCommand, cap: int) -> CommandResult:
        result = session.run(command.argv, input=command.input, timeout=command.timeout, sudo=command.sudo, cap=cap)
        self._line(guest).breaker.succeeded()
        _check_sudo(guest, command, result)
        return result

    def _line(self, guest: str) -> _Line:
        with self._lock:
            return self._lines.setdefault(guest, _Line(Breaker(guest)))

    def _session(self, guest: str, patience: float = CONNECT) -> tuple[ShellSession, bool]:
        """Return the guest's session, and whether it was opened just now."""
        line = self._line(guest)
        session = line.usable()
        if session is not None:
            return session, False
        if not line.opening.acquire(timeout=patience):
            raise Unreachable("its line is still being opened", subject=guest, retryable=True)
        try:
            session = line.usable()
            if session is not None:
                return session, False
            line.breaker.enter(self._clock.monotonic())
            try:
                session = self._open_session(guest, self._clock.monotonic() + CONNECT)
            except VmhostError as error:
                line.breaker.failed(self._clock.monotonic(), error.message)
                raise
            except BaseException:
                line.breaker.failed(self._clock.monotonic(), "given up")
                raise
            line.breaker.connected()
            with line.lock:
                line.session = session
            return session, True
        finally:
            line.opening.release()


def _check_sudo(guest: str, command: GuestCommand, result: CommandResult) -> None:
    if command.sudo and result.exit_code == 1 and any(text in result.stderr for text in _SUDO):
        text = "the account that vmhost signs in with may not become root without a password"
        raise PermissionDenied(text, subject=guest, hint=f"vmhost guest exec {guest} --sudo -- true")
