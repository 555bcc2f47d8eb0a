"""What is due of a guest, and which objectives it misses."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from vmhost.model.calendar import parse_calendar
from vmhost.model.drills import DrillRecord
from vmhost.model.points import Point, PointRef
from vmhost.model.reservations import iso
from vmhost.model.spec import BackupSpec
from vmhost.plan.due import Due, due
from vmhost.plan.protection import Measure, Ward, protection
from vmhost.plan.turnofdrills import Turn, turns
from vmhost.plan.wakes import wakes

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
        # NOW is a Friday, 08:00 in UTC; the newest point is of 07:00, the full one of Thursday 08:00.
        ({"schedule": {"points": "07:30"}}, POINTS, Due()),
        ({"schedule": {"points": "hourly"}}, POINTS, Due()),  # 08:00 is now
        ({"schedule": {"points": "Mon..Thu 07:30"}}, POINTS, Due(point=False)),
        ({"schedule": {"points": "Mon..Thu 07:30"}}, (), Due()),
        ({"schedule": {"points": "07:00"}}, POINTS, Due(point=False)),  # the one of 07:00 is that
        ({"schedule": {"points": "08:30 Europe/Berlin"}}, POINTS, Due()),  # 07:30 in UTC
        ({"schedule": {"points": "Sun 22:00", "full": "07:30"}}, POINTS, Due(point=False, full=True)),
        ({"schedule": {"points": "Sun 22:00", "full": "Thu 07:30"}}, POINTS, Due(point=False)),
        ({"every": "2h", "schedule": {"drill": "Sun 04:00"}}, POINTS, Due(point=False, drill=True)),
        # Points of a time that is yet to come: the clock was wrong then, or is now.
        ({"every": "2h"}, (FULL, replace(NEXT, taken="2027-03-01T00:00:00Z")), Due()),
        ({"schedule": {"points": "Sun 22:00"}}, (FULL, replace(NEXT, taken="2027-03-01T00:00:00Z")), Due()),
    ],
)
def test_what_is_due(wish: dict[str, object], points: tuple[Point, ...], expected: Due) -> None:
    assert due(BackupSpec.model_validate(wish), points, None, NOW, "here") == expected


def test_a_guest_whose_site_is_silent_has_its_turn_when_the_command_says() -> None:
    for wish, at, is_due in (
        ({}, None, True),
        ({}, "07:30", True),
        ({}, "22:00", False),
        ({"full": "30d"}, "22:00", False),
        ({"every": "30m"}, "22:00", True),
        ({"schedule": {"points": "22:00"}}, "07:30", False),
    ):
        found = due(BackupSpec.model_validate(wish), POINTS, None, NOW, "here", otherwise=at)
        assert found.point is is_due, (wish, at)


def test_moments_are_those_of_the_machine() -> None:
    wish = BackupSpec.model_validate({"schedule": {"points": "08:30"}})
    assert not due(wish, POINTS, None, NOW, "here").point
    assert due(wish, POINTS, None, NOW, "here", local=ZoneInfo("Europe/Berlin")).point


@pytest.mark.parametrize(
    ("wishes", "expected"),
    [
        ([{}], ()),
        ([{"every": "7d"}, {"drill": {"every": "30d"}}], ()),
        ([{"every": "4h"}, {"every": "2h"}], ("hourly",)),
        ([{"every": "36h"}], ("hourly",)),
        ([{"every": "90m"}], ("*:0/30",)),
        ([{"every": "50m"}], ("*:0/12",)),
        ([{"every": "50m"}, {"every": "40m"}], ("*:0/10",)),
        ([{"every": "7m"}], ("*:0/1",)),
        ([{"schedule": {"points": "Mon..Fri  22:00", "full": "Sun 03:00"}}], ("Mon..Fri 22:00", "Sun 03:00")),
        (
            [{"schedule": {"points": "22:00"}}, {"every": "2h", "schedule": {"full": "Sun 03:00"}}],
            ("Sun 03:00", "hourly"),
        ),
    ],
)
def test_the_night_is_woken_when_anybody_needs_it(wishes: list[dict[str, object]], expected: tuple[str, ...]) -> None:
    assert wakes("22:00", [BackupSpec.model_validate(wish) for wish in wishes]) == ("22:00", *expected)


@pytest.mark.parametrize("late", [0, 60])
@pytest.mark.parametrize("every", ["10m", "40m", "50m", "1h", "70m", "100m", "210m", "7h", "24h", "30h", "36h", "100h"])
def test_nobody_waits_for_longer_than_the_age_that_is_wished(every: str, late: int) -> None:
    """Also when each second waking is late, and when others wish for other ages."""
    wish, drawn = BackupSpec.model_validate({"every": every}), count()
    events = [parse_calendar(text) for text in wakes("22:00", [wish, BackupSpec.model_validate({"every": "2h"})])]
    now, taken, gaps = datetime.fromtimestamp(NOW, UTC).replace(hour=22), 0.0, list[float]()
    assert wish.every is not None
    while len(gaps) < 9:
        now = min(found for event in events if (found := event.after(now, UTC)))
        at = now.timestamp() + late * (next(drawn) % 2)
        point = replace(NEXT, taken=iso(taken))
        if due(wish, [point], None, at, "here").point:
            gaps.append(at - taken)
            taken = at
    assert max(gaps[1:]) <= wish.every + late


def test_a_waking_that_is_not_each_day_is_none_of_every_day() -> None:
    assert wakes("Mon..Fri 22:00", [BackupSpec.model_validate({"every": "7d"})]) == ("Mon..Fri 22:00", "hourly")
    assert wakes("Mon..Fri 22:00", [BackupSpec()]) == ("Mon..Fri 22:00",)


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"schedule": {"points": "25:00"}}, "hour 25 is not from 0 to 23"),
        ({"schedule": {"full": "Sunday at three"}}, "no calendar event of systemd: write for example 22:00"),
        ({"schedule": {"drill": "*-02-30"}}, "never comes"),
        ({"every": "1h", "schedule": {"points": "hourly"}}, "every and schedule.points say the same thing twice"),
        ({"drill": {"every": "1d"}, "schedule": {"drill": "daily"}}, "drill.every and schedule.drill"),
    ],
)
def test_nonsense_is_told(wish: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(words)):
        BackupSpec.model_validate(wish)


def test_what_is_kept_with_a_guest_says_nothing_of_schedules_where_its_site_does_not() -> None:
    kept = BackupSpec.model_validate({"every": "4h"}).model_dump_json(exclude_none=True)
    assert "schedule" not in kept
    assert BackupSpec.model_validate_json(kept).every == 4 * 3600
    wish = BackupSpec.model_validate({"schedule": {"full": "Sun 03:00"}})
    assert BackupSpec.model_validate_json(wish.model_dump_json(exclude_none=True)) == wish


def test_a_drill_is_due_again_after_its_time_whatever_became_of_the_last() -> None:
    wish = BackupSpec.model_validate({"drill": {"every": "10d"}})
    told = [(day, failed) for day in ("04", "08") for failed in ("", "it hangs")]
    found = [due(wish, POINTS, drill(f"2027-01-{day}T08:00:00Z", failed=why), NOW, "here").drill for day, why in told]
    assert found == [True, True, False, False]


def test_objectives_that_are_missed_are_told() -> None:
    def problem(wish: dict[str, object], *drills: DrillRecord) -> str:
        (one,) = protection(
            [Ward("web-01", "web", BackupSpec.model_validate(wish))], POINTS, Measure(NOW, DAY, "here"), drills
        )
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
    assert [one.name for one in protection(wards, POINTS, Measure(NOW, DAY, "here"))] == ["none", "bad", "good"]


def test_who_was_never_drilled_comes_first() -> None:
    drills = [drill("2027-01-02T08:00:00Z"), drill("2027-01-03T08:00:00Z", guest="db", failed="it hangs")]
    found = turns({"web": "web-01", "db": "db-01", "new": "new-01"}, drills)
    assert found == (Turn("new-01"), Turn("web-01", 12.0), Turn("db-01"))


def test_whose_drill_was_noted_last_has_its_turn_last_though_the_clock_was_ahead_before() -> None:
    drills = [drill("2031-01-01T08:00:00Z"), drill("2027-01-03T08:00:00Z", guest="db")]
    assert [turn.name for turn in turns({"web": "web-01", "db": "db-01"}, drills)] == ["web-01", "db-01"]


def test_a_turn_takes_as_long_as_all_of_the_last_one_whatever_became_of_it() -> None:
    good, bad = (
        replace(drill("2027-01-02T08:00:00Z"), seconds=100.0),
        replace(drill("2027-01-03T08:00:00Z", guest="db", failed="it hangs"), seconds=900.0),
    )
    old = drill("2027-01-04T08:00:00Z", guest="old")  # before it was kept
    found = turns({"web": "web-01", "db": "db-01", "old": "old-01"}, [good, bad, old])
    assert found == (Turn("web-01", 100.0), Turn("db-01", 900.0), Turn("old-01", 12.0))
