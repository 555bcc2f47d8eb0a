"""What the night owes a guest: a point, a full one, a drill. Whatever was missed is due until it was done."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from vmhost.model.drills import DrillRecord
from vmhost.model.points import Point
from vmhost.model.spec.protection import BackupSpec
from vmhost.plan.choose import newest, whole

NEARLY: Final = 0.9
"""The share of its time after which something is due: timers are never quite on time, and a run takes a while."""


@dataclass(frozen=True, slots=True)
class Due:
    """What is due of a guest: a point, and whether a full one; a drill."""

    point: bool = True
    full: bool = False
    drill: bool = False


def due(spec: BackupSpec, points: Iterable[Point], last: DrillRecord | None, now: float, host: str) -> Due:
    """Return what is due of a guest.

    :param points: its own. :param last: its last drill; one that failed counts, lest the same one fails every night.
    :param host: whose points an increment may lie on. :param now: seconds since the epoch.
    """
    ours = [point for point in whole(points) if point.ref.host == host]
    any_one = newest(ours, host)
    full = newest((point for point in ours if point.kind == "full"), host)
    drilled = None if last is None else age_of(last.started, now)
    return Due(
        point=_over(spec.every, None if any_one is None else age_of(any_one.taken, now)) or spec.every is None,
        full=_over(spec.full, None if full is None else age_of(full.taken, now)),
        drill=_over(spec.drill.every, drilled),
    )


def age_of(time: str, now: float) -> float:
    """Return how long ago a time (ISO 8601) was, in seconds; never negative, since clocks jump."""
    return max(0.0, now - datetime.fromisoformat(time).timestamp())


def _over(limit: float | None, age: float | None) -> bool:
    return limit is not None and (age is None or age >= NEARLY * limit)
