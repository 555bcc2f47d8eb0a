"""Repositories on ground that gives way: full, read-only, not mounted; and two runs at once."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.backup.test_chain import back_up, scribble
from tests.backup.writing import Paused, held_by_point
from tests.reliability.scene import told, vmhost
from vmhost.drivers.command import run
from vmhost.model.errors import NoCapacity
from vmhost.ops.host import Host

pytestmark = pytest.mark.backup


@pytest.fixture
def island(tmp_path: Path) -> Iterator[Path]:
    """A file system of 96 MiB of its own."""
    place = tmp_path / "island"
    place.mkdir()
    run(["mount", "-t", "tmpfs", "-o", "size=96M", "tests", str(place)], timeout=10)
    yield place
    run(["umount", "--lazy", str(place)], timeout=10)


def test_a_repository_that_is_full_read_only_or_not_mounted(
    small: Paused, connected: Host, island: Path, tmp_path: Path
) -> None:
    chance = random.Random(11)
    scribble(small, chance)
    repository = str(island / "backups")
    first = back_up(connected, repository)
    instant = small.hashes()

    # an increment that does not fit: QEMU's job fails, and nothing of it stays
    filler = island / "filler"
    room = 3 << 20
    filler.write_bytes(bytes(connected.backups.repository(repository).free - room))
    small.write("root", 70, 0, 16 << 20)
    (result,) = connected.backups.run(["small"], repository=repository)
    assert result.error is not None
    small.assert_left_alone()
    assert [point.id for point in connected.backups.list(repository=repository)] == [first.id]
    assert connected.backups.repository(repository).free >= room - (1 << 20)
    # a full copy is not even begun
    (result,) = connected.backups.run(["small"], repository=repository, full=True)
    assert isinstance(result.error, NoCapacity)

    run(["mount", "-o", "remount,ro", str(island)], timeout=10)
    refused = vmhost("backup", "run", "small", "--repository", repository)
    assert refused.code == 4
    assert "cannot be written to" in told(refused)
    assert vmhost("backup", "verify", "small", "--repository", repository).code == 0
    run(["mount", "-o", "remount,rw", str(island)], timeout=10)
    filler.unlink()
    healed = back_up(connected, repository)
    assert healed.kind == "incremental", healed.because
    assert held_by_point(repository, healed.id, small, tmp_path) == small.hashes()
    assert held_by_point(repository, first.id, small, tmp_path) == instant

    run(["umount", str(island)], timeout=10)
    gone = vmhost("backup", "run", "small", "--repository", repository)
    assert gone.code == 4
    assert "not mounted" in told(gone)
    assert list(island.iterdir()) == []
    run(["mount", "-t", "tmpfs", "-o", "size=96M", "tests", str(island)], timeout=10)


def test_two_runs_at_once_take_one_point_after_the_other(
    small: Paused, connected: Host, repository: str, tmp_path: Path
) -> None:
    scribble(small, random.Random(12))
    back_up(connected, repository)
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda _: vmhost("backup", "run", "small", "--repository", repository), range(2)))
    assert [one.code for one in done] == [0, 0], [told(one) for one in done]
    points = connected.backups.list(repository=repository)
    assert [point.generation for point in points] == [1, 2, 3]
    assert {held_by_point(repository, point.id, small, tmp_path)["root"] for point in points} == {
        small.hashes()["root"]
    }
