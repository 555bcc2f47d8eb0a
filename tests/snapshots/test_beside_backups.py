"""Snapshots of a guest under incremental backup: every point holds what the disks held, whatever was taken, put back
or merged in between.
"""

from __future__ import annotations

from pathlib import Path
from time import time

import pytest

from tests.contract.backends import eventually
from tests.labfixture import InLab
from tests.snapshots.test_real import delete, fill, revert, take
from tests.snapshots.written import Written, contents
from vmhost.drivers.repository import places
from vmhost.model.points import Point
from vmhost.ops.backups import raise_failures
from vmhost.ops.host import Host

pytestmark = [pytest.mark.backup, pytest.mark.timeout(180)]


def back_up(guest: Written, repository: str) -> Point:
    """Take a point, and compare every byte of it with what the disks hold."""
    results = guest.host.backups.run([guest.name], repository=repository)
    raise_failures(results)
    point = results[0].point
    assert point is not None
    files = {disk.id: str(places.published(point.ref) / disk.file) for disk in point.disks}
    assert contents(files) == {disk: bytes(data) for disk, data in guest.now.items()}, point.kind
    return point


def until_the_second_is_over() -> None:
    """What is taken from now on has a later time than what was done before: times are whole seconds."""
    second = int(time())
    assert eventually(lambda: time() >= second + 1)


def test_points_are_right_whatever_snapshots_do(snaphost: Host, lab: InLab, tmp_path: Path) -> None:
    repository = str(tmp_path / "repository")
    guest = Written(snaphost, lab, "both")
    guest.create()
    fill(guest, 1)
    assert back_up(guest, repository).kind == "full"
    fill(guest, 2)
    take(guest, "one")
    fill(guest, 3)
    back_up(guest, repository)
    fill(guest, 4)
    back_up(guest, repository)
    delete(guest, "one")  # what was written since is merged down, while it runs
    fill(guest, 5)
    back_up(guest, repository)
    take(guest, "two")
    fill(guest, 6)
    back_up(guest, repository)
    safety = revert(guest, "two")
    guest.pause()
    point = back_up(guest, repository)
    assert (point.kind, "lies in another file since, as after a revert" in point.because) == ("full", True)
    fill(guest, 7)
    back_up(guest, repository)
    delete(guest, safety)
    snaphost.power(["both"], "power-off")
    delete(guest, "two")  # merged by qemu-img
    back_up(guest, repository)
    snaphost.power(["both"], "start")
    guest.pause()
    fill(guest, 8)
    back_up(guest, repository)
    guest.check("in the end")


def test_after_a_revert_the_next_point_is_a_full_one_whatever_became_of_the_snapshots(
    snaphost: Host, lab: InLab, tmp_path: Path
) -> None:
    """The disks lie in the files of the last point again, and checkpoint and bitmaps are there."""
    repository = str(tmp_path / "repository")
    guest = Written(snaphost, lab, "back")
    guest.create()
    fill(guest, 1)
    assert back_up(guest, repository).kind == "full"
    take(guest, "one")
    fill(guest, 2)
    safety = revert(guest, "one")
    guest.pause()
    fill(guest, 3)
    delete(guest, safety)
    delete(guest, "one")
    until_the_second_is_over()  # a revert in the same second counts as one after the point
    point = back_up(guest, repository)
    assert (point.kind, point.because.startswith("it went back to a snapshot at ")) == ("full", True)
    fill(guest, 4)
    assert back_up(guest, repository).kind == "incremental"
