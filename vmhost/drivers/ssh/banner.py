"""An SSH server's first line (RFC 4253, 4.2), read without the library: cheap, bounded, exact about what went wrong."""

from __future__ import annotations

import re
import select
import socket
import time
from collections.abc import Callable
from typing import Final

from vmhost.model.errors import DriverError, Silent, Unreachable

_VERSION: Final = re.compile(rb"SSH-(2\.0|1\.99)-[\x21-\x7e]")
_PREAMBLE_LIMIT: Final = 16 * 1024
_LINE_LIMIT: Final = 255


def read_banner(sock: socket.socket, deadline: float) -> tuple[bytes, bytes]:
    """Read up to the server's version line.

    :param deadline: monotonic time in seconds.
    :return: the version line without its line end, and what had arrived after it.
    :raises Unreachable: nothing came in time, or the server closed first; both are ``retryable``: a port forward
        accepts before the guest does, and a starting sshd may close.
    :raises DriverError: what came is not SSH 2, or 16 KiB came before a version line.
    """
    seen = b""
    while True:
        data = _receive(sock, deadline, seen)
        seen += data
        banner, rest = _split(seen)
        if banner is not None:
            return banner, rest


def banner_probe(
    host: str, port: int, timeout: float, *, socket_factory: Callable[[float], socket.socket] | None = None
) -> str:
    """Connect once, read the server's version line and leave.

    :param timeout: seconds for everything together.
    :param socket_factory: makes the connected socket in place of a plain TCP connection.
    :return: the version line, such as ``SSH-2.0-OpenSSH_9.2p1 Debian-2``.
    :raises Unreachable: refused, no route, no answer or no banner in time.
    :raises DriverError: something answers there that is not an SSH server.
    """
    deadline = time.monotonic() + timeout
    try:
        sock = socket_factory(timeout) if socket_factory else socket.create_connection((host, port), timeout)
    except OSError as error:
        raise Unreachable(reason(error), subject=f"{host} port {port}", retryable=True) from error
    with sock:
        return read_banner(sock, deadline)[0].decode("ascii", "replace")


def reason(error: OSError) -> str:
    """Say in a few words why a connection failed."""
    if isinstance(error, TimeoutError) and not error.errno:
        return "no answer to the connection in time"
    return (error.strerror or str(error) or type(error).__name__).lower()


def _receive(sock: socket.socket, deadline: float, seen: bytes) -> bytes:
    """Receive some bytes before the deadline."""
    remaining = deadline - time.monotonic()
    try:
        if remaining <= 0 or not _readable(sock, remaining):
            what = f"only {_printable(seen)} came" if seen else "connected, but no SSH banner came"
            raise Silent(f"{what} in time", retryable=True)
        data = sock.recv(4096)
    except OSError as error:
        raise Unreachable(f"the connection broke before the SSH banner: {reason(error)}", retryable=True) from error
    if not data:
        raise Unreachable("the connection was closed before the SSH banner", retryable=True)
    return data


def _readable(sock: socket.socket, seconds: float) -> bool:
    """Wait until there is something to receive (poll: select ends at file descriptor 1023)."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _split(seen: bytes) -> tuple[bytes | None, bytes]:
    """Find the version line among what was received; lines before it are allowed and ignored."""
    start = 0
    while (end := seen.find(b"\n", start)) >= 0:
        line = seen[start:end].rstrip(b"\r")
        if line.startswith(b"SSH-"):
            if not _VERSION.match(line) or len(line) > _LINE_LIMIT:
                raise DriverError(f"not an SSH 2 server: it says {_printable(line)}")
            return line, seen[end + 1 :]
        start = end + 1
    if len(seen) > _PREAMBLE_LIMIT or (seen.startswith(b"SSH-") and len(seen) > _LINE_LIMIT + 2):
        raise DriverError(f"not an SSH server: it begins with {_printable(seen)}")
    return None, b""


def _printable(data: bytes) -> str:
    """Show the beginning of foreign bytes, safe for a terminal."""
    return ascii(data[:40])[1:]
