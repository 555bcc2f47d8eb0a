"""Points that a guest boots from: qemu-nbd reads them and gives out what it reads.

So QEMU, and whoever breaks out of it, never has a file of the repository open, and libvirt changes no owner of one.
"""

from __future__ import annotations

import os
import signal
import stat
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Final

from vmhost.drivers.command import run
from vmhost.drivers.files import make_directory, os_errors, write_all
from vmhost.drivers.processes import process_is_alive
from vmhost.drivers.repository import checking, copying, places
from vmhost.model.errors import Absent, DriverError
from vmhost.model.points import PointRef

READERS: Final = "4"
"""Connections at a time: QEMU opens a disk more than once while it starts."""

_PATIENCE: Final = 10.0
_SOCKET: Final = "--socket="


def expose(ref: PointRef, file: str, socket: Path) -> None:
    """Start a server that reads a disk of a point; it lasts until :func:`conceal`.

    It is told each file that it opens: what a header says by now leads it nowhere.

    :raises DamagedData: a disk is not, or does not lie on, what its point says; :raises Refused: it lies on too many.
    """
    words = ["--fork", "--persistent", "--read-only", f"--shared={READERS}", "--cache=writeback"]
    tree = checking.tree(ref, file)
    make_directory(socket.parent)
    run(["qemu-nbd", *words, f"{_SOCKET}{socket}", f"json:{tree}"], timeout=60, cwd=places.points(ref))
    _give(socket)


def _give(socket: Path) -> None:
    """Let nobody connect but whose directory it is, as whom QEMU runs; he may have put something else there."""
    with os_errors(socket, "open"):
        handle = os.open(socket, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if not stat.S_ISSOCK(os.fstat(handle).st_mode):
                raise DriverError("it is no socket", subject=str(socket), hint=f"ls -l {socket}")
            whose, itself = socket.parent.stat(), f"/proc/self/fd/{handle}"
            Path(itself).chmod(0o600)
            if os.geteuid() == 0:
                os.chown(itself, whose.st_uid, whose.st_gid)
        finally:
            os.close(handle)


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
