"""virtlogd and libvirtd inside a lab."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from vmhost.drivers.command import ProcessWatch, run
from vmhost.lab.enter import inside
from vmhost.model.errors import DriverError, Refused, VmhostError

URI = "qemu:///system"

_PIDFILE = Path("/run/libvirtd.pid")
_START = 60.0
_STOP = 60.0  # on SIGTERM libvirtd gives what is under way 30 s


def start() -> None:
    """Start the lab's virtlogd and libvirtd; returns when libvirt answers."""
    run(["virtlogd", "--daemon"], timeout=_START)
    start_libvirtd()


def start_libvirtd() -> None:
    """Start libvirtd and wait for its first answer.

    It returns from its start when its sockets listen; a call on one of them is then answered when its drivers are up.
    """
    run(["libvirtd", "--daemon"], timeout=_START)
    run(["virsh", "--connect", URI, "--quiet", "uri"], timeout=_START)


def stop_libvirtd(kill: bool = False) -> None:
    """End libvirtd and wait until it has ended; guests run on.

    :param kill: True: without giving it a chance to tidy up (SIGKILL).
    :raises Refused: we are not in a lab.
    """
    if inside() is None:
        raise Refused("the machine's own libvirtd is not ours to stop", subject="libvirtd", hint="vmhost lab shell")
    try:
        pid = int(_PIDFILE.read_text())
        watch = ProcessWatch(pid)
    except (FileNotFoundError, ValueError, ProcessLookupError):
        return
    with watch:
        if not _is_libvirtd(pid):
            return
        watch.send(signal.SIGKILL if kill else signal.SIGTERM)
        if not watch.ended(_STOP):
            raise DriverError(f"still runs {_STOP:g} s after SIGTERM", subject="libvirtd", retryable=True)


def _is_libvirtd(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() == "libvirtd"
    except (FileNotFoundError, ProcessLookupError):  # it has ended since
        return False


def restart_libvirtd(kill: bool = False) -> None:
    """End libvirtd and start it again; guests run on, and libvirt knows them again when this returns.

    :param kill: True: end it by SIGKILL, as a crash would.
    :raises Refused: we are not in a lab.
    """
    stop_libvirtd(kill)
    start_libvirtd()


def main(arguments: Sequence[str]) -> int:
    """``restart [kill]``: restart the libvirtd of the lab that we are in."""
    try:
        restart_libvirtd(kill="kill" in arguments[1:])
    except VmhostError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0
