"""What a guest itself says while it is changed: how long it runs, and what it has of what it was given."""

from __future__ import annotations

import os
import re
import tty
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
from lxml.etree import fromstring

from tests.contract.backends import eventually
from tests.labfixture import InLab
from tests.placer.test_real import apply, held
from tests.terminal import Typist
from vmhost.drivers.command import run
from vmhost.ops.host import Host

pytestmark = [pytest.mark.lab, pytest.mark.timeout(240)]

ROOT = Path(__file__).parents[2]
MIB = 1 << 20
BOOT = """\
  <os>
    <type arch='{{{{ arch }}}}' machine='{{{{ machine }}}}'>hvm</type>
    <kernel>{files}/kernel</kernel>
    <initrd>{files}/initrd</initrd>
    <cmdline>console=ttyS0 quiet mitigations=off nokaslr cryptomgr.notests</cmdline>
  </os>
"""
SITE = "speaker: {cpus: {count: %s, max: 2%s}, memory: {size: %s, max: 512M}, disks: [{size: 512M}]}"


@pytest.fixture
def small_guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guests boot the small guest's kernel directly: an override of one part of the domain's template."""
    files = run([str(ROOT / "scripts/small-guest")], timeout=300).text.strip()
    part = tmp_path / "config" / "domain_templates" / "parts" / "boot.xml.j2"
    part.parent.mkdir(parents=True)
    part.write_text(BOOT.format(files=files))
    monkeypatch.setenv("VMHOST_CONFIG_DIR", str(tmp_path / "config"))


@dataclass
class Speaking:
    """A shell on a guest's serial console."""

    typist: Typist

    def ask(self, command: str) -> str:
        """Run a command there and return what it says."""
        begin, end = (uuid4().hex for _ in range(2))
        # The halves keep what is typed, should it be echoed, from being taken for the answer.
        self.typist.type(f"echo {begin[:16]}''{begin[16:]}; {command}; echo {end[:16]}''{end[16:]}\n")
        self.typist.until(begin)
        start = len(self.typist.seen[: self.typist.seen.rindex(begin)]) + len(begin)
        self.typist.until(end, seconds=60)
        return self.typist.seen[start : self.typist.seen.rindex(end)].strip()

    def number(self, command: str) -> int:
        return int(self.ask(command))

    @property
    def uptime(self) -> float:
        return float(self.ask("cut -d' ' -f1 /proc/uptime"))

    @property
    def boot_id(self) -> str:
        return self.ask("cat /proc/sys/kernel/random/boot_id")

    @property
    def memory(self) -> int:
        return self.number("awk '/MemTotal/ {print $2}' /proc/meminfo") * 1024


@pytest.fixture
def speaking(small_guest: None, placed_host: Host, lab: InLab) -> Iterator[Speaking]:
    """A guest that vmhost made, with a shell to ask it."""
    del small_guest
    apply(placed_host, SITE % (1, "", "256M"))
    root = fromstring(lab.virsh("dumpxml", "speaker").text)
    log, console = root.find("devices/serial/log"), root.find("devices/serial/source")
    assert log is not None
    assert console is not None
    said = Path(log.get("file", ""))
    assert eventually(lambda: "small guest: ready" in said.read_text(errors="replace"), seconds=120)
    terminal = os.open(console.get("path", ""), os.O_RDWR | os.O_NOCTTY)
    try:
        tty.setraw(terminal)
        yield Speaking(Typist(0, terminal))
    finally:
        os.close(terminal)


def test_a_guest_runs_on_and_uses_what_it_is_given_while_it_is_changed(speaking: Speaking, placed_host: Host) -> None:
    boot, start, pid = speaking.boot_id, speaking.uptime, held(placed_host, "speaker").pid
    assert re.fullmatch(r"[0-9a-f-]{36}", boot)
    assert speaking.number("nproc") == 1
    first = speaking.memory

    # a quota, pCPUs of its own, one vCPU and a memory module more: the guest's system has to bring both online
    for more in (", limit: 0.9", ", policy: dedicated, pins: {0: 1}", ""):
        apply(placed_host, SITE % (1, more, "256M"))
        assert speaking.boot_id == boot
    apply(placed_host, SITE % (2, "", "512M"))
    assert speaking.ask("cat /sys/devices/system/cpu/online") == "0"
    speaking.ask("echo 1 > /sys/devices/system/cpu/cpu1/online")
    assert speaking.number("nproc") == 2
    blocks = "/sys/devices/system/memory/memory*/state"
    assert speaking.number(f"grep -l offline {blocks} | wc -l") == 2
    speaking.ask(f"for block in {blocks}; do echo online > $block; done 2>&1")
    assert speaking.memory >= first + 250 * MIB

    # it fills its memory with what it has read; the balloon makes QEMU give that back to the host
    speaking.ask("dd if=/dev/vda of=/dev/null bs=1M count=400 2>&1")
    assert eventually(lambda: held(placed_host, "speaker").resident > 400 * MIB)
    full = held(placed_host, "speaker").resident
    done = apply(placed_host, SITE % (2, "", "160M"))
    assert "balloon 512M -> 160M" in done
    assert eventually(lambda: held(placed_host, "speaker").resident < full - 200 * MIB, seconds=90)
    assert eventually(lambda: speaking.memory < 170 * MIB)

    assert (held(placed_host, "speaker").pid, speaking.boot_id) == (pid, boot)
    assert speaking.uptime > start
    assert speaking.number("nproc") == 2
