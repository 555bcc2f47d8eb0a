"""SIGKILL of libvirtd and QEMU at every moment of a backup and a restore: no point is harmed, the next run heals."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from tests.backup.test_chain import back_up, of_two_instants, scribble
from tests.backup.writing import Kept, Paused, held_by_point
from tests.conftest import FULL, FULL_LIMIT, SEED
from tests.labfixture import InLab
from vmhost.drivers.command import run
from vmhost.model.errors import VmhostError
from vmhost.model.events import Event, StepDone, StepStarted, Undone
from vmhost.ops.host import Host

pytestmark = [pytest.mark.backup, pytest.mark.timeout(FULL_LIMIT if FULL else 300)]

STRUCK = 2
"""Moments of each kind in an ordinary run; a full run takes them all."""


def places(moments: int, full_run: bool, what: str) -> Iterable[int]:
    """The moments at which to strike."""
    every = range(moments)
    return every if full_run else sorted(random.Random(f"{SEED} {what}").sample(every, STRUCK))


def striking(strike: Callable[[], None], at: int = -1) -> tuple[list[Event], Callable[[Event], None]]:
    """Return a listener that strikes at one moment, and the moments that it was told of."""
    moments: list[Event] = []

    def look(event: Event) -> None:
        if isinstance(event, StepStarted | StepDone | Undone):
            moments.append(event)
            if len(moments) - 1 == at:
                strike()

    return moments, look


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("who", ["qemu", "libvirtd"])
def test_the_other_side_is_killed_while_a_point_is_taken(
    small: Paused, connected: Host, repository: str, tmp_path: Path, lab: InLab, who: str, full: bool, full_run: bool
) -> None:
    chance = random.Random(f"{who} {full}")
    scribble(small, chance)
    instants = {back_up(connected, repository).id: small.hashes()}

    def strike() -> None:
        if who == "libvirtd":
            lab.restart_libvirtd(kill=True)
        else:
            run(["kill", "-9", str(small.pid())], timeout=10)

    def take(at: int = -1) -> int:
        """Take a point, be struck, and take another; return how many moments the first one had."""
        scribble(small, chance, 1)
        small.flush()
        moments, look = striking(strike, at)
        (result,) = connected.backups.run(["small"], repository=repository, full=full, on_event=look)
        assert result.error is None or isinstance(result.error, VmhostError)
        there = {point.id for point in connected.backups.list(repository=repository)}
        assert instants.keys() <= there, "older points stay"
        instants.update(dict.fromkeys(there - instants.keys(), small.hashes()))
        if at >= 0:
            assert len(moments) > at
            if who == "qemu":
                small.await_end()
                lab.virsh("start", "--paused", "small")
            instants[back_up(connected, repository).id] = small.hashes()
            small.assert_left_alone()
            assert not connected.interrupted()
            assert list(Path(repository).rglob(".new-*")) == []
        return len(moments)

    for place in places(take(), full_run, f"{who} {full}"):
        take(place)
    there = [point.id for point in connected.backups.list(repository=repository)]
    assert {point: held_by_point(repository, point, small, tmp_path) for point in there} == {
        point: instants[point] for point in there
    }
    assert all(not found.damages for found in connected.backups.verify(repository=repository))


@pytest.mark.parametrize("stays_away", [False, True])
def test_libvirtd_is_killed_while_a_disk_is_restored(
    small: Paused, connected: Host, repository: str, tmp_path: Path, lab: InLab, stays_away: bool, full_run: bool
) -> None:
    """Each time all disks are of one instant: of the point, or as they were, and what they were is kept or not."""
    then, now = of_two_instants(small, connected, repository, lab, random.Random(15))
    kept = Kept(small, tmp_path)

    def restore(at: int = -1) -> int:
        kept.put_back()
        strike = lab.stop_libvirtd if stays_away else lab.restart_libvirtd
        moments, look = striking(lambda: strike(kill=True), at)
        try:
            connected.apply(connected.backups.plan_restore("small", repository=repository), on_event=look)
        except VmhostError:
            assert len(moments) > at >= 0
            if stays_away:
                lab.start_libvirtd()
            connected.recover()
            assert small.held(tmp_path) in (now, then), at
        else:
            assert len(moments) > at
            if stays_away and at >= 0:
                lab.start_libvirtd()
            assert small.held(tmp_path) == then, at
        directory = Path(small.files["root"]).parent
        assert not connected.interrupted(), at
        assert list(directory.glob("*.restored-*")) == [], at
        if small.held(tmp_path) == now:
            assert list(directory.glob("*.before-*")) == [], at
        return len(moments)

    for place in places(restore(), full_run, f"restore {stays_away}"):
        restore(place)
