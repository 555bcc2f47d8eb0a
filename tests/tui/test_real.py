"""A day of an operator on the real thing: keys in a real terminal, libvirt and QEMU below, and virsh as the witness.

Every screen that is looked at is kept below the test's directory, or in ``VMHOST_TUI_SCREENS``, as text and with its
colours (``cat NAME.ansi``).
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.labfixture import InLab
from tests.reliability.image import tiny_image
from tests.speaking import HEARD, HELLO, READY, boot_small_guests
from tests.tui.tmux import VMHOST, Tmux
from vmhost.drivers.command import run

pytestmark = [pytest.mark.lab, pytest.mark.full, pytest.mark.timeout(300)]

GUEST = "web-01"
SIZE = (120, 36)
HOST_FILE = """\
apiVersion: vmhost/v1
name: host
profiles:
  bare: {cpus: 1, memory: 128M, disks: [{size: 64M}], ready: {by: none}}
"""
NOTHING_YET = "nothing is done yet"


class Operator(Tmux):
    """Who sits at the terminal; the lab is what the keys act on."""

    def __init__(self, lab: InLab, directory: Path) -> None:
        super().__init__(directory, *SIZE)
        self.lab = lab
        self._screens = Path(os.environ.get("VMHOST_TUI_SCREENS") or directory / "screens")
        self._screens.mkdir(parents=True, exist_ok=True)
        self._taken = 0

    def sees(self, name: str, *words: str) -> str:
        """Wait for patterns, keep the screen under a name, and return it."""
        self.shows(*words)
        self._taken += 1
        screen, path = self.screen, self._screens / f"{self._taken:02}-{name}"
        path.with_suffix(".txt").write_text(f"{screen}\n")
        path.with_suffix(".ansi").write_text(self.run("capture-pane", "-p", "-e"))
        assert "Traceback" not in screen
        return screen

    def opens(self) -> None:
        self.type(f"{VMHOST} tui")
        self.keys("Enter")
        self.sees("empty", "this host has no guests yet: n plans a new one", r"\? help  q quit")

    def creates(self) -> None:
        """From the form of a new guest to its first word on the console."""
        self.keys("n")
        self.shows("new guest", "fills in what follows: small, medium, large, bare")
        self.type(GUEST)
        self.keys("Tab", "Tab")
        self.type("bare")
        self.sees("form", "it can be done: ", r"memory +128M ")
        self.keys("Enter")
        self.sees("plan", rf"\$ vmhost guest create {GUEST} --profile bare --image tiny", NOTHING_YET, "define")
        assert GUEST not in self.names()
        self.says_yes(f"new guest {GUEST}")
        self.keys("Escape")
        self.sees("running", rf"▸  {GUEST} +● running", "1 guest, 1 running")
        assert self.state() == "running"

    def says_yes(self, title: str) -> None:
        self.keys("y")
        self.shows(f"{title}.*: done", seconds=90.0)
        self.sees(f"done-{title.partition(' ')[0]}")

    def asks(self, command: str, answer: str) -> None:
        """Type at the guest's shell, on its console, and come back; what is typed before it has booted is lost."""
        self.keys("c")
        self.shows("Escape character is")
        deadline = time.monotonic() + 60
        while not re.search(rf"\b{HEARD}\b", self.screen):
            assert time.monotonic() < deadline, self.screen
            self.type(HELLO)
            self.waits(HEARD, seconds=3.0)
        self.type(f"clear; {command}\n")
        self.sees("console", answer)
        self.keys("C-]")
        self.shows("9 Console")

    def names(self) -> list[str]:
        return self.lab.virsh("list", "--all", "--name").text.split()

    def state(self) -> str:
        return self.lab.virsh("domstate", GUEST).text.strip()

    def disk(self) -> Path:
        """The file of the guest's root disk."""
        listed = self.lab.virsh("domblklist", GUEST).text
        return Path(next(line.split()[1] for line in listed.splitlines() if line.split()[:1] == ["vda"]))

    def loses_libvirt(self) -> None:
        """libvirtd dies under the screen, which stays, says so, and is true again by itself."""
        self.lab.stop_libvirtd(kill=True)
        self.sees("stale", "STALE: ", rf"{GUEST} +● running")
        self.keys("Down", "Up")
        self.lab.start_libvirtd()
        self.lacks("STALE")
        self.sees("back", rf"▸  {GUEST} +● running", "1 guest, 1 running")
        for command, word in (("suspend", "paused"), ("resume", "running")):  # events come again
            self.lab.virsh(command, GUEST)
            self.sees(word, f"{GUEST} +. {word}")

    def stops(self) -> None:
        self.keys("S")
        self.sees("stop", rf"\$ vmhost guest stop {GUEST}", NOTHING_YET)
        assert self.state() == "running"
        self.says_yes(f"shut down {GUEST}")
        assert self.state() == "shut off"

    def leaves(self) -> None:
        """The terminal is as it was."""
        self.keys("q")
        self.shows("shell>$")
        self.type("echo $?; stty -a | grep -c ' echo '")
        self.keys("Enter")
        self.shows(r"\n0\n1\nshell>")


@pytest.fixture
def operator(lab: InLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Operator]:
    """A shell in tmux in the lab, on a host without guests that has an image, a profile and a repository of its own."""
    boot_small_guests(tmp_path, monkeypatch, "button=poweroff")
    (tmp_path / "config" / "host.yaml").write_text(HOST_FILE)
    monkeypatch.setenv("VMHOST_BACKUPS_DIR", str(tmp_path / "backups"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    images = tmp_path / "images"
    images.mkdir()
    with tiny_image(images, "tiny"):
        made = Operator(lab, tmp_path)
        try:
            yield made
        finally:
            made.end()
            if GUEST in made.names():
                run([str(VMHOST), "guest", "delete", GUEST, "--power-off", "--disks", "--yes"], timeout=60)


def test_a_day_of_an_operator(operator: Operator, tmp_path: Path) -> None:
    operator.opens()
    operator.creates()

    # its console, read and written
    operator.keys("l")
    operator.sees("tail", "9 Console", READY)
    operator.asks("echo before >/dev/vda; sync; head -c 6 /dev/vda; echo $((40 + 2))", "before42")
    operator.sees("tail-after", "42")
    operator.keys("Escape")
    operator.shows("▸  ")

    operator.loses_libvirt()

    # other vCPUs and memory, at once
    operator.keys("e")
    operator.shows(f"resize {GUEST}", "nothing to do|it can be done")
    operator.keys("C-u")
    operator.type("2")
    operator.keys("Tab", "C-u")
    operator.type("192M")
    operator.sees("resize-form", "now 128M", "it can be done")
    operator.keys("Enter")
    operator.shows(rf"\$ vmhost guest resize --cpus 2 --memory 192M {GUEST}")
    operator.keys("b")
    operator.sees("resize-plan", r"\[x\] b", NOTHING_YET, "shut down|restart")
    operator.says_yes(f"resize {GUEST}")
    assert re.search(r"CPU\(s\): +2\n", operator.lab.virsh("dominfo", GUEST).text)
    operator.keys("Escape")
    operator.shows(rf"{GUEST} +● running +2 ")

    # a snapshot, something else on the disk, and back
    operator.keys("Enter")
    operator.shows("1 Overview")
    operator.keys("6")
    operator.sees("kept-nothing", "KEPT", "it has no point")
    operator.keys("N")
    operator.sees("snapshot-plan", rf"\$ vmhost snapshot create {GUEST}", NOTHING_YET)
    before = operator.disk()
    operator.says_yes(f"snapshot of {GUEST}")
    assert operator.disk() != before
    operator.keys("Escape")
    operator.sees("kept-snapshot", "KEPT", "snapshot +20")
    operator.asks("nproc; echo after. >/dev/vda; sync; head -c 6 /dev/vda", r"2\s+after\.")
    operator.keys("z")
    operator.shows(rf"\$ vmhost snapshot revert {GUEST} 20", "it runs")
    operator.keys("b")
    operator.sees("revert-plan", r"\[x\] b", NOTHING_YET)
    operator.says_yes(f"revert {GUEST}")
    operator.keys("Escape")
    operator.shows("KEPT")
    operator.asks("head -c 6 /dev/vda", "before")

    # a point of the running guest
    operator.keys("b")
    operator.sees("backup-plan", rf"\$ vmhost backup run {GUEST}", NOTHING_YET)
    operator.says_yes(f"back up {GUEST}")
    operator.keys("Escape")
    operator.sees("kept-point", "KEPT", "point +20")
    (point,) = (tmp_path / "backups").rglob("manifest.json")
    assert "root.qcow2" in {path.name for path in point.parent.iterdir()}

    operator.stops()
    operator.keys("Escape")
    operator.shows("9 Console")

    operator.keys("C-d")
    operator.shows(rf"\$ vmhost guest delete {GUEST}")
    operator.keys("x")
    operator.sees("delete-plan", r"\[x\] x", NOTHING_YET)
    disk = operator.disk()
    assert disk.exists()
    operator.says_yes(f"delete {GUEST}")
    assert GUEST not in operator.names()
    assert not disk.exists()
    operator.keys("Escape")
    operator.sees("gone", "this guest is gone")
    operator.keys("Escape")
    operator.sees("empty-again", "this host has no guests yet")
    places = {"backup": f"{GUEST}.*gone", "jobs": "delete", "host": "FINDINGS", "net": "  network  "}
    for place, words in places.items():
        operator.type(f":{place}")
        operator.keys("Enter")
        operator.sees(place, words)
    operator.leaves()
