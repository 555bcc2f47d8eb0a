"""Values of a guest's shell: where to reach it, what a command answered, what its first boot came to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from vmhost.model.reach import Jump, Via


@dataclass(frozen=True, slots=True)
class SshTarget:
    """Where a guest's SSH server is and how to trust it.

    ``host`` is an address (a name is resolved without a time limit). ``host_keys`` are the pinned public keys as
    OpenSSH lines (``ssh-ed25519 AAAA...``): at least one, and nothing else is trusted. ``private_key_files`` are
    tried in order, then the agent's keys if ``use_agent``. ``via`` is the way to the guest where the host's own routing
    does not lead there. ``socket_factory`` takes a time limit in seconds and returns a connected stream socket
    (``socket.socket``) in place of a plain TCP connection; without one it follows from ``via``.

    All times are in seconds and end at the deadline of the call at the latest: ``connect_timeout`` for TCP,
    ``banner_timeout`` for the server's first line, ``handshake_timeout`` for the key exchange, ``auth_timeout`` for
    each key that is tried. ``keepalive`` is the interval of keep-alive messages on an idle connection.
    """

    guest: str
    host: str
    host_keys: tuple[str, ...]
    port: int = 22
    user: str = "root"
    private_key_files: tuple[Path, ...] = ()
    use_agent: bool = False
    via: Via | None = None
    socket_factory: Callable[[float], Any] | None = field(default=None, compare=False, repr=False)
    connect_timeout: float = 5.0
    banner_timeout: float = 10.0
    handshake_timeout: float = 20.0
    auth_timeout: float = 20.0
    keepalive: float = 15.0

    @property
    def first_line_timeout(self) -> float:
        """``banner_timeout``; through another host, the server begins when that one has let us in."""
        entry = self.handshake_timeout + self.auth_timeout if isinstance(self.via, Jump) else 0.0
        return entry + self.banner_timeout


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What a command in a guest answered.

    Exactly one of ``exit_code`` (0-255) and ``signal`` (``TERM``, ``KILL``, ... without ``SIG``) is set when the
    command ended by itself; both are None when the server reported neither. ``truncated`` is True when output was
    dropped: beyond the cap, or from a child that kept the streams open after the command had ended.
    """

    argv: tuple[str, ...]
    exit_code: int | None
    signal: str | None
    stdout: bytes
    stderr: bytes
    truncated: bool
    seconds: float


class VerdictState(StrEnum):
    """The ends of cloud-init, in its own words; ``disabled`` when it did not run at all."""

    DONE = "done"
    DEGRADED = "degraded"
    ERROR = "error"
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What cloud-init says of a first boot.

    ``errors`` are its modules' failures, ``warnings`` its recoverable errors, each in cloud-init's own words;
    ``datasource`` is where its configuration came from, as it names it.
    """

    state: VerdictState
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    datasource: str = ""
