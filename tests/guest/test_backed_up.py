"""Whole Debian guests that are backed up while they work, and come back in every way there is."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

import vmhost as library
from tests.contract.backends import eventually
from tests.guest.conftest import DEMO, Booted, vmhost
from tests.guest.protected import hands_in, inside, is_there, put, records, rows, who_is, writing
from tests.labfixture import InLab
from vmhost.drivers.command import run
from vmhost.model.events import Event, Notice, StepDone
from vmhost.model.points import Point
from vmhost.render.document import read

pytestmark = [pytest.mark.guest, DEMO, pytest.mark.full, pytest.mark.timeout(1500)]

COPY = "web-01-copy"
HOOK = "/etc/qemu/fsfreeze-hook"


@dataclass
class Kept:
    """A repository, and how many records were durable before the newest point of the guest that writes."""

    path: str
    durable: int = 0

    @property
    def where(self) -> tuple[str, str]:
        return ("--repository", self.path)


@pytest.fixture(scope="module")
def kept(booted: Booted, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    del booted
    yield Kept(str(tmp_path_factory.mktemp("kept") / "repository"))
    vmhost("guest", "delete", COPY, "--power-off", "--disks", "--yes", check=False, timeout=120)


def _nothing() -> None:
    """Nobody waits for a step."""


def take(guest: str, kept: Kept, *, at: str = "", act: Callable[[], None] = _nothing) -> tuple[Point, list[str]]:
    """Take a point of a guest, and return it with what was noticed; ``act`` is called when the step ``at`` is done."""
    said: list[str] = []

    def hear(event: Event) -> None:
        if isinstance(event, Notice):
            said.append(event.text)
        if isinstance(event, StepDone) and at and at in event.why:
            act()

    with library.connect() as host:
        (result,) = host.backups.run([guest], repository=kept.path, on_event=hear)
    assert result.error is None, result.error
    assert result.point is not None
    return result.point, said


def test_a_guest_with_a_database_is_backed_up_while_it_writes(kept: Kept) -> None:
    with writing("web-01") as writer:

        def frozen() -> None:
            kept.durable = writer.acknowledged

        point, said = take("web-01", kept, at="freeze its file systems", act=frozen)
        assert (point.kind, point.level, said) == ("full", "filesystem", [])
        assert kept.durable > 20
        assert writer.goes_on()

        inside("web-01", "mv", HOOK, f"{HOOK}.away")
        put("web-01", HOOK, '#!/bin/sh\necho "$1" >>/run/told\n', "755")
        point, said = take("web-01", kept, at="freeze its file systems", act=frozen)
        assert (point.kind, point.level, said) == ("incremental", "application", [])
        assert writer.goes_on()
    assert inside("web-01", "cat", "/run/told").split() == ["freeze", "thaw"]
    inside("web-01", "mv", f"{HOOK}.away", HOOK)
    assert not list(Path("/run/vmhost/frozen").iterdir()), "whoever watched over the freeze has ended"


def test_the_point_comes_back_as_another_guest(kept: Kept, booted: Booted, lab: InLab) -> None:
    was = who_is("web-01")
    words = ("backup", "restore", "web-01", "--as", COPY, "--site", str(booted.site), "--yes", *kept.where)
    done = vmhost(*words, timeout=900)
    assert f"{COPY}: cloud-init done" in done.stderr.decode()
    now = who_is(COPY)
    assert not set(was.values()) & set(now.values()), (was, now)
    assert now["hostname"] == COPY
    xml = lab.virsh("dumpxml", COPY).text
    assert all(now[name] in xml for name in ("host key", "MAC", "address", "instance"))
    assert now["UUID"].lower() in xml
    assert records(COPY) >= kept.durable
    assert who_is("web-01") == was
    assert records("web-01") >= records(COPY)
    assert vmhost("guest", "list").text.count("running") >= 3


def steps_of(readme: str) -> list[str]:
    """The lines that the README tells somebody to type, in their order."""
    return re.findall(r"^ {4}(\S.*)", readme.partition("## Restoring by hand")[2], re.MULTILINE)


def points_from(directory: Path) -> Iterator[Path]:
    """Yield a point and every one below it, as the README says to find them."""
    while True:
        yield directory
        parent = json.loads((directory / "manifest.json").read_text())["data"]["parent"]
        if not parent:
            return
        directory = directory.parent / parent


def test_the_readme_followed_by_hand_gives_the_same_guest(kept: Kept, lab: InLab) -> None:
    take(COPY, kept)
    was, held = who_is(COPY), records(COPY)
    with writing(COPY):
        point, _ = take(COPY, kept)
    assert point.kind == "incremental"
    vmhost("guest", "delete", COPY, "--power-off", "--disks", "--yes", timeout=120)
    assert COPY not in lab.virsh("list", "--all", "--name").text

    root = Path(kept.path)
    place = f"hosts/{point.ref.host}/guests/{point.ref.guest}/points/{point.ref.id}"
    definition = read((root / place / "domain.xml").read_text())
    files = [disk.attrib["file"] for disk in definition.findall("devices/disk/source")]
    disk, seed = (next(file for file in files if file.endswith(end)) for end in (".qcow2", ".iso"))
    assert not Path(disk).exists()
    assert not Path(seed).exists()
    typed = steps_of((root / "README.md").read_text())
    assert {line.split()[0] for line in typed} == {"cd", "sha256sum", "qemu-img", "cp", "virsh"}
    names = {
        "hosts/HOST/guests/UUID/points/POINT": place,
        "/var/lib/libvirt/images/DISK.qcow2": disk,
        "/var/lib/libvirt/images/SEED.iso": seed,
        "DISK.qcow2": "root.qcow2",
        "GUEST": COPY,
    }
    for line in typed:
        if "nvram.fd" in line:
            continue  # it boots by BIOS
        words = line
        for name, value in names.items():
            words = words.replace(name, shlex.quote(value))
        if words.startswith("cd "):
            root /= words.split()[1]
            continue
        for directory in points_from(root) if words.startswith("sha256sum") else (root,):
            run(["sh", "-ec", words], timeout=120, cwd=directory)

    assert is_there(COPY)
    assert who_is(COPY) == was
    assert records(COPY) > held
    assert inside(COPY, "cloud-init", "status", "--wait", check=False).strip().endswith("status: done")


VARIABLE = "/sys/firmware/efi/efivars/VmhostTest-5b1f77e2-9c1d-4a31-8f0e-2f7a60c1d9aa"
WRITE_VARIABLE = f"chattr -i {VARIABLE} 2>/dev/null || true; printf '\\007\\000\\000\\000%s' \"$0\" >{VARIABLE}"


def variable() -> bytes:
    return vmhost("guest", "exec", "db-01", "--sudo", "--", "cat", VARIABLE, timeout=120).stdout[4:]


def test_a_guest_that_runs_is_shut_down_for_its_restore_and_uefis_variables_go_back(kept: Kept, lab: InLab) -> None:
    inside("db-01", "sh", "-c", WRITE_VARIABLE, "then")
    assert variable() == b"then"
    point, _ = take("db-01", kept)
    assert point.nvram == "nvram.fd"
    inside("db-01", "sh", "-c", WRITE_VARIABLE, "now")
    inside("db-01", "sh", "-c", "echo later >/srv/later; sync")
    log = Path("/var/log/libvirt/qemu/db-01.log")
    before = log.read_text().count("reason=")

    vmhost("backup", "restore", "db-01", "--in-place", "--allow-stop", "--yes", *kept.where, timeout=600)
    ends = re.findall(r"reason=(\S+)", log.read_text())[before:]
    assert ends == ["shutdown"], "its power was not taken away"
    assert is_there("db-01")
    assert variable() == b"then"
    assert inside("db-01", "sh", "-c", "test -e /srv/later || echo gone").strip() == "gone"
    disks = [Path(line.split()[-1]) for line in lab.virsh("domblklist", "db-01").text.splitlines()]
    root = next(disk for disk in disks if disk.suffix == ".qcow2")
    assert len(list(root.parent.glob(f"{root.name}.before-*"))) == 2, "its disk and its variables"
    assert not list(root.parent.glob("*.restored-*"))
    vmhost("backup", "confirm", "db-01", "--yes")
    assert not list(root.parent.glob(f"{root.name}.before-*"))


def test_an_agent_that_is_gone_or_hangs_costs_the_level_and_nothing_else(kept: Kept) -> None:
    inside("web-01", "systemctl", "stop", "qemu-guest-agent")
    point, _ = take("web-01", kept)
    assert point.level == "crash"
    inside("web-01", "systemctl", "start", "qemu-guest-agent")
    with hands_in("web-01") as hands:
        hands.do("SIGSTOP")
        point, said = take("web-01", kept)
        assert point.level == "crash"
        assert any("not quiesced" in text for text in said)
        hands.do("write")
        hands.do("SIGCONT")


@pytest.mark.parametrize("how", ["SIGKILL", "SIGSTOP"])
def test_an_agent_that_ends_or_hangs_between_freeze_and_thaw_leaves_no_frozen_guest(kept: Kept, how: str) -> None:
    with hands_in("web-01") as hands:
        point, _ = take("web-01", kept, at="freeze its file systems", act=lambda: hands.do(how))
        hands.do("write")
    assert point.level in ("filesystem", "crash")
    assert not any("FROZEN" in str(row["flags"]) for row in rows("guest", "list"))
    assert eventually(lambda: take("web-01", kept)[0].level == "filesystem", seconds=120), "the agent is back"


@contextmanager
def foreign(guest: str) -> Iterator[None]:
    """Let a guest be as those of foreign images are: its agent freezes without a dead-man beside it."""
    agent = "systemctl restart qemu-guest-agent"
    inside(guest, "sh", "-c", f"mv /etc/qemu/qemu-ga.conf /etc/qemu/away; {agent}")
    try:
        yield
    finally:
        inside(guest, "sh", "-c", f"mv /etc/qemu/away /etc/qemu/qemu-ga.conf; {agent}")


def test_a_foreign_guest_whose_agent_hangs_when_it_should_thaw_is_thawed_over_ssh(kept: Kept) -> None:
    with foreign("web-01"), hands_in("web-01") as hands:
        assert eventually(lambda: take("web-01", kept)[0].level == "filesystem", seconds=60)
        point, _ = take("web-01", kept, at="freeze its file systems", act=lambda: hands.do("SIGSTOP"))
        assert point.level == "filesystem", "it was frozen at that instant"
        hands.do("write")
        assert not any("FROZEN" in str(row["flags"]) for row in rows("guest", "list"))
        hands.do("SIGCONT")
        assert eventually(lambda: take("web-01", kept)[0].level == "filesystem", seconds=120), "the agent is back"


STRUCK = """
import os, sys
import vmhost
from vmhost.model.events import StepDone

def hear(event):
    if isinstance(event, StepDone) and "freeze its file systems" in event.why:
        print("frozen", flush=True)
        os.kill(os.getpid(), int(sys.argv[2]))

with vmhost.connect() as host:
    host.backups.run(["web-01"], repository=sys.argv[1], on_event=hear)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_foreign_guest_is_thawed_though_vmhost_was_killed_or_hangs(kept: Kept, how: signal.Signals) -> None:
    with foreign("web-01"), hands_in("web-01") as hands:
        assert eventually(lambda: take("web-01", kept)[0].level == "filesystem", seconds=60)
        argv = [sys.executable, "-c", STRUCK, kept.path, str(int(how))]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as struck:
            try:
                assert struck.stdout is not None
                assert struck.stdout.readline() == "frozen\n"
                hands.do("write")
                assert list(Path("/var/lib/vmhost/journal").iterdir()), "nobody has recovered yet"
            finally:
                os.kill(struck.pid, signal.SIGKILL)
        vmhost("recover", timeout=120)
        point, _ = take("web-01", kept)
        assert point.level == "filesystem"
