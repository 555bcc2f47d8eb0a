"""What is due of a guest, and which objectives it misses."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vmhost.model.drills import DrillRecord
from vmhost.model.points import Point, PointRef
from vmhost.model.spec import BackupSpec
from vmhost.plan.due import Due, due
from vmhost.plan.protection import Ward, protection
from vmhost.plan.turnofdrills import Turn, turns

DAY = 86_400.0
NOW = 1_800_000_000.0
"""2027-01-15T08:00:00Z."""
FULL = Point(PointRef("/r", "here", "web", "a"), 1, "2027-01-14T08:00:00Z", "full", "web-01")
NEXT = replace(FULL, ref=replace(FULL.ref, id="b"), generation=2, taken="2027-01-15T07:00:00Z", kind="incremental")
NEXT = replace(NEXT, parent="a", verified="2027-01-15T07:00:00Z")
POINTS = (FULL, NEXT)


def drill(started: str, *, failed: str = "", guest: str = "web") -> DrillRecord:
    """A drill of a guest."""
    return DrillRecord(guest, "web-01", "b", started, -1.0 if failed else 12.0, 0.0, failed)


@pytest.mark.parametrize(
    ("wish", "points", "expected"),
    [
        ({}, POINTS, Due()),
        ({"every": "1h"}, POINTS, Due()),
        ({"every": "65m"}, POINTS, Due()),  # a timer that is a little early
        ({"every": "2h"}, POINTS, Due(point=False)),
        ({"every": "2h"}, (), Due()),
        ({"every": "2h"}, (replace(FULL, damaged=True), NEXT), Due()),
        ({"every": "2h"}, (FULL, replace(NEXT, ref=replace(NEXT.ref, host="there"))), Due()),
        ({"full": "7d"}, POINTS, Due()),
        ({"full": "1d"}, POINTS, Due(full=True)),
        ({"full": "7d", "every": "2h"}, (), Due(full=True)),
        ({"drill": {"every": "30d"}}, POINTS, Due(drill=True)),
    ],
)
def test_what_is_due(wish: dict[str, object], points: tuple[Point, ...], expected: Due) -> None:
    assert due(BackupSpec.model_validate(wish), points, None, NOW, "here") == expected


def test_a_drill_is_due_again_after_its_time_whatever_became_of_the_last() -> None:
    wish = BackupSpec.model_validate({"drill": {"every": "10d"}})
    told = [(day, failed) for day in ("04", "08") for failed in ("", "it hangs")]
    found = [due(wish, POINTS, drill(f"2027-01-{day}T08:00:00Z", failed=why), NOW, "here").drill for day, why in told]
    assert found == [True, True, False, False]


def test_objectives_that_are_missed_are_told() -> None:
    def problem(wish: dict[str, object], *drills: DrillRecord) -> str:
        (one,) = protection([Ward("web-01", "web", BackupSpec.model_validate(wish))], POINTS, NOW, DAY, "here", drills)
        return one.problem

    old, new = drill("2027-01-01T08:00:00Z"), drill("2027-01-14T08:00:00Z")
    assert problem({}) == ""
    assert problem({"rpo": "30m"}) == "its newest point is 1 h old, 0 h are the most"
    assert problem({"verified": "2h"}) == ""
    assert problem({"verified": "30m"}) == "it last was found whole 1 h ago, 0 h are the most"
    assert problem({"drill": {"every": "7d"}}) == "it never came back in a drill"
    assert problem({"drill": {"every": "7d"}}, old) == "it last came back in a drill 336 h ago, 168 h are the most"
    assert problem({"drill": {"every": "7d"}}, old, new) == ""
    slow = replace(new, rto=90.0)
    assert problem({"rto": "1m"}, slow) == "its last drill brought it back after 90 s, 60 s are the most"
    assert problem({"rto": "90s"}, slow) == problem({"rto": "1m"}, slow, new) == problem({"rto": "1m"}) == ""
    assert problem({}, new, drill("2027-01-15T01:00:00Z", failed="it hangs")) == "its last drill failed: it hangs"
    assert problem({}, drill("2027-01-15T01:00:00Z", guest="other", failed="it hangs")) == ""


def test_breaches_come_first_and_who_has_no_point_before_all() -> None:
    strict = BackupSpec.model_validate({"drill": {"every": "7d"}})
    wards = [Ward("good", "web"), Ward("bad", "web", strict), Ward("none", "nobody")]
    assert [one.name for one in protection(wards, POINTS, NOW, DAY, "here")] == ["none", "bad", "good"]


def test_who_was_never_drilled_comes_first() -> None:
    drills = [drill("2027-01-02T08:00:00Z"), drill("2027-01-03T08:00:00Z", guest="db", failed="it hangs")]
    found = turns({"web": "web-01", "db": "db-01", "new": "new-01"}, drills)
    assert found == (Turn("new-01"), Turn("web-01", 12.0), Turn("db-01"))
