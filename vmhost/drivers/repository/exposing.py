"""Points that a guest boots from: qemu-nbd reads them and gives out what it reads.

So QEMU, and whoever breaks out of it, never has a file of the repository open, and libvirt changes no owner of one.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Final

from vmhost.drivers.command import run
from vmhost.drivers.files import make_directory, os_errors, write_all
from vmhost.drivers.processes import process_is_alive
from vmhost.drivers.repository import copying, places
from vmhost.model.errors import Absent, DriverError
from vmhost.model.points import PointRef

READERS: Final = "4"
"""Connections at a time: QEMU opens a disk more than once while it starts."""

_PATIENCE: Final = 10.0
_SOCKET: Final = "--socket="


def expose(ref: PointRef, file: str, socket: Path) -> None:
    """Start a server that reads a disk of a point; it lasts until :func:`conceal`."""
    path = places.published(ref) / file
    words = ["--fork", "--persistent", "--read-only", f"--shared={READERS}", "--format=qcow2", "--cache=writeback"]
    make_directory(socket.parent)
    run(["qemu-nbd", *words, f"{_SOCKET}{socket}", str(path)], timeout=60)
    with os_errors(socket, "open"):
        socket.chmod(0o666)  # QEMU may be another user; its directory keeps all others out


def conceal(socket: Path) -> None:
    """End the server of a socket and take that away. :raises Absent: there is neither."""
    servers = _servers(socket)
    for number in servers:
        _end(number, socket)
    try:
        with os_errors(socket, "remove"):
            socket.unlink()
    except Absent:
        if not servers:
            raise


def overlay(path: Path, socket: str, capacity: int) -> None:
    """Make a qcow2 file on what is read at a socket. :raises AlreadyThere: there is something."""
    make_directory(path.parent)
    copying.make(path)
    below = ["-b", copying.export_of(socket, ""), "-F", "raw"]
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-u", *below, str(path), str(capacity)], timeout=60)


def place(path: Path, data: bytes) -> None:
    """Write a new file. :raises AlreadyThere: there is something."""
    make_directory(path.parent)
    copying.make(path)
    with os_errors(path, "write"):
        handle = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            write_all(handle, data)
        finally:
            os.close(handle)


def _servers(socket: Path) -> list[int]:
    """Return the processes that serve a socket, found by their command lines: whoever started them may have died."""
    mark = f"{_SOCKET}{socket}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # it has ended, or is none of ours
                if mark in (entry / "cmdline").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found


def _end(number: int, socket: Path) -> None:
    """:raises DriverError: it cannot be ended."""
    for sign, patience in ((signal.SIGTERM, _PATIENCE), (signal.SIGKILL, _PATIENCE)):
        with os_errors(socket, "end what reads the point at"), suppress(ProcessLookupError):
            os.kill(number, sign)
        deadline = monotonic() + patience
        while process_is_alive(number):
            if monotonic() > deadline:
                break
            sleep(0.01)
        else:
            return
    raise DriverError("what reads the point does not end", subject=str(socket), hint=f"kill -9 {number}")
