"""Pruning, planned: which points go, in an order in which no moment leaves a broken chain."""

from __future__ import annotations

import pytest

from vmhost.model.backupsteps import DeletePoint
from vmhost.model.errors import UsageError
from vmhost.model.points import Point, PointRef
from vmhost.model.retention import Keep
from vmhost.ops.prune import parse_keep
from vmhost.plan.prune import plan_prune


def point(day: int, *, guest: str = "web", host: str = "here", parent: str = "") -> Point:
    ref = PointRef("/r", host, f"uuid-{guest}", f"{guest}{day}")
    kind = "incremental" if parent else "full"
    return Point(ref, day, f"2026-11-{day:02}T22:00:00Z", kind, guest, parent=parent)  # type: ignore[arg-type]


def gone(points: list[Point], keep: Keep) -> list[str]:
    plan = plan_prune(points, keep, "here")
    assert plan.steps == ()
    return [item.do.ref.id for item in plan.after if isinstance(item.do, DeletePoint)]


def test_each_guest_is_judged_by_itself_and_other_hosts_are_left_alone() -> None:
    points = [point(day, guest=guest) for guest in ("web", "db") for day in (1, 2, 3)] + [point(1, host="there")]
    assert gone(points, Keep(last=2)) == ["web1", "db1"]


def test_what_lies_on_a_point_goes_before_it() -> None:
    points = [point(1), point(2, parent="web1"), point(3, parent="web2"), point(4), point(5, parent="web4")]
    assert gone(points, Keep(last=1)) == ["web3", "web2", "web1"]
    assert gone(points, Keep(last=3)) == []


def test_the_plan_says_of_each_point_why() -> None:
    text = str(plan_prune([point(1), point(2)], Keep(daily=1), "here"))
    assert "web: delete point web1 for good: no rule keeps it" in text
    assert "note: web: web2 stays: the newest, daily 1 of 1: 2026-11-02" in text


def test_rules_are_read() -> None:
    assert parse_keep("daily=7, weekly=4,within=48h") == Keep(daily=7, weekly=4, within=172_800.0)


@pytest.mark.parametrize(
    "text", ["", "daily", "daily=x", "daily=-1", "nightly=3", "daily=1,daily=2", "daily=0", "within=soon"]
)
def test_rules_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_keep(text)
    assert caught.value.hint == "--keep daily=7,weekly=4,monthly=6"
