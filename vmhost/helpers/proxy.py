"""What the system's ssh runs as its ``ProxyCommand`` to get into a namespace of ours: NAMESPACE HOST PORT."""

from __future__ import annotations

import os
import select
import socket
import sys
from collections.abc import Sequence
from typing import Final

from vmhost.drivers.netns import connect

CONNECT: Final = 10.0
"""Seconds for the connection; ssh's own ConnectTimeout ends this program, too."""


def main(arguments: Sequence[str]) -> int:
    """Carry bytes between our standard streams and the connection until either side ends; 0, or 1 without one."""
    namespace, host, port = arguments
    try:
        wire = connect(namespace, host, int(port), CONNECT)
    except FileNotFoundError:
        sys.stderr.write(f"vmhost: the way into {namespace} is gone; try: vmhost apply SITE\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"vmhost: {host} port {port} through {namespace}: {error.strerror or error}\n")
        return 1
    with wire:
        wire.settimeout(None)
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        carry(wire, sys.stdin.fileno(), sys.stdout.fileno())
    return 0


def carry(wire: socket.socket, source: int, sink: int) -> None:
    """Carry what comes from ``source`` to the connection, and what comes from there to ``sink``."""
    poll = select.poll()
    poll.register(wire, select.POLLIN)
    poll.register(source, select.POLLIN)
    while True:
        for number, _ in poll.poll():
            if number == source:
                data = os.read(source, 65536)
                if data:
                    wire.sendall(data)
                else:
                    poll.unregister(source)
                    wire.shutdown(socket.SHUT_WR)
                continue
            data = wire.recv(65536)
            if not data:
                return
            while data:
                data = data[os.write(sink, data) :]
