"""Servers that misbehave, each a function of the accepted connection; and the threads that run them."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

Behaviour = Callable[[socket.socket, threading.Event], None]


@contextlib.contextmanager
def listening(behaviour: Behaviour) -> Iterator[int]:
    """Serve each connection with ``behaviour``; its event is set when the test is over."""
    over = threading.Event()
    server = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            behaviour(connection, over)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                thread = threading.Thread(target=serve, args=(connection,), daemon=True)
                thread.start()
                threads.append(thread)

    acceptor = threading.Thread(target=accept, daemon=True)
    acceptor.start()
    try:
        yield server.getsockname()[1]
    finally:
        over.set()
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        for thread in [acceptor, *threads]:
            thread.join(timeout=5)


def silent(_: socket.socket, over: threading.Event) -> None:
    """Accept and say nothing, like a port forward to a guest that is not up."""
    over.wait(30)


def hanging_up(_: socket.socket, __: threading.Event) -> None:
    """Accept and close."""


def says(data: bytes) -> Behaviour:
    """Send some bytes and then wait."""

    def behave(connection: socket.socket, over: threading.Event) -> None:
        connection.sendall(data)
        over.wait(30)

    return behave


def pours(data: bytes) -> Behaviour:
    """Send the same bytes for ever."""

    def behave(connection: socket.socket, over: threading.Event) -> None:
        while not over.is_set():
            connection.sendall(data)

    return behave


def drips(data: bytes, interval: float) -> Behaviour:
    """Send one byte after the other, for ever."""

    def behave(connection: socket.socket, over: threading.Event) -> None:
        while True:
            for byte in data:
                connection.sendall(bytes([byte]))
                if over.wait(interval):
                    return

    return behave
