"""Who is protected and who is not: worst first."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from vmhost.model.nightly import Protection
from vmhost.model.points import Point
from vmhost.plan.choose import newest, whole


def protection(
    guests: Iterable[tuple[str, str]], points: Iterable[Point], now: float, objective: float, host: str
) -> list[Protection]:
    """Return how each guest, given as (name, UUID), is protected: first those without any point, then the oldest.

    Points that are known to be damaged, or to lie on such, protect nobody.

    :param now: seconds since the epoch. :param objective: seconds that the newest point may be old.
    :param host: whose guests they are.
    """
    by_guest: dict[str, list[Point]] = {}
    for point in points:
        by_guest.setdefault(point.ref.guest, []).append(point)
    found = [_of(name, by_guest.get(uuid, []), now, objective, host) for name, uuid in guests]
    return sorted(found, key=lambda one: (one.problem == "", one.age >= 0, -one.age, one.name))


def _of(name: str, points: list[Point], now: float, objective: float, host: str) -> Protection:
    last = newest(whole(points), host)
    if last is None:
        problem = "none of its points is whole" if points else "it has no point"
        return Protection(name, len(points), "", -1, "", "", problem)
    age = max(0.0, now - datetime.fromisoformat(last.taken).timestamp())
    hours = f"{age / 3600:.0f} h old, {objective / 3600:.0f} h are the most"
    problem = f"its newest point is {hours}" if age > objective else ""
    return Protection(name, len(points), last.id, age, last.kind, last.level, problem)
