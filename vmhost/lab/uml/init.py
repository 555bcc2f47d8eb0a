"""PID 1 of a lab with a kernel of its own: brings up the hypervisor, serves the lines and buries orphans."""

from __future__ import annotations

import os
import shutil
import signal
import tty
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NoReturn

from vmhost.drivers.command import run
from vmhost.lab import cache, store, tree
from vmhost.lab.cgroups import Hierarchy
from vmhost.lab.init import begin
from vmhost.lab.store import Lab
from vmhost.lab.uml.agent import Agent
from vmhost.lab.uml.line import LINES
from vmhost.lab.uml.start import MODULES, READY

WANTED: Final = ("tun", "bridge", "8021q", "veth")
"""Modules that are there from the beginning; others are loaded when something asks for them."""

_CGROUPS: Final = (Hierarchy(Path("/sys/fs/cgroup"), 2),)
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_KERNEL: Final = Path("/run/vmhost-kernel")


def main(arguments: Sequence[str]) -> NoReturn:
    """``DIRECTORY``: be the first program of that lab."""
    os.environ["PATH"] = _PATH
    os.umask(0o022)
    with suppress(OSError):
        run(["mount", "-t", "proc", "proc", "/proc"], timeout=30)
    lab = store.read(Path(arguments[0]))
    # Opened before the lab's own /dev hides them: nobody else in it is to have them.
    lines = [_line(number) for number in range(LINES)]
    try:
        _bring_up(lab)
    except BaseException as error:  # noqa: BLE001 - there is nobody else to tell it to
        os.write(lines[0], " ".join(str(error).split()).encode() + b"\n")
        _halt()
    os.write(lines[0], READY)
    for line in lines:
        if os.fork() == 0:
            Agent(line).run()
    _reap()


def _line(number: int) -> int:
    line = os.open(f"/dev/ttyS{number}", os.O_RDWR | os.O_NOCTTY)
    tty.setraw(line)
    return line


def _bring_up(lab: Lab) -> None:
    # On disk the lab would write as the user who started it, who may not own files as others.
    run(["mount", "-t", "tmpfs", "-o", "mode=755", lab.source, str(lab.disk)], timeout=30)
    tree.make_disk(lab)
    lent = cache.place(lab)
    if lent.is_dir():
        shutil.copytree(lent, lab.disk / cache.CAPABILITIES)
    run([_loader(lab.disk / "kernel"), "--all", *WANTED], timeout=60)
    tree.mount_all(lab, _CGROUPS)
    os.chdir("/")
    Path("/proc/sys/kernel/modprobe").write_text(_loader(_KERNEL))
    begin(lab)


def _loader(place: Path) -> str:
    """Make a program that loads modules: the machine's own directory of modules belongs to another kernel."""
    (place / "lib").mkdir(parents=True)
    (place / "lib/modules").symlink_to(MODULES)
    program = place / "modprobe"
    program.write_text(f'#!/bin/sh\nexec /sbin/modprobe -d {place} "$@"\n')
    program.chmod(0o755)
    return str(program)


def _reap() -> NoReturn:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    while True:
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        signal.sigwaitinfo({signal.SIGCHLD})


def _halt() -> NoReturn:
    # The end of PID 1 is a panic, and panic=-1 ends the kernel at once.
    os._exit(1)
