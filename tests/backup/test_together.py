"""Several guests at once, within what they may copy a second together."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.backup.conftest import SITE, disks_of
from tests.backup.writing import Paused, held
from tests.contract.backends import eventually
from tests.labfixture import InLab
from tests.reliability.scene import told, vmhost
from vmhost.model.permit import Permit
from vmhost.ops.backups import raise_failures
from vmhost.ops.host import Host
from vmhost.ops.sites import parse_site

pytestmark = pytest.mark.backup

NAMES = ("one", "two", "three")
MIB = 1 << 20
DATA, RATE = 6 * MIB, 12 * MIB
"""Bytes that each guest's disk gets, and bytes a second that all may copy together."""


@pytest.fixture
def guests(connected: Host, lab: InLab) -> Iterator[list[Paused]]:
    """Three guests that run no instruction."""
    head, _, small = SITE.partition("  small:\n")
    connected.apply(connected.plan(parse_site(head + "".join(f"  {name}:\n{small}" for name in NAMES))))
    found = []
    for name in NAMES:
        lab.virsh("start", "--paused", name)
        found.append(Paused(lab, name, dict(disks_of(connected, name))))
    yield found
    files = [Path(path) for guest in found for path in guest.files.values()]
    connected.apply(connected.plan_delete(list(NAMES), Permit(power_off=True, disks=True)))
    for path in files:
        for left in path.parent.glob(f"{path.name}*"):
            left.unlink()


def test_guests_side_by_side_keep_to_their_rate_together(
    guests: list[Paused], connected: Host, repository: str, tmp_path: Path, lab: InLab
) -> None:
    points = {}
    for turn, kind in enumerate(("full", "incremental")):
        for guest in guests:
            guest.write("root", 65 + turn, MIB, DATA)
        instants = {guest.name: guest.hashes() for guest in guests}
        began = time.monotonic()
        results = connected.backups.run(NAMES, repository=repository, at_once=3, rate=RATE)
        seconds = time.monotonic() - began
        raise_failures(results)
        points = {result.name: result.point for result in results}
        assert {point.kind for point in points.values() if point} == {kind}
        if kind == "full":  # QEMU may have written a small increment before it hears of the rate
            assert seconds > 3 * DATA / RATE / 2, f"{seconds:.2f} s"  # half: a copier begins with a burst
    for guest in guests:
        point = points[guest.name]
        assert point is not None
        (place,) = Path(repository).glob(f"hosts/*/guests/{point.ref.guest}/points/{point.id}")
        assert {disk: held(place / f"{disk}.qcow2", tmp_path) for disk in guest.files} == instants[guest.name]
        assert "None" in lab.virsh("domjobinfo", guest.name).text


def test_runs_of_several_processes_keep_to_their_rate_together(
    guests: list[Paused], connected: Host, repository: str, lab: InLab
) -> None:
    """While others copy what all may copy, a run has begun nothing: no instant, no job, no point."""
    guests[0].write("root", 65, MIB, DATA)
    tickets = connected.ports.layout.runtime / "locks"
    words = ("backup", "run", "one", "--rate", str(RATE), "--repository", repository)
    with ThreadPoolExecutor(1) as pool:
        with connected.ports.locks.budget(RATE, RATE):
            waiting = pool.submit(vmhost, *words)
            assert eventually(lambda: len(list(tickets.glob("budget-*"))) == 2 or waiting.done())
            assert not waiting.done(), told(waiting.result())
            assert vmhost("backup", "run", "two", "--rate", "0", "--repository", repository).code == 0
            assert not waiting.done()
            assert "None" in lab.virsh("domjobinfo", "one").text
            assert [point.name for point in connected.backups.list(repository=repository)] == ["two"]
        done = waiting.result()
    assert done.code == 0, told(done)
    assert "12M a second; waiting" in told(done)
    assert [point.name for point in connected.backups.list(repository=repository)] == ["one", "two"]
    assert list(tickets.glob("budget-*")) == []
