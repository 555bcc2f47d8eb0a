"""Random histories of writes and snapshots, whose every operation may be killed: vmhost, libvirtd or QEMU.

After each step, once the next command has settled what was left, every byte of now and of all snapshots is as a plain
array of bytes says, and no file is there that nobody knows. ``make test-full`` takes longer histories.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from threading import Event
from time import monotonic

import pytest

from tests.labfixture import InLab
from tests.snapshots.written import DISKS, Written
from vmhost.ops.host import Host

pytestmark = [pytest.mark.backup, pytest.mark.timeout(3000)]

STEPS, ALL_STEPS = 15, 300
CALLS = 60
"""No operation makes more calls than that; a number above is one that is not killed."""


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_every_byte_survives_a_random_history(snaphost: Host, lab: InLab, firmware: str, full_run: bool) -> None:
    seed = int(os.environ.get("VMHOST_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
    chance = random.Random(seed)
    guest = Written(snaphost, lab, "history", firmware)
    guest.create()
    for step in range(ALL_STEPS if full_run else STEPS):
        _write(guest, chance)
        told = _operate(guest, chance, step)
        guest.check(f"seed {seed}, step {step}: {told}")
        if not guest.running:
            snaphost.power(["history"], "start")
        guest.pause()


def _write(guest: Written, chance: random.Random) -> None:
    for _ in range(chance.randrange(1, 4)):
        guest.write(chance.choice(DISKS), chance.randrange(32), chance.randrange(1, 256))


def _operate(guest: Written, chance: random.Random, step: int) -> str:
    """Do one operation, struck or not; bring what must be to what came of it; return what was done, in words."""
    names = sorted(guest.then)
    operation = chance.choice(["create", "create", "revert", "delete", "delete"]) if names else "create"
    if operation == "create" and len(names) > 5:
        operation = "delete"
    name = f"s{step}" if operation == "create" else chance.choice(names)
    blow = chance.choice(["vmhost", "vmhost", "libvirtd", "QEMU", ""])
    words = f"{operation} {name}, SIGKILL of {blow or 'nobody'}"
    if operation == "create":
        guest.keep(name)
    before = {disk: bytes(data) for disk, data in guest.now.items()}
    told = _struck(guest, operation, name, blow, chance)
    guest.host.recover()
    rows = {row.name: row for row in guest.host.snapshots.list(guest.name)}
    assert all(row.state == "whole" for row in rows.values()), f"{words}: {told}"
    if operation == "create" and name not in rows:
        del guest.then[name]
    if operation == "delete" and name not in rows:
        del guest.then[name]
    for safety in rows.keys() - guest.then.keys():
        assert operation == "revert", words
        guest.then[safety] = before
        guest.now = {disk: bytearray(data) for disk, data in guest.then[name].items()}
    return f"{words}: {told}"


def _struck(guest: Written, operation: str, name: str, blow: str, chance: random.Random) -> str:
    """Run the operation in a process of its own, and strike somebody meanwhile; return what it said."""
    number = str(chance.randrange(CALLS)) if blow == "vmhost" else "-1"
    how = chance.choice(["kill-before", "kill-after"])
    argv = (sys.executable, "-m", "tests.snapshots.victim", operation, guest.name, name, number, how)
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as process:
        if blow in ("libvirtd", "QEMU"):
            _strike(guest, blow, chance.random() * 1.2, process)
        told = process.communicate(timeout=120)[1]
    if blow == "libvirtd":
        guest.lab.restart_libvirtd()  # a command may have found none in between
    return f"exit {process.returncode}: {told.strip()[-300:]}"


def _strike(guest: Written, blow: str, seconds: float, process: subprocess.Popen[str]) -> None:
    """Kill libvirtd, or the guest's QEMU, a while after the operation began; either may have ended by then."""
    pid = _qemu(guest) if blow == "QEMU" else None
    deadline = monotonic() + seconds
    while process.poll() is None and monotonic() < deadline:
        Event().wait(0.005)
    if blow == "libvirtd":
        guest.lab.restart_libvirtd(kill=True)
    elif pid is not None and _qemu(guest) == pid:
        with suppress(ProcessLookupError):  # it ended since
            os.kill(pid, signal.SIGKILL)


def _qemu(guest: Written) -> int | None:
    """The process id of the guest's QEMU; None: libvirt says that there is none, or is just writing it down."""
    try:
        return int(Path(f"/run/libvirt/qemu/{guest.name}.pid").read_text())
    except (FileNotFoundError, ValueError):
        return None
