"""Connections to the guest's own loopback through its SSH server, as ordinary sockets."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Final

from paramiko import Channel, ChannelException, SSHException

from vmhost.drivers.ssh.transport import PinnedTransport
from vmhost.model.errors import DriverError, Unreachable

_HERE: Final = "127.0.0.1"
_PROHIBITED: Final = 1  # RFC 4254, 5.1
_PIECE: Final = 32 * 1024


def forwarded(transport: PinnedTransport, port: int, timeout: float) -> socket.socket:
    """Return a socket whose other end is a port of the guest's loopback.

    :raises Unreachable: nobody listens there, or there was no answer in time.
    :raises DriverError: the SSH server forwards nothing.
    """
    try:
        channel = transport.open_channel("direct-tcpip", (_HERE, port), (_HERE, 0), timeout=timeout)
    except ChannelException as error:
        if error.code == _PROHIBITED:
            raise DriverError("the SSH server does not forward connections (AllowTcpForwarding)") from error
        raise Unreachable("connection refused", subject=f"port {port} inside") from error
    except SSHException as error:
        if not transport.is_active():
            raise
        raise Unreachable("no answer to the connection in time", subject=f"port {port} inside") from error
    ours, theirs = socket.socketpair()
    for pump in (_outwards, _inwards):
        threading.Thread(target=pump, args=(channel, theirs), daemon=True, name=f"forward-{port}").start()
    return ours


def _outwards(channel: Channel, sock: socket.socket) -> None:
    """Pass on what we send; ends with our socket, and takes the channel with it."""
    with contextlib.suppress(OSError, EOFError, SSHException):
        while data := sock.recv(_PIECE):
            channel.sendall(data)
    channel.close()


def _inwards(channel: Channel, sock: socket.socket) -> None:
    """Pass on what the guest sends; ends with the channel, which :func:`_outwards` closes at the latest."""
    with contextlib.suppress(OSError, EOFError, SSHException):
        while data := channel.recv(_PIECE):
            sock.sendall(data)
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()
