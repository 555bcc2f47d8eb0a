"""What a guest's site wants of its protection, and when the night's work has something to do for it."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest

from tests.plan.test_due import DAY, FULL, NEXT, NOW, POINTS, drill
from vmhost.model.objectives import Objectives
from vmhost.model.points import Point
from vmhost.model.spec import BackupSpec
from vmhost.plan.due import due
from vmhost.plan.objectives import objectives


@pytest.mark.parametrize(
    ("wish", "points", "expected"),
    [
        ({}, POINTS, Objectives(DAY)),
        ({"rpo": "3h", "rto": "5m", "verified": "7d"}, POINTS, Objectives(10_800, 300, 7 * DAY)),
        ({"every": "10h"}, POINTS, Objectives(DAY, next_point=8 * 3600)),
        ({"every": "65m"}, POINTS, Objectives(DAY, next_point=0)),
        ({"every": "10h"}, (), Objectives(DAY, next_point=0)),
        ({"every": "10h"}, (replace(FULL, damaged=True), NEXT), Objectives(DAY, next_point=0)),
        ({"every": "10h"}, (replace(FULL, ref=replace(FULL.ref, host="there")),), Objectives(DAY, next_point=0)),
        ({"every": "10h", "full": "20h"}, POINTS, Objectives(DAY, next_point=0)),
        ({"every": "10h", "full": "28h"}, POINTS, Objectives(DAY, next_point=1.2 * 3600)),
        ({"every": "10h", "full": "28h"}, (replace(FULL, damaged=True),), Objectives(DAY, next_point=0)),
        ({"schedule": {"points": "daily"}}, POINTS, Objectives(DAY, next_point=16 * 3600)),
        ({"schedule": {"points": "08:00"}}, POINTS, Objectives(DAY, next_point=0)),
        ({"schedule": {"points": "daily"}}, (), Objectives(DAY, next_point=0)),
        ({"schedule": {"points": "2020-01-01"}}, POINTS, Objectives(DAY, next_point=inf)),
        ({"every": "2d", "schedule": {"full": "Fri 09:00"}}, POINTS, Objectives(DAY, next_point=3600)),
        ({"schedule": {"drill": "monthly"}}, POINTS, Objectives(DAY, next_drill=0)),
        ({"drill": {"every": "10d"}}, POINTS, Objectives(DAY, drill=10 * DAY, next_drill=0)),
    ],
)
def test_what_is_wanted_and_what_is_next(
    wish: dict[str, object], points: tuple[Point, ...], expected: Objectives
) -> None:
    spec = BackupSpec.model_validate(wish)
    found = objectives(spec, points, (), NOW, "here", DAY)
    assert found == replace(expected, next_point=pytest.approx(expected.next_point))
    told = due(spec, points, None, NOW, "here")
    assert (told.point or told.full) == (not found.next_point), "the night's work takes the point that is foretold"
    assert told.drill == (found.next_drill == 0)


def test_the_last_good_drill_says_how_long_it_takes_and_the_last_of_all_when_the_next_is_due() -> None:
    spec = BackupSpec.model_validate({"drill": {"every": "10d"}})
    drills = (drill("2027-01-05T08:00:00Z"), drill("2027-01-08T08:00:00Z", failed="it hangs"))
    found = objectives(spec, POINTS, drills, NOW, "here", DAY)
    assert (found.took, found.next_drill) == (12.0, 2 * DAY)
