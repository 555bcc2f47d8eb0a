"""Thresholds, start periods, back-off and tries, as values."""

from __future__ import annotations

from typing import Any

import pytest

from vmhost.model.services import Health, Look
from vmhost.model.spec.service import ProbeSpec, RestartSpec
from vmhost.plan.healing import Act, Care, Case, Pulse, beat, care_for, health_of


def probe(**how: Any) -> ProbeSpec:
    return ProbeSpec.model_validate({"systemd": True, "start_period": 10, **how})


def pulses(spec: ProbeSpec, looks: str, *, age: float = 100.0) -> list[bool | None]:
    """What a probe comes to look by look; ``+`` is a good one."""
    pulse, seen = Pulse(), []
    for number, sign in enumerate(looks):
        pulse = beat(pulse, spec, Look("unit", sign == "+", "text", 0.0), age + number)
        seen.append(pulse.up)
    return seen


def test_thresholds_count_looks_in_a_row() -> None:
    spec = probe(failures=3, successes=2)
    assert pulses(spec, "++") == [None, True]
    assert pulses(spec, "++--+--") == [None, True, True, True, True, True, True]
    assert pulses(spec, "++---+-++") == [None, True, True, True, False, False, False, False, True]


def test_in_its_start_period_bad_looks_do_not_count_until_a_good_one() -> None:
    assert pulses(probe(failures=1), "---", age=0.0) == [None, None, None]
    assert pulses(probe(failures=1), "-+-", age=0.0) == [None, True, False]
    assert pulses(probe(failures=2), "--", age=9.0) == [None, None]
    assert pulses(probe(failures=2), "---", age=9.0) == [None, None, False]


@pytest.mark.parametrize(
    ("ups", "health"),
    [
        ([], Health.UNKNOWN),
        ([True, True], Health.UP),
        ([True, None], Health.STARTING),
        ([None, False], Health.DOWN),
        ([True, False], Health.DOWN),
    ],
)
def test_a_service_is_as_its_worst_probe(ups: list[bool | None], health: Health) -> None:
    assert health_of({str(number): Pulse(up=up) for number, up in enumerate(ups)}) is health


def acts(policy: RestartSpec, cases: list[tuple[float, Health]], **how: Any) -> list[tuple[float, Act]]:
    """What is done at which moment."""
    care, done = Care(), []
    for now, health in cases:
        care, act = care_for(care, policy, Case(health, now, now, **how))
        if act is not None:
            done.append((now, act))
    return done


def down(until: int) -> list[tuple[float, Health]]:
    return [(float(second), Health.DOWN) for second in range(until)]


def policy(**how: Any) -> RestartSpec:
    return RestartSpec.model_validate({"policy": "on-failure", "backoff": 5, "most": 20, "tries": 4, **how})


def test_tries_come_later_and_later_until_it_is_given_up() -> None:
    assert acts(policy(), down(200)) == [
        (0.0, Act.RESTART),
        (5.0, Act.RESTART),
        (15.0, Act.RESTART),
        (35.0, Act.RESTART),
        (55.0, Act.GIVE_UP),
    ]


def test_what_is_healed_is_told_with_its_time_and_forgotten_after_a_quiet_period() -> None:
    up = [(float(second), Health.UP) for second in range(3, 700)]
    care = Care()
    for now, health in [*down(3), *up]:
        care, act = care_for(care, policy(), Case(health, now, now))
        if act is Act.HEALED:
            assert (now, care.down_since, care.tries) == (3.0, None, 1)
        if now == 602.0:
            assert care.tries == 1
    assert care.tries == 0


def test_a_failure_soon_after_counts_on() -> None:
    cases = [*down(1), (1.0, Health.UP), (2.0, Health.DOWN), (6.0, Health.DOWN)]
    assert acts(policy(), cases) == [(0.0, Act.RESTART), (1.0, Act.HEALED), (6.0, Act.RESTART)]


@pytest.mark.parametrize(
    ("name", "how", "count"),
    [
        ("never", {}, 0),
        ("on-failure", {"by_hand": True}, 0),
        ("on-failure", {"wished": True}, 0),
        ("always", {"by_hand": True}, 1),
        ("always", {"wished": True}, 0),
    ],
)
def test_policies(name: str, how: dict[str, bool], count: int) -> None:
    assert len(acts(policy(policy=name), down(3), **how)) == count


def test_what_is_starting_is_left_alone() -> None:
    assert acts(policy(), [(float(n), Health.STARTING) for n in range(50)]) == []
