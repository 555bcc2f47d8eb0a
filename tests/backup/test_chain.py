"""Increments: each point of a chain equals its instant; what breaks the chain leads to a full copy that says why."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.backup.writing import Paused, held_by_point
from tests.labfixture import InLab
from vmhost.drivers.command import run
from vmhost.model.points import Point
from vmhost.ops.backups import raise_failures
from vmhost.ops.host import Host

pytestmark = pytest.mark.backup

INCREMENTS = 8
BLOCK = 1 << 16


def of_two_instants(
    small: Paused, host: Host, repository: str, lab: InLab, chance: random.Random
) -> tuple[dict[str, str], dict[str, str]]:
    """Take a point of a guest that has gone on since, and is off: return what its disks held then, and hold now."""
    scribble(small, chance)
    then = small.hashes()
    back_up(host, repository)
    scribble(small, chance)
    now = small.hashes()
    lab.virsh("destroy", "--graceful", "small")
    return then, now


def back_up(host: Host, repository: str, **how: bool) -> Point:
    """Take one point of the small guest."""
    results = host.backups.run(["small"], repository=repository, **how)
    raise_failures(results)
    (result,) = results
    assert result.point is not None
    return result.point


def scribble(guest: Paused, chance: random.Random, times: int = 4) -> None:
    """Write here and there on both disks."""
    for _ in range(times):
        disk = chance.choice(sorted(guest.files))
        offset = chance.randrange(len(guest.content(disk)) // BLOCK - 16) * BLOCK
        guest.write(disk, chance.randrange(1, 256), offset, chance.randrange(1, 16) * BLOCK)


def test_every_point_of_a_chain_equals_its_instant(
    small: Paused, connected: Host, repository: str, tmp_path: Path, lab: InLab
) -> None:
    chance = random.Random(7)
    instants = {}
    for number in range(INCREMENTS + 1):
        scribble(small, chance)
        point = back_up(connected, repository)
        assert point.kind == ("incremental" if number else "full"), point.because
        instants[point.id] = small.hashes()
        scribble(small, chance)  # what a point must not hold
    assert len(lab.virsh("checkpoint-list", "small", "--name").text.split()) == 1
    assert {point: held_by_point(repository, point, small, tmp_path) for point in instants} == instants
    assert all(not found.damages for found in connected.backups.verify(repository=repository))
    back_up(connected, repository)
    sizes = {file.name: file.size for file in back_up(connected, repository).files}
    assert sum(sizes[disk.file] for disk in point.disks) < 1 << 20, "nothing has changed"


def test_what_breaks_a_chain_leads_to_a_full_copy_that_says_why(
    small: Paused, connected: Host, repository: str, tmp_path: Path, lab: InLab
) -> None:
    chance = random.Random(8)
    instants, because = {}, []

    def take(**how: bool) -> None:
        point = back_up(connected, repository, **how)
        because.append(point.because or point.kind)
        instants[point.id] = small.hashes()

    scribble(small, chance)
    take()
    scribble(small, chance)
    take(full=True)
    scribble(small, chance)
    take()

    # QEMU is killed: its bitmaps go with it, and libvirt's record of them stays
    small.flush()
    pid = small.pid()
    run(["kill", "-9", str(pid)], timeout=10)
    small.await_end()
    take()
    lab.virsh("start", "--paused", "small")
    scribble(small, chance)
    take()
    scribble(small, chance)
    take()

    # somebody takes the checkpoint away
    for name in lab.virsh("checkpoint-list", "small", "--name").text.split():
        lab.virsh("checkpoint-delete", "small", name)
    take()
    # the repository is moved, and lies elsewhere from now on
    moved = Path(repository).with_name("moved")
    Path(repository).rename(moved)
    repository = str(moved)
    scribble(small, chance)
    take()
    assert because == [
        "it is the first one",
        "it was asked for",
        "incremental",
        "the guest is shut off",
        "the record of what changed on disk root is lost: QEMU ended without writing it",
        "incremental",
        "its checkpoint is gone: it was restored, reverted, or defined anew",
        "incremental",
    ]
    assert {point: held_by_point(repository, point, small, tmp_path) for point in instants} == instants
