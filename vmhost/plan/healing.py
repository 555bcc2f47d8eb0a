"""From looks at a service to what is done about it: thresholds, start period, back-off, tries. No clock, no I/O."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from vmhost.model.services import Health, Look
from vmhost.model.spec.service import ProbeSpec, RestartSpec


@dataclass(frozen=True, slots=True)
class Pulse:
    """What the looks of one probe come to: good and bad ones in a row, and whether it is up; None: not known yet."""

    good: int = 0
    bad: int = 0
    up: bool | None = None
    text: str = ""


def beat(pulse: Pulse, probe: ProbeSpec, look: Look, age: float) -> Pulse:
    """Return the pulse after one more look.

    :param age: seconds since the service was started as far as is known; bad looks in its start period do not count
        until a first good one.
    """
    if look.good:
        good = pulse.good + 1
        return Pulse(good, 0, True if good >= probe.successes else pulse.up, look.text)
    if pulse.up is None and age < probe.start_period:
        return replace(pulse, good=0, text=look.text)
    bad = pulse.bad + 1
    return Pulse(0, bad, False if bad >= probe.failures else pulse.up, look.text)


def health_of(pulses: dict[str, Pulse], *, only: frozenset[str] | None = None) -> Health:
    """Return how a service is: down when one probe is, up when all are."""
    ups = [pulse.up for name, pulse in pulses.items() if only is None or name in only]
    if any(up is False for up in ups):
        return Health.DOWN
    if not ups:
        return Health.UNKNOWN
    return Health.UP if all(ups) else Health.STARTING


class Act(StrEnum):
    """What is to be done, or told."""

    RESTART = "restart"
    GIVE_UP = "give up"
    HEALED = "healed"


@dataclass(frozen=True, slots=True)
class Care:
    """How far healing of one service in one guest has come; times in seconds of one clock.

    ``down_since`` is the first bad look of a failure, ``well_since`` when it was last seen to become well.
    """

    tries: int = 0
    next_at: float = 0.0
    down_since: float | None = None
    well_since: float | None = None
    given_up: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """How a service is at a moment. ``first_bad`` is when the failure was first seen; ``by_hand``: somebody stopped it
    inside the guest; ``wished``: somebody stopped it through vmhost.
    """

    health: Health
    now: float
    first_bad: float
    by_hand: bool = False
    wished: bool = False


def care_for(care: Care, policy: RestartSpec, case: Case) -> tuple[Care, Act | None]:
    """Return how far healing is after a look, and what is to be done now."""
    if case.health is Health.UP:
        return _well(care, policy, case.now)
    if case.health is not Health.DOWN or case.wished:
        return care, None
    care = replace(care, down_since=case.first_bad if care.down_since is None else care.down_since, well_since=None)
    if policy.policy == "never" or (policy.policy == "on-failure" and case.by_hand) or care.given_up:
        return care, None
    if case.now < care.next_at:
        return care, None
    if care.tries >= policy.tries:
        return replace(care, given_up=True), Act.GIVE_UP
    pause = min(policy.most, policy.backoff * 2**care.tries)
    return replace(care, tries=care.tries + 1, next_at=case.now + pause), Act.RESTART


def _well(care: Care, policy: RestartSpec, now: float) -> tuple[Care, Act | None]:
    if care.down_since is not None:
        return replace(care, down_since=None, well_since=now), Act.HEALED
    since = now if care.well_since is None else care.well_since
    if care.tries and now - since >= policy.quiet:
        return Care(well_since=since), None
    return replace(care, well_since=since), None
