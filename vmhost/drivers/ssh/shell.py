"""The ``GuestShell`` port by paramiko."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from vmhost.drivers.ssh.connect import open_transport
from vmhost.drivers.ssh.knock import Knocker
from vmhost.drivers.ssh.session import SshSession
from vmhost.drivers.ssh.via import with_socket_factory
from vmhost.model.reach import Via
from vmhost.model.shell import SshTarget

OPEN: Final = "ssh"
"""The sign that a guest's SSH server is up."""

_FRESH: Final = 10.0


@dataclass(frozen=True, slots=True)
class _Door:
    """A connection whose banner is there, and since when (monotonic)."""

    sock: socket.socket
    since: float


class SshShell:
    """Opens SSH sessions to guests. Safe to use from several threads; a context manager."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: set[SshSession] = set()
        self._doors: dict[tuple[Via | None, str, int], _Door] = {}

    def __enter__(self) -> SshShell:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def connect(self, target: SshTarget, *, deadline: float, check: Callable[[], None] = lambda: None) -> SshSession:
        """Connect to a guest, check its host key and log in; see ``vmhost.drivers.ssh.connect.open_transport``.

        :param deadline: monotonic time in seconds; after it the attempt is given up.
        :param check: called about once a second while the server is silent; what it raises ends the attempt.
        :return: a session for any number of commands at once; keep one for each guest.
        """
        transport = open_transport(with_socket_factory(target), deadline, self._take_door(target), check)
        session = SshSession(target.guest, transport, on_close=self._forget)
        with self._lock:
            self._open.add(session)
        return session

    def knock(self, target: SshTarget, notify: Callable[[str], None]) -> Knocker:
        """Learn when a guest's SSH server is up: ``notify("ssh")`` is called once, when its banner is there.

        The next :meth:`connect` to the same host and port, by the same way, goes on with that very connection.

        :param notify: called from another thread.
        :return: a context manager; knocking ends with it, or by itself when the server opened.
        """

        def keep(sock: socket.socket) -> None:
            self._put_door(target, sock)
            notify(OPEN)

        return Knocker(with_socket_factory(target), keep)

    def close(self) -> None:
        """End every session that is still open; whoever waits on one gets Unreachable at once (Ctrl-C)."""
        with self._lock:
            sessions = list(self._open)
            doors = [self._doors.popitem()[1] for _ in range(len(self._doors))]
        for session in sessions:
            session.close()
        for door in doors:
            door.sock.close()

    def _forget(self, session: SshSession) -> None:
        with self._lock:
            self._open.discard(session)

    def _put_door(self, target: SshTarget, sock: socket.socket) -> None:
        with self._lock:
            old = self._doors.pop(_door(target), None)
            self._doors[_door(target)] = _Door(sock, time.monotonic())
        if old:
            old.sock.close()

    def _take_door(self, target: SshTarget) -> socket.socket | None:
        """Return the connection that knocking left, if it is fresh: sshd closes one that does not log in."""
        with self._lock:
            door = self._doors.pop(_door(target), None)
        if door is None:
            return None
        if time.monotonic() - door.since < _FRESH:
            return door.sock
        door.sock.close()
        return None


def _door(target: SshTarget) -> tuple[Via | None, str, int]:
    """Two guests may have one address, in two VLANs."""
    return target.via, target.host, target.port
