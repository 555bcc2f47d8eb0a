"""Small guests (``scripts/small-guest``) that vmhost made, and the shell on their serial consoles."""

from __future__ import annotations

import os
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
from lxml.etree import fromstring

from tests.contract.backends import eventually
from tests.labfixture import InLab
from tests.terminal import Typist
from vmhost.drivers.command import run

ROOT = Path(__file__).parents[1]
READY = "small guest: ready"
HELLO, HEARD = "\nexpr 2500 + 1\n", "2501"
"""What a shell is asked until it answers: while it starts it loses some of what is typed, and must not wait for it."""
BOOT = """\
  <os>
    <type arch='{{{{ arch }}}}' machine='{{{{ machine }}}}'>hvm</type>
    <kernel>{files}/kernel</kernel>
    <initrd>{files}/initrd</initrd>
    <cmdline>console=ttyS0 quiet mitigations=off nokaslr cryptomgr.notests {words}</cmdline>
  </os>
"""


def boot_small_guests(scratch: Path, monkeypatch: pytest.MonkeyPatch, words: str = "") -> None:
    """Let guests boot the small guest's kernel directly: an override of one part of the domain's template.

    :param words: more for its kernel's command line.
    """
    files = run([str(ROOT / "scripts/small-guest")], timeout=300).text.strip()
    part = scratch / "config" / "domain_templates" / "parts" / "boot.xml.j2"
    part.parent.mkdir(parents=True)
    part.write_text(BOOT.format(files=files, words=words))
    monkeypatch.setenv("VMHOST_CONFIG_DIR", str(scratch / "config"))


@dataclass
class Speaking:
    """A shell on a guest's serial console; ``said`` is the file that holds all that the guest ever said there."""

    typist: Typist
    said: Path

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


@contextmanager
def spoken_with(lab: InLab, name: str) -> Iterator[Speaking]:
    """Wait until the shell of a guest that was started is there, and talk to it."""
    root = fromstring(lab.virsh("dumpxml", name).text)
    log, console = root.find("devices/serial/log"), root.find("devices/serial/source")
    assert log is not None
    assert console is not None
    said = Path(log.get("file", ""))
    assert eventually(lambda: READY in said.read_text(errors="replace"), seconds=120), said.read_text(errors="replace")
    terminal = os.open(console.get("path", ""), os.O_RDWR | os.O_NOCTTY)
    try:
        tty.setraw(terminal)
        typist = Typist(0, terminal)
        typist.type(HELLO)
        typist.until(HEARD, seconds=60, nudge=HELLO)
        yield Speaking(typist, said)
    finally:
        os.close(terminal)
