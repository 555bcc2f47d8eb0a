"""Who is protected and who is not: worst first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vmhost.model.drills import DrillRecord
from vmhost.model.nightly import Protection
from vmhost.model.points import Point
from vmhost.model.spec.protection import BackupSpec
from vmhost.plan.choose import newest, whole
from vmhost.plan.due import age_of

NO_WISH = BackupSpec()


@dataclass(frozen=True, slots=True)
class Ward:
    """A guest that should be protected, and what its site says of that."""

    name: str
    uuid: str
    wish: BackupSpec = NO_WISH


def protection(
    wards: Iterable[Ward],
    points: Iterable[Point],
    now: float,
    objective: float,
    host: str,
    drills: Iterable[DrillRecord] = (),
) -> list[Protection]:
    """Return how each guest is protected: first those without any point, then those that miss an objective, the oldest
    point first.

    Points that are known to be damaged, or to lie on such, protect nobody.

    :param now: seconds since the epoch. :param objective: seconds that the newest point may be old, where the guest's
        site does not say so. :param host: whose guests they are. :param drills: in the order in which they were noted.
    """
    by_guest: dict[str, list[Point]] = {}
    for point in points:
        by_guest.setdefault(point.ref.guest, []).append(point)
    told: dict[str, list[DrillRecord]] = {}
    for drill in drills:
        told.setdefault(drill.guest, []).append(drill)
    found = [
        _of(ward, by_guest.get(ward.uuid, []), now, ward.wish.rpo or objective, host, told.get(ward.uuid, []))
        for ward in wards
    ]
    return sorted(found, key=lambda one: (one.problem == "", one.age >= 0, -one.age, one.name))


def _of(
    ward: Ward, points: list[Point], now: float, objective: float, host: str, drills: Sequence[DrillRecord]
) -> Protection:
    drilled = next((drill.started for drill in reversed(drills) if not drill.failed), "")
    good = whole(points)
    verified = max((point.verified for point in good), default="")
    last = newest(good, host)
    if last is None:
        problem = "none of its points is whole" if points else "it has no point"
        return Protection(ward.name, len(points), "", -1, "", "", problem, verified, drilled)
    age = age_of(last.taken, now)
    problems = (
        f"its newest point is {_hours(age)} old, {_hours(objective)} are the most" if age > objective else "",
        f"its last drill failed: {drills[-1].failed}" if drills and drills[-1].failed else "",
        _slow(drills, ward.wish.rto),
        _late("was found whole", verified, ward.wish.verified, now),
        _late("came back in a drill", drilled, ward.wish.drill.every, now),
    )
    problem = next((text for text in problems if text), "")
    return Protection(ward.name, len(points), last.id, age, last.kind, last.level, problem, verified, drilled)


def _slow(drills: Sequence[DrillRecord], limit: float | None) -> str:
    """Say so if the last drill took longer to bring the guest back than its site wants."""
    if limit is None or not drills or drills[-1].failed or drills[-1].rto <= limit:
        return ""
    return f"its last drill brought it back after {drills[-1].rto:.0f} s, {limit:.0f} s are the most"


def _late(what: str, last: str, limit: float | None, now: float) -> str:
    if limit is None:
        return ""
    if not last:
        return f"it never {what}"
    age = age_of(last, now)
    return f"it last {what} {_hours(age)} ago, {_hours(limit)} are the most" if age > limit else ""


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.0f} h"
