"""How guests stand against what their sites want: who is first, and what is told of each."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest

from tests.plan.test_due import DAY, FULL, NOW, POINTS, drill
from vmhost.model.drills import DrillRecord
from vmhost.model.nightly import Objective, Protection
from vmhost.model.points import Damage
from vmhost.model.spec import BackupSpec
from vmhost.plan.protection import Measure, Ward, protection

HERE = Measure(NOW, DAY, "here")


def one(wish: dict[str, object], *drills: DrillRecord, measure: Measure = HERE) -> Protection:
    (found,) = protection([Ward("web-01", "web", BackupSpec.model_validate(wish))], POINTS, measure, drills)
    return found


def test_who_is_frozen_comes_first_and_then_who_has_no_point_and_then_breaches() -> None:
    strict = BackupSpec.model_validate({"drill": {"every": "7d"}})
    frozen = Ward("z-frozen", "web", frozen="2027-01-15T07:30:00Z")
    wards = [Ward("good", "web"), Ward("bad", "web", strict), Ward("none", "nobody"), frozen]
    found = protection(wards, POINTS, HERE)
    assert [row.name for row in found] == ["z-frozen", "none", "bad", "good"]
    assert found[0].problem == "its file systems are FROZEN since 2027-01-15T07:30:00Z: vmhost snapshot thaw z-frozen"
    assert [bool(row.problem) for row in found] == [True, True, True, False]


def test_who_was_never_verified_is_not_protected() -> None:
    (found,) = protection([Ward("web-01", "web")], [replace(FULL, taken="2027-01-15T07:00:00Z")], HERE)
    assert (found.problem, found.verified) == ("it never was found whole", "")


def test_objectives_are_told_the_missed_ones_first() -> None:
    wish: dict[str, object] = {"rpo": "2h", "rto": "1m", "verified": "30m", "drill": {"every": "7d"}}
    old = drill("2027-01-14T08:00:00Z")
    found = one(wish, old)
    assert found.objectives == (
        Objective("verified", 1800.0, 3600.0, missed=True),
        Objective("rpo", 7200.0, 3600.0),
        Objective("rto", 60.0, 12.0),
        Objective("drill", 7 * DAY, DAY),
    )
    assert [str(item) for item in found.objectives] == [
        "MISSED verified 1/0 h",
        "rpo 1/2 h",
        "rto 12/60 s",
        "drill 24/168 h",
    ]
    assert [str(item) for item in one({}).objectives] == ["rpo 1/24 h"]
    (none,) = protection([Ward("new", "new", BackupSpec.model_validate(wish))], (), HERE)
    assert [(item.name, item.actual, item.missed) for item in none.objectives] == [
        ("rpo", None, True),
        ("verified", None, True),
        ("drill", None, True),
        ("rto", None, False),
    ]


@pytest.mark.parametrize(
    ("drilled", "problem"),
    [
        ("", "it never came back in a drill"),
        # NOW is a Friday, 08:00; its calendar has a drill each Wednesday.
        ("2027-01-13T05:00:00Z", ""),
        ("2027-01-06T05:00:00Z", "it last came back in a drill 219 h ago, one was due by Wed 04:00"),
        ("2027-06-06T05:00:00Z", ""),  # the clock was wrong
    ],
)
def test_a_drill_that_a_calendar_has_is_an_objective(drilled: str, problem: str) -> None:
    """As one that was due and refused: nothing of it is in the history."""
    wish: dict[str, object] = {"schedule": {"drill": "Wed 04:00"}}
    found = one(wish, *([drill(drilled)] if drilled else []))
    assert found.problem == problem
    (want,) = (item for item in found.objectives if item.name == "drill")
    assert (want.limit, want.calendar, want.missed) == (None, "Wed 04:00", bool(problem))
    assert str(want).endswith("h (Wed 04:00)")


def test_a_drill_has_a_day_after_its_moment() -> None:
    wish: dict[str, object] = {"schedule": {"drill": "Thu 09:00"}}
    assert one(wish, drill("2027-01-13T08:00:00Z")).problem == ""
    late = replace(HERE, now=NOW + 2 * 3600)
    assert one(wish, drill("2027-01-13T08:00:00Z"), measure=late).problem.endswith("one was due by Thu 09:00")


def test_who_is_not_drilled_by_wish_has_no_problem() -> None:
    assert (one({}).problem, one({}).drilled) == ("", "")


@pytest.mark.parametrize(
    ("woken", "is_woken"), [(inf, True), (NOW - 3600, True), (NOW - 2 * DAY, False), (-inf, False)]
)
def test_what_nothing_wakes_is_told_behind_all_else(woken: float, is_woken: bool) -> None:
    found = one({}, measure=replace(HERE, woken=woken))
    assert found.woken is is_woken
    assert found.problem == ("" if is_woken else "nothing wakes its night's work: vmhost nightly install")
    told = one({"rpo": "30m"}, measure=replace(HERE, woken=woken)).problem
    assert told == "its newest point is 1 h old, 0 h are the most"


def test_what_keeps_all_points_is_a_problem() -> None:
    lost = Damage("c", "manifest.json", "is missing", "web")
    notes = Damage("web", "notes.json", "is cut off")
    for damage in (lost, notes):
        (found,) = protection([Ward("web-01", "web")], POINTS, HERE, (), [damage, Damage("", "README.md", "is not")])
        assert found.problem == f"none of its points can go: {damage}"
    (found,) = protection([Ward("web-01", "web")], (), HERE, (), [lost])
    assert found.problem == "none of its points is whole"
