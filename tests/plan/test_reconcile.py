"""What a point may rest on: one fact is off at a time, and the decision names it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vmhost.model.points import Bitmap, Checkpoint, Point, PointDisk, PointRef, RepositoryId, Tracking
from vmhost.plan import reconcile
from vmhost.plan.reconcile import decide, next_generation, point_id

REPOSITORY = RepositoryId("/backups", "0123abcd-0000-4000-8000-000000000000", "thishost")
DISKS = (
    PointDisk("root", "vda", "root.qcow2", 1 << 30, source="/disks/root"),
    PointDisk("data1", "vdb", "data1.qcow2", 1 << 20, source="/disks/data1"),
)
CHECKPOINT = "vmhost-0123abcd-"


def point(number: int, *, host: str = "thishost", parent: str = "", checkpoint: str = "yes") -> Point:
    ref = PointRef("/backups", host, "uuid", f"p{number}")
    kind = "incremental" if parent else "full"
    held = f"{CHECKPOINT}p{number}" if checkpoint else ""
    return Point(ref, number, "2026-11-19T22:00:00Z", kind, "web", parent=parent, checkpoint=held, disks=DISKS)


def tracking(*numbers: int) -> Tracking:
    names = [f"{CHECKPOINT}p{number}" for number in numbers]
    return Tracking(
        checkpoints=tuple(Checkpoint(name) for name in names),
        bitmaps=tuple(Bitmap(disk.source, name) for disk in DISKS for name in names),
    )


POINTS = (point(1), point(2, parent="p1"))


def because(**how: object) -> str:
    """Return why the next point is a full one, with some facts changed."""
    facts = {"points": POINTS, "tracking": tracking(2), "disks": DISKS, "running": True, "full": False} | how
    decision = decide(repository=REPOSITORY, **facts)  # type: ignore[arg-type]
    assert (decision.parent is None) == bool(decision.because)
    return decision.because


def test_the_newest_point_whose_checkpoint_is_there_is_the_parent() -> None:
    facts = {"disks": DISKS, "running": True, "full": False}
    assert decide(POINTS, REPOSITORY, tracking(2), **facts).parent == POINTS[1]
    assert decide(POINTS, REPOSITORY, tracking(1, 2), **facts).parent == POINTS[1]
    assert decide(POINTS, REPOSITORY, tracking(1), **facts).parent == POINTS[0]
    offline = point(3, checkpoint="")
    assert decide((*POINTS, offline), REPOSITORY, tracking(2), **facts).parent == POINTS[1]


@pytest.mark.parametrize(
    ("reverted", "counts"),
    [
        ("", False),
        ("2026-11-19T21:59:59Z", False),
        ("2026-11-19T22:00:00Z", True),
        ("2026-11-20T01:00:00Z", True),
        ("2026-11-20T22:00:01Z", False),
    ],
    ids=["never", "before the last point", "in its second", "after it", "in the future"],
)
def test_after_a_revert_it_is_a_full_one(reverted: str, *, counts: bool) -> None:
    said = because(now="2026-11-20T22:00:00Z", reverted=reverted)
    assert said == (f"it went back to a snapshot at {reverted}" if counts else "")


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"points": ()}, "it is the first one"),
        ({"points": (replace(POINTS[0], damaged=True), POINTS[1])}, "point p1 is damaged"),
        ({"points": (POINTS[0], replace(POINTS[1], damaged=True))}, "point p2 is damaged"),
        ({"full": True}, "it was asked for"),
        ({"points": (point(1, host="other"),)}, "its points were taken on another host"),
        ({"running": False}, "the guest is shut off"),
        ({"disks": (replace(DISKS[0], format="raw"), DISKS[1])}, "disk root is raw"),
        ({"tracking": tracking()}, "its checkpoint is gone"),
        ({"tracking": tracking(7)}, "its checkpoint is gone"),
        ({"points": (point(1, checkpoint=""),)}, "the last point was taken while it was shut off"),
        ({"disks": DISKS[:1]}, "disk data1 is gone"),
        ({"disks": (*DISKS, replace(DISKS[1], id="data2"))}, "disk data2 is new"),
        ({"disks": (DISKS[0], replace(DISKS[1], capacity=2 << 20))}, "disk data1 was resized"),
        ({"disks": (replace(DISKS[0], source="/disks/other"), DISKS[1])}, "disk root lies in another file since, as"),
        ({"tracking": replace(tracking(2), bitmaps=tracking(2).bitmaps[:1])}, "disk data1 is lost"),
        (
            {"tracking": replace(tracking(2), bitmaps=tuple(replace(b, sound=False) for b in tracking(2).bitmaps))},
            "is not sound",
        ),
        ({"points": POINTS[1:]}, "point p2 lies on p1, which is gone or damaged"),
    ],
)
def test_what_does_not_fit_is_named(how: dict[str, object], why: str) -> None:
    assert why in because(**how)


def test_a_chain_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile, "LONGEST", 2)
    assert because() == ""
    assert "2 points lie on one full copy" in because(points=(*POINTS, point(3, parent="p2")), tracking=tracking(3))


def test_a_number_is_not_used_again_though_its_point_came_to_nothing() -> None:
    def orphan(number: int) -> Tracking:
        return Tracking(bitmaps=(Bitmap("/disks/root", f"{CHECKPOINT}{point_id('20261119T220000Z', number)}"),))

    def number(tracked: Tracking, taken: str = "20261119T220000Z") -> int:
        return next_generation(POINTS, REPOSITORY, tracked, taken)

    assert number(Tracking()) == 3
    assert number(orphan(3)) == 4
    assert number(orphan(4)) == 3
    assert number(orphan(3), taken="20261119T220001Z") == 3
    assert next_generation((), REPOSITORY, Tracking(), "20261119T220000Z") == 1
