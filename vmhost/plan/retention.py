"""Which points stay and which go. Pure: no clock, no repository. Why so: docs/decisions/0086."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, tzinfo
from math import inf
from typing import Final

from vmhost.model.retention import Held, Keep, Verdict

_PERIODS: Final[tuple[tuple[str, str, Callable[[datetime], str]], ...]] = (
    ("hourly", "hour", lambda t: f"{t:%Y-%m-%d %H:00}{t:%z}"),  # the hour that comes twice in autumn is two
    ("daily", "day", lambda t: f"{t:%Y-%m-%d}"),
    ("weekly", "week", lambda t: "{}-W{:02}".format(*t.isocalendar())),
    ("monthly", "month", lambda t: f"{t:%Y-%m}"),
    ("yearly", "year", lambda t: f"{t:%Y}"),
)


def retain(points: Iterable[Held], keep: Keep, zone: tzinfo = UTC) -> tuple[Verdict, ...]:
    """Return a verdict on each point, the newest first.

    The newest whole point, the newest verified one, pinned points, and what a kept point needs never go.

    :param points: of one guest, in any order; ids and generations are each point's own.
    :param zone: whose hours, days and years count.
    """
    newest_first = sorted(points, key=lambda point: point.generation, reverse=True)
    reasons = _reasons(newest_first, keep, zone)
    _add_needed(newest_first, reasons)
    return tuple(_verdict(point, reasons[point.id], newest_first, reasons) for point in newest_first)


def _reasons(points: Sequence[Held], keep: Keep, zone: tzinfo) -> dict[str, list[str]]:
    """Return why points are kept for their own sake; only whole ones stand for a period."""
    found: dict[str, list[str]] = {point.id: [] for point in points}
    whole = [point for point in points if point.whole]
    for point in points:
        if point.pinned:
            found[point.id].append("pinned")
        if not keep.rules:
            found[point.id].append("no rule says what may go")
    for point in whole[:1]:
        found[point.id].append("the newest")
    for point in [point for point in whole if point.verified][:1]:
        found[point.id].append("the newest verified")
    for number, point in enumerate(whole[: keep.last], 1):
        found[point.id].append(f"last {number} of {keep.last}")
    for rule, _, label in _PERIODS:
        for number, point in enumerate(_first_of_each(whole, label, zone, getattr(keep, rule)), 1):
            found[point.id].append(f"{rule} {number} of {getattr(keep, rule)}: {label(_when(point, zone))}")
    for point in whole:
        if point.time >= _since(whole, keep.within):
            found[point.id].append("within the time in which all are kept")
    return found


def _since(whole: Sequence[Held], within: float) -> float:
    """Return the time from which on all points are kept.

    It counts from the newest, and from the one before it by as much as lies between the two, but no more than
    ``within``: a newest one whose clock was far ahead lets nothing go that was to stay without it, and a longer time
    never keeps less.
    """
    if not within:
        return inf
    last, before = (*whole[:2], *whole[:1])[:2]
    return min(last.time - within, before.time - min(within, last.time - before.time))


def _first_of_each(points: Sequence[Held], label: Callable[[datetime], str], zone: tzinfo, count: int) -> list[Held]:
    """Return the newest point of each of the newest ``count`` periods that have one."""
    seen: dict[str, Held] = {}
    for point in points:
        name = label(_when(point, zone))
        if name not in seen and len(seen) >= count:
            break
        seen.setdefault(name, point)
    return list(seen.values())


def _add_needed(newest_first: Sequence[Held], reasons: dict[str, list[str]]) -> None:
    """Keep what kept points need, and what that needs: it is older, so its turn comes later."""
    for point in newest_first:
        if reasons[point.id] and point.needs in reasons:
            reasons[point.needs].append(f"needed by {point.id}")


def _verdict(point: Held, why: list[str], points: Sequence[Held], reasons: dict[str, list[str]]) -> Verdict:
    if why:
        return Verdict(point, True, tuple(why))
    if point.whole:
        return Verdict(point, False, ("no rule keeps it",))
    better = next((other.id for other in points if other.whole and reasons[other.id]), "")
    if better:
        return Verdict(point, False, (f"damaged; {better} is whole",))
    return Verdict(point, True, ("damaged, but nothing whole is there",))


def _when(point: Held, zone: tzinfo) -> datetime:
    return datetime.fromtimestamp(point.time, zone)
