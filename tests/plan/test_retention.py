"""Retention: rules by example, and what holds whatever the points and the rules are."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from vmhost.model.retention import Held, Keep, Verdict
from vmhost.plan.retention import retain

HOUR, DAY = 3600.0, 86_400.0
MONDAY = datetime(2026, 11, 23, tzinfo=UTC).timestamp()


def nights(count: int, *, step: float = DAY, start: float = MONDAY) -> list[Held]:
    """Return points p1, p2, ..., one every ``step`` seconds."""
    return [Held(f"p{n}", n, start + (n - 1) * step) for n in range(1, count + 1)]


def kept(verdicts: tuple[Verdict, ...]) -> list[str]:
    return [verdict.point.id for verdict in verdicts if verdict.keep]


def test_rules_keep_the_newest_of_each_period() -> None:
    points = nights(60)  # 2026-11-23 to 2027-01-21
    found = retain(points, Keep(daily=3, weekly=2, monthly=2, yearly=2))
    assert kept(found) == ["p60", "p59", "p58", "p56", "p39"]
    told = {verdict.point.id: verdict.reasons for verdict in found}
    assert told["p60"] == (
        "the newest",
        "daily 1 of 3: 2027-01-21",
        "weekly 1 of 2: 2027-W03",
        "monthly 1 of 2: 2027-01",
        "yearly 1 of 2: 2027",
    )
    assert told["p56"] == ("weekly 2 of 2: 2027-W02",)
    assert told["p39"] == ("monthly 2 of 2: 2026-12", "yearly 2 of 2: 2026")
    assert told["p1"] == ("no rule keeps it",)


def test_hours_and_all_within_a_time() -> None:
    points = nights(48, step=HOUR / 2)
    assert kept(retain(points, Keep(hourly=3))) == ["p48", "p46", "p44"]
    assert kept(retain(points, Keep(within=HOUR))) == ["p48", "p47", "p46"]


def test_a_time_without_points_costs_nothing() -> None:
    points = [*nights(3), Held("late", 4, MONDAY + 400 * DAY)]
    assert kept(retain(points, Keep(daily=3))) == ["late", "p3", "p2"]


def test_a_clock_that_was_ahead_once_does_not_take_what_is_within() -> None:
    points = [*nights(10), Held("ahead", 11, MONDAY + 409 * DAY)]
    assert kept(retain(points, Keep(within=14 * DAY))) == ["ahead", *(f"p{n}" for n in range(10, 0, -1))]
    assert kept(retain(points, Keep(within=3 * DAY))) == ["ahead", "p10", "p9", "p8", "p7"]
    right = [*points, Held("right", 12, MONDAY + 11 * DAY)]
    assert kept(retain(right, Keep(within=3 * DAY))) == ["right", "ahead", "p10", "p9"]


def test_the_last_verified_stays_however_old() -> None:
    points = nights(30)
    points[2] = replace(points[2], verified=True)
    found = retain(points, Keep(last=1))
    assert kept(found) == ["p30", "p3"]
    assert found[-3].reasons == ("the newest verified",)


def test_what_is_needed_stays_down_to_the_full_one() -> None:
    points = [replace(p, needs=f"p{n}" if n else "") for n, p in enumerate(nights(5))]
    found = retain(points, Keep(last=1))
    assert kept(found) == ["p5", "p4", "p3", "p2", "p1"]
    assert [v.reasons for v in found[1:]] == [(f"needed by p{n}",) for n in (5, 4, 3, 2)]


def test_a_damaged_point_stands_for_nothing_and_goes_once_a_whole_one_is_there() -> None:
    damaged = replace(nights(2)[1], whole=False)
    found = retain([nights(1)[0], damaged], Keep(last=1))
    assert [str(verdict) for verdict in found] == [
        "p2: goes: damaged; p1 is whole",
        "p1: kept: the newest, last 1 of 1",
    ]
    assert kept(retain([damaged], Keep(last=1))) == ["p2"]
    assert kept(retain([replace(damaged, pinned=True), nights(1)[0]], Keep(last=1))) == ["p2", "p1"]


def test_a_clock_that_goes_backwards_deletes_nothing_that_is_newer() -> None:
    points = [*nights(3), Held("back", 4, MONDAY - 365 * DAY)]
    assert kept(retain(points, Keep(last=1)))[0] == "back"
    assert kept(retain(points, Keep(daily=2))) == ["back", "p3"]


def test_days_are_those_of_the_zone() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    late, early = Held("late", 2, MONDAY - HOUR / 2), Held("early", 1, MONDAY - 2 * HOUR)
    assert kept(retain([late, early], Keep(daily=2))) == ["late"]
    assert kept(retain([late, early], Keep(daily=2), berlin)) == ["late", "early"]
    autumn = datetime(2026, 10, 25, 0, 30, tzinfo=UTC).timestamp()  # 02:30 summer time, then 02:30 again
    twice = [Held("first", 1, autumn), Held("second", 2, autumn + HOUR)]
    assert kept(retain(twice, Keep(hourly=2), berlin)) == ["second", "first"]


def test_without_any_rule_nothing_goes() -> None:
    found = retain(nights(5), Keep())
    assert kept(found) == ["p5", "p4", "p3", "p2", "p1"]
    assert found[-1].reasons == ("no rule says what may go",)


ONE = st.tuples(
    st.integers(-100, 1000), st.sampled_from([600.0, HOUR, DAY]), st.booleans(), st.sampled_from("....pvvvx.")
)


def _history(drawn: list[tuple[int, float, bool, str]]) -> list[Held]:
    """Return points with clocks that jump, chains, pins and damage."""
    return [
        Held(
            f"p{n}",
            n,
            MONDAY + many * unit,
            f"p{n - 1}" if n and chained else "",
            pinned=what == "p",
            verified=what == "v",
            whole=what != "x",
        )
        for n, (many, unit, chained, what) in enumerate(drawn)
    ]


def histories() -> st.SearchStrategy[list[Held]]:
    return st.lists(ONE, max_size=20).map(_history)


COUNTS = st.integers(0, 6)
RULES = st.builds(Keep, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, st.sampled_from([0.0, HOUR, 10 * DAY]))


@given(histories(), RULES)
def test_what_must_never_go_stays(points: list[Held], rules: Keep) -> None:
    stays = set(kept(retain(points, rules)))
    newest = max((p for p in points if p.whole), key=lambda p: p.generation, default=None)
    verified = max((p for p in points if p.whole and p.verified), key=lambda p: p.generation, default=None)
    assert {p.id for p in (newest, verified) if p} | {p.id for p in points if p.pinned} <= stays
    assert bool(stays) == bool(points), "never everything"
    for point in points:
        assert point.id not in stays or not point.needs or point.needs in stays or not point.whole, "no broken chain"


@given(histories(), RULES)
def test_pruning_again_takes_nothing_more(points: list[Held], rules: Keep) -> None:
    stays = set(kept(retain(points, rules)))
    rest = [point for point in points if point.id in stays]
    assert set(kept(retain(rest, rules))) == stays


@given(histories(), RULES, st.sampled_from([field.name for field in fields(Keep)]), st.integers(1, 5))
def test_a_larger_rule_keeps_no_less(points: list[Held], rules: Keep, rule: str, more: int) -> None:
    if not rules.rules:
        return
    larger = replace(rules, **{rule: getattr(rules, rule) + more})
    whole = {point.id for point in points if point.whole}
    assert set(kept(retain(points, rules))) & whole <= set(kept(retain(points, larger)))


@given(histories(), RULES)
def test_rules_keep_no_more_than_they_say(points: list[Held], rules: Keep) -> None:
    if not rules.rules or rules.within:
        return
    promised = rules.last + rules.hourly + rules.daily + rules.weekly + rules.monthly + rules.yearly
    by_rule = [v for v in retain(points, rules) if any(" of " in reason for reason in v.reasons)]
    assert len(by_rule) <= promised
    assert all(verdict.reasons for verdict in retain(points, rules)), "no verdict without a reason"


@given(histories(), RULES, st.randoms())
def test_the_order_in_which_points_come_does_not_matter(points: list[Held], rules: Keep, chance: object) -> None:
    shuffled = list(points)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert retain(points, rules) == retain(shuffled, rules)


def _whole(points: list[Held]) -> list[Held]:
    return sorted((p for p in points if p.whole), key=lambda p: p.generation)


WITHIN = st.sampled_from([HOUR, DAY, 10 * DAY])


@given(histories(), WITHIN, st.floats(1, 1000))
def test_a_newest_point_that_is_far_ahead_takes_nothing_that_was_within(
    points: list[Held], within: float, ahead: float
) -> None:
    whole = _whole(points)
    assume(whole)
    odd = Held("odd", len(points), whole[-1].time + ahead * within)
    stays = set(kept(retain([*points, odd], Keep(within=within))))
    assert {p.id for p in whole if p.time >= whole[-1].time - within} <= stays


@given(histories(), WITHIN, st.floats(0, 0.49))
def test_what_is_within_counts_from_the_newest_when_points_come_regularly(
    points: list[Held], within: float, later: float
) -> None:
    whole = _whole(points)
    assume(whole)
    newest = Held("newest", len(points), whole[-1].time + later * within)
    found = retain([*points, newest], Keep(within=within))
    told = {v.point.id for v in found if "within the time in which all are kept" in v.reasons}
    assert told == {p.id for p in [*whole, newest] if p.time >= newest.time - within}


@pytest.mark.parametrize("rule", ["hourly", "daily", "weekly", "monthly", "yearly"])
@given(points=histories(), count=st.integers(1, 6))
def test_each_period_is_represented_by_its_newest(rule: str, points: list[Held], count: int) -> None:
    """Against another way of saying it: walk from the newest, and keep whoever is the first of a period."""
    form = {"hourly": "%Y%m%d%H", "daily": "%Y%m%d", "weekly": "%G%V", "monthly": "%Y%m", "yearly": "%Y"}[rule]
    want, periods = [], list[str]()
    for point in sorted((p for p in points if p.whole), key=lambda p: -p.generation):
        period = datetime.fromtimestamp(point.time, UTC).strftime(form)
        if period not in periods:
            periods.append(period)
            if len(periods) <= count:
                want.append(point.id)
    found = retain(points, replace(Keep(), **{rule: count}))
    assert [v.point.id for v in found if any(r.startswith(rule) for r in v.reasons)] == want
