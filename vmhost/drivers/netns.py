"""Network namespaces of the kernel (network_namespaces(7)): a call is run inside one, in a thread of its own."""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Final, TypeVar

T = TypeVar("T")

DIRECTORY: Final = Path("/run/netns")
"""Where namespaces have their names (ip-netns(8))."""

_CLONE_NEWNET: Final = 0x40000000  # linux/sched.h; os.unshare() exists from Python 3.12 on


def in_new_namespace(call: Callable[[], T]) -> T:
    """Run ``call`` in a network namespace that nobody else sees, and that is gone with it.

    :raises OSError: the kernel refused; it takes CAP_SYS_ADMIN.
    """
    return in_thread(lambda: _libc("unshare", _CLONE_NEWNET), call)


def in_namespace(name: str, call: Callable[[], T]) -> T:
    """Run ``call`` in a network namespace that has a name.

    :raises OSError: there is none (``FileNotFoundError``), or the kernel refused; it takes CAP_SYS_ADMIN.
    """
    place = os.open(DIRECTORY / name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return in_thread(lambda: _libc("setns", place, _CLONE_NEWNET), call)
    finally:
        os.close(place)


def connect(name: str, host: str, port: int, seconds: float) -> socket.socket:
    """Return a TCP connection from inside a network namespace; it stays there, wherever it is used.

    :raises OSError: as :func:`in_namespace`, and as a connection fails.
    """
    return in_namespace(name, lambda: socket.create_connection((host, port), seconds))


def in_thread(enter: Callable[[], None], call: Callable[[], T]) -> T:
    """Run ``call`` after ``enter`` in a thread that ends with it: a namespace is left by the end of its thread only."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            enter()
            results.append(call())
        except BaseException as error:  # noqa: BLE001 - raised again below, in the thread that asked
            errors.append(error)

    thread = Thread(target=run, name="netns", daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _libc(function: str, *arguments: int) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), function)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
