"""What the night owes a guest: a point, a full one, a drill. Whatever was missed is due until it was done."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from typing import Final

from vmhost.model.calendar import parse_calendar
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


def due(
    spec: BackupSpec,
    points: Iterable[Point],
    last: DrillRecord | None,
    now: float,
    host: str,
    *,
    local: tzinfo = UTC,
    otherwise: str | None = None,
) -> Due:
    """Return what is due of a guest.

    :param points: its own. :param last: its last drill; one that failed counts, lest the same one fails every night.
    :param host: whose points an increment may lie on. :param now: seconds since the epoch.
    :param local: the time zone of calendars that name none. :param otherwise: when a guest whose site says nothing gets
        a point, as a calendar event; None: every time.
    """
    ours = [point for point in whole(points) if point.ref.host == host]
    any_one = newest(ours, host)
    full = newest((point for point in ours if point.kind == "full"), host)
    wish, silent = spec.schedule, spec.every is None and spec.schedule.points is None

    def is_due(age: float | None, moments: str | None, before: str | None) -> bool:
        return due_in(age, moments, before, now, local) == 0

    taken = None if any_one is None else any_one.taken
    return Due(
        point=(silent and otherwise is None) or is_due(spec.every, otherwise if silent else wish.points, taken),
        full=is_due(spec.full, wish.full, None if full is None else full.taken),
        drill=is_due(spec.drill.every, wish.drill, None if last is None else last.started),
    )


def due_in(age: float | None, moments: str | None, before: str | None, now: float, local: tzinfo) -> float | None:
    """Return in how many seconds something is due that was last done ``before``, 0: now; None: never by itself.

    :param age: its time. :param moments: when it is due besides, as a calendar event. What never was is due at once.
    """
    if age is None and moments is None:
        return None
    since = _since(before, now)
    if since is None:
        return 0.0
    left = [] if age is None else [NEARLY * age - (now - since.timestamp())]
    if moments is not None and (after := _parsed(moments).after(since, local)) is not None:
        left.append(after.timestamp() - now)
    return max(0.0, min(left)) if left else None


def overdue(moments: str, before: str, now: float, local: tzinfo) -> float:
    """Return for how many seconds what was last done ``before`` has been due by a calendar; 0: it is not due."""
    since = _since(before, now)
    after = None if since is None else _parsed(moments).after(since, local)
    return 0.0 if after is None else max(0.0, now - after.timestamp())


def age_of(time: str, now: float) -> float:
    """Return how long ago a time (ISO 8601) was, in seconds; never negative, since clocks jump."""
    return max(0.0, now - datetime.fromisoformat(time).timestamp())


def _since(before: str | None, now: float) -> datetime | None:
    """Return a last time; None: there is none, or one that is yet to come, when the clock was wrong."""
    since = None if before is None else datetime.fromisoformat(before)
    return since if since and since.timestamp() <= now else None


_parsed = lru_cache(maxsize=256)(parse_calendar)
