"""Pruning a real repository: whenever it ends, every point that is left is whole."""

from __future__ import annotations

from pathlib import Path

from tests.repository.test_repository import Shelf, silent
from vmhost.drivers.repository import places
from vmhost.model.backupsteps import DeletePoint
from vmhost.model.retention import Keep
from vmhost.plan.prune import plan_prune


def test_every_moment_leaves_whole_points(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.take("a1", 1)
    shelf.take("a2", 2, "a1", fill=66)
    shelf.take("a3", 3, "a2", fill=67)
    shelf.take("b1", 4, fill=68)
    shelf.take("b2", 5, "b1", fill=69)
    plan = plan_prune(shelf.port.points(shelf.path), Keep(last=2), shelf.host)
    going = [item.do.ref for item in plan.after if isinstance(item.do, DeletePoint)]
    assert [ref.id for ref in going] == ["a3", "a2", "a1"]
    left = ["a1", "a2", "a3", "b1", "b2"]
    for ref in going:
        # half way: its files are there, but it is no point any more, as after a SIGKILL in the middle of deleting
        places.published(ref).rename(places.begun(ref))
        left.remove(ref.id)
        points = shelf.port.points(shelf.path)
        assert [point.id for point in points] == left
        assert [shelf.port.verify(point.ref, silent) for point in points] == [()] * len(points)
        places.begun(ref).rename(places.published(ref))
        shelf.port.delete(ref)
        assert [point.id for point in shelf.port.points(shelf.path)] == left
        assert not places.begun(ref).exists()
    shelf.take("b3", 6, "b2", fill=70)
    assert [point.id for point in shelf.port.points(shelf.path)] == ["b1", "b2", "b3"]
    assert shelf.port.damaged(shelf.path) == ()
