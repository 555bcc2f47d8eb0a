"""Drills of a guest that boots from its own disk: it comes back, or it does not, and nothing of it ever stays."""

from __future__ import annotations

import hashlib
import os
import random
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.backup import sealed
from tests.backup.conftest import disks_of
from tests.backup.test_kills import assert_killed, chosen, victim
from tests.conftest import FULL, FULL_LIMIT, SEED
from tests.labfixture import InLab
from tests.reliability.scene import told, vmhost
from vmhost.drivers.command import run
from vmhost.model.errors import DrillFailed
from vmhost.model.events import Event, StepDone, StepStarted, Undone
from vmhost.model.permit import Permit
from vmhost.ops.backups import raise_failures
from vmhost.ops.drills import DrillResult
from vmhost.ops.host import Host
from vmhost.ops.sites import parse_site

pytestmark = [pytest.mark.backup, pytest.mark.timeout(FULL_LIMIT if FULL else 300)]

SITE = """
apiVersion: vmhost/v1
name: drilled
bridges: {br-drilled: {address: 10.31.0.1/24}}
networks: {lan: {bridge: br-drilled, subnet: 10.31.0.0/24}}
guests:
  booting:
    image: tiny
    memory: 64M
    disks: [{size: 64M}, {size: 16M}]
    nics: [{network: lan, address: 10.31.0.7}]
    state: stopped
    ready: {by: none, timeout: 120}
    backup: {drill: {says: "the disk speaks"}}
"""
SPEAKS = (
    # xor ax,ax; mov ds,ax; mov si,0x7c00+21; next: lodsb; test al,al; jz end; mov dx,0x3f8; out dx,al; jmp next;
    # end: hlt; jmp end
    bytes.fromhex("31c0 8ed8 be157c ac 84c0 7406 baf803 ee ebf5 f4 ebfd") + b"the disk speaks\r\n\0"
)
"""A boot sector (real mode, 16 bits) that writes to the first serial port (16550 at 0x3f8)."""
STRUCK = 2
"""Moments of a drill at which others are killed in an ordinary run; a full run takes them all."""
POWERS_OFF = bytes.fromhex("ba0406 b80020 ef f4 ebfd")
"""One that powers the machine off, as a system that gives up: S5 into the PM1a control register of q35 (0x604)."""


@pytest.fixture
def booting(connected: Host, lab: InLab) -> Iterator[Path]:
    """A guest that is shut off, and whose first disk is bootable."""
    del lab
    connected.apply(connected.plan(parse_site(SITE)))
    disk = Path(dict(disks_of(connected, "booting"))["root"])
    write_boot_sector(disk, SPEAKS)
    yield disk
    connected.apply(connected.plan_delete(["booting"], Permit(disks=True)))


def write_boot_sector(disk: Path, code: bytes) -> None:
    """Write the first sector of a disk, with its signature."""
    sector = disk.with_name("sector")
    sector.write_bytes(code.ljust(510, b"\0") + b"\x55\xaa")
    run(["qemu-io", "-f", "qcow2", "-c", f"write -s {sector} 0 512", str(disk)], timeout=30)
    sector.unlink()


def left(lab: InLab, disk: Path) -> set[str]:
    """Everything that a drill could leave: domains, links, namespaces, processes, files."""
    links = {path.name for path in Path("/sys/class/net").iterdir()}
    spaces = {path.name for path in Path("/run/netns").glob("*")}
    words = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    servers = {"qemu-nbd" for line in words if line.startswith(b"qemu-nbd")}
    files = {str(path) for path in (*disk.parent.iterdir(), *Path("/var/lib/libvirt/qemu").glob("*.sock"))}
    logs = {str(path) for path in connected_logs()}
    return {*lab.virsh("list", "--all", "--name").text.split(), *links, *spaces, *servers, *files, *logs}


def connected_logs() -> Iterator[Path]:
    """The logs of serial consoles."""
    with Host() as host:
        yield from sorted(host.ports.layout.logs.glob("*.console.log*"))


def content(repository: str) -> dict[str, tuple[str, int]]:
    """The hash of every file of every point, and when it, its owner or its mode changed last."""
    files = (path for path in Path(repository).glob("hosts/*/guests/*/points/*/*") if path.is_file())
    return {str(path): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_ctime_ns) for path in files}


def test_a_point_comes_back_or_does_not_and_nothing_stays(
    booting: Path, repository: str, lab: InLab, connected: Host
) -> None:
    where = ("--repository", repository)
    assert vmhost("backup", "run", "booting", *where).code == 0
    before, points = left(lab, booting), content(repository)
    seen: list[tuple[bool, str]] = []
    minds: list[set[str]] = []

    def look(event: Event) -> None:
        if isinstance(event, StepStarted) and "wait until" in event.why:
            (name,) = [one for one in lab.virsh("list", "--name").text.split() if one.startswith("vmhost-drill-")]
            (tap,) = [line.split()[0] for line in lab.virsh("domiflist", name).text.splitlines()]
            bridge = Path(f"/sys/class/net/{tap}/master").resolve()
            (space,) = [path.name for path in Path("/run/netns").glob(f"vmhost-{bridge.name}-*")]
            inside = run(["ip", "netns", "exec", space, "ip", "-brief", "address"], timeout=30).text
            outside = run(["ip", "-brief", "address", "show", "dev", bridge.name], timeout=30).text
            seen.append(("10.31.0.1/24" in inside and "10.31." not in outside, lab.virsh("dumpxml", name).text))
            ways = (space, bridge.name, "10.31.0.7", "10.31.0.1")
            minds.append(sealed.minded(*ways))
            with sealed.settings("all", {"rp_filter": 0}), sealed.settings(bridge.name, sealed.OPEN):
                minds.append(sealed.minded(*ways))

    (result,) = connected.backups.drills.run(["booting"], repository=repository, on_event=look)
    assert result.error is None, result.error
    assert result.drill is not None
    assert any("the disk speaks" in line for line in result.drill.console)
    ((apart, xml),) = seen
    assert apart, "it is reached from a namespace of its own, and nobody else is on its bridge"
    everything = {"answers for 10.31.0.1", f"answers for {sealed.BEYOND}", "is delivered", "is forwarded"}
    assert minds == [set(), everything], "the host is nobody there, but for a bridge that is opened"
    assert ":drill " in xml
    assert repository not in xml, "QEMU has no path to the repository"
    assert left(lab, booting) == before
    assert content(repository) == points, "not a byte of the points changed, nor an owner"

    write_boot_sector(booting, POWERS_OFF)
    assert vmhost("backup", "run", "booting", *where).code == 0
    failed = vmhost("backup", "drill", "booting", *where)
    assert failed.code == 12, told(failed)
    assert "stopped before it was ready" in told(failed)
    good = vmhost("backup", "drill", "booting", "--oldest", *where)
    assert good.code == 0, told(good)
    assert "it came back" in good.text

    newest = vmhost("backup", "list", "booting", *where, "-o", "name").text.split()[-1]
    (file,) = Path(repository).glob(f"hosts/*/guests/*/points/{newest}/root.qcow2")
    with file.open("r+b") as opened:
        opened.seek(file.stat().st_size // 2)
        opened.write(b"flip")
    with pytest.raises(DrillFailed, match="damaged"):
        raise connected.backups.drills.run(["booting"], repository=repository)[0].error or AssertionError
    assert left(lab, booting) == before
    drills = connected.backups.drills.history()
    assert [bool(drill.failed) for drill in drills[-4:]] == [False, True, False, True]


def test_a_drill_is_killed(booting: Path, repository: str, lab: InLab, connected: Host, full_run: bool) -> None:
    (result,) = connected.backups.run(["booting"], repository=repository)
    assert result.error is None
    before = left(lab, booting)
    calls = int(victim("drill", repository, -1, "count", guest="booting").text)
    places = chosen(calls, full_run, "drill")
    for number, place in places if full_run else places[::2]:
        assert_killed(victim("drill", repository, number, place, guest="booting"))
        done = vmhost("recover")
        assert done.code == 0, told(done)
        assert left(lab, booting) == before, f"{number} {place}"


def drilled_qemu(lab: InLab) -> int:
    """The process id of the QEMU of a drill that runs, or 0."""
    names = [name for name in lab.virsh("list", "--name").text.split() if name.startswith("vmhost-drill-")]
    file = Path(f"/run/libvirt/qemu/{names[0]}.pid") if names else Path("/nonexistent")
    return int(file.read_text()) if file.exists() else 0


@pytest.mark.parametrize("who", ["libvirtd", "a libvirtd that stays away", "qemu"])
def test_the_other_side_is_killed_during_a_drill(
    booting: Path, repository: str, lab: InLab, connected: Host, who: str, full_run: bool
) -> None:
    """At moments of the printed seed, or at all: the guest comes back or it does not, and nothing stays."""
    raise_failures(connected.backups.run(["booting"], repository=repository))
    before, points = left(lab, booting), content(repository)

    def drill(strike_at: int = -1) -> tuple[list[int], DrillResult]:
        """Drill, and strike at one moment; return the QEMU that there was at each of them, 0 for none."""
        moments: list[int] = []

        def look(event: Event) -> None:
            if not isinstance(event, StepStarted | StepDone | Undone):
                return
            moments.append(drilled_qemu(lab) if who == "qemu" else 1)
            if len(moments) - 1 != strike_at:
                return
            if who == "qemu":
                assert moments[-1], "it runs at this moment, as it did before"
                with suppress(ProcessLookupError):
                    os.kill(moments[-1], signal.SIGKILL)
            elif who == "libvirtd":
                lab.restart_libvirtd(kill=True)
            else:
                lab.stop_libvirtd(kill=True)

        (result,) = connected.backups.drills.run(["booting"], repository=repository, on_event=look)
        return moments, result

    calm, result = drill()
    assert result.error is None, result.error
    places = [number for number, struck in enumerate(calm) if struck]
    for place in places if full_run else sorted(random.Random(f"{SEED} {who}").sample(places, STRUCK)):
        moments, result = drill(place)
        assert len(moments) > place
        if who == "a libvirtd that stays away":
            lab.start_libvirtd()
        done = vmhost("recover")
        assert done.code == 0, f"{place}: {told(done)}"
        assert left(lab, booting) == before, f"{place}: {result}"
        assert content(repository) == points
        assert not connected.interrupted()
        assert {job.state for job in connected.ports.history.jobs(limit=5)} <= {"done", "failed"}, place
    _, result = drill()
    assert result.error is None, result.error
