"""Who is protected and who is not: worst first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, tzinfo
from math import inf
from typing import Final

from vmhost.model.drills import DrillRecord
from vmhost.model.nightly import Objective, Protection
from vmhost.model.points import Damage, Point
from vmhost.model.spec.protection import BackupSpec
from vmhost.plan.choose import newest, whole
from vmhost.plan.due import age_of, overdue

NO_WISH = BackupSpec()
A_DAY: Final = 86_400.0
"""Seconds that a drill may wait for its turn after the moment at which its calendar has it."""


@dataclass(frozen=True, slots=True)
class Ward:
    """A guest that should be protected, and what its site says of that; ``frozen``: since when it is, or empty."""

    name: str
    uuid: str
    wish: BackupSpec = NO_WISH
    frozen: str = ""


@dataclass(frozen=True, slots=True)
class Measure:
    """What all guests are held against.

    ``now`` is in seconds since the epoch, and so is ``woken``: when a night last ran, inf: something wakes it, -inf:
    nothing does. ``objective`` are the seconds that the newest point may be old where the guest's site does not say so,
    ``host`` is whose guests they are, and ``local`` the time zone of calendars that name none.
    """

    now: float
    objective: float
    host: str
    woken: float = inf
    local: tzinfo = UTC


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of one guest; drills in the order in which they were noted."""

    points: Sequence[Point] = ()
    drills: Sequence[DrillRecord] = ()
    unread: Damage | None = None

    @property
    def drilled(self) -> str:
        return next((drill.started for drill in reversed(self.drills) if not drill.failed), "")


def protection(
    wards: Iterable[Ward],
    points: Iterable[Point],
    measure: Measure,
    drills: Iterable[DrillRecord] = (),
    unread: Iterable[Damage] = (),
) -> list[Protection]:
    """Return how each guest is protected: first those that are frozen, then those without any point, then those that
    have another problem, as an objective that is missed, the oldest point first.

    Points that are known to be damaged, or to lie on such, protect nobody.

    :param drills: in the order in which they were noted. :param unread: what of the repository cannot be understood.
    """
    by_guest: dict[str, list[Point]] = {}
    for point in points:
        by_guest.setdefault(point.ref.guest, []).append(point)
    told: dict[str, list[DrillRecord]] = {}
    for drill in drills:
        told.setdefault(drill.guest, []).append(drill)
    damages = {damage.holds: damage for damage in unread}
    found = [
        _of(ward, _Known(by_guest.get(ward.uuid, []), told.get(ward.uuid, []), damages.get(ward.uuid)), measure)
        for ward in wards
    ]
    return sorted(found, key=lambda one: (not one.frozen, one.problem == "", one.age >= 0, -one.age, one.name))


def _of(ward: Ward, known: _Known, measure: Measure) -> Protection:
    good = whole(known.points)
    last = newest(good, measure.host)
    age = -1.0 if last is None else age_of(last.taken, measure.now)
    verified = max((point.verified for point in good), default="")
    wants = tuple(sorted(_objectives(ward, age, verified, known, measure), key=lambda one: not one.missed))
    woken = measure.now - measure.woken <= (ward.wish.rpo or measure.objective)
    asleep = "" if woken else "nothing wakes its night's work: vmhost nightly install"
    problems = (*_problems(ward, last, wants, verified, known), asleep)
    return Protection(
        name=ward.name,
        points=len(known.points),
        newest=last.id if last else "",
        age=age,
        kind=last.kind if last else "",
        level=last.level if last else "",
        problem=next((text for text in problems if text), ""),
        verified=verified,
        drilled=known.drilled,
        frozen=ward.frozen,
        woken=woken,
        objectives=wants,
    )


def _objectives(ward: Ward, age: float, verified: str, known: _Known, measure: Measure) -> Iterator[Objective]:
    """Yield how each objective stands, against which there is something."""
    wish, now, drills = ward.wish, measure.now, known.drills
    rpo = wish.rpo or measure.objective
    yield Objective("rpo", rpo, None if age < 0 else age, missed=not 0 <= age <= rpo)
    if wish.rto is not None:
        took = drills[-1].rto if drills and not drills[-1].failed else None
        yield Objective("rto", wish.rto, took, missed=took is not None and took > wish.rto)
    if wish.verified is not None:
        since = age_of(verified, now) if verified else None
        yield Objective("verified", wish.verified, since, missed=since is None or since > wish.verified)
    since = age_of(known.drilled, now) if known.drilled else None
    moments = wish.schedule.drill
    if wish.drill.every is not None:
        yield Objective("drill", wish.drill.every, since, missed=since is None or since > wish.drill.every)
    elif moments is not None:
        late = since is None or overdue(moments, known.drilled, now, measure.local) > A_DAY
        yield Objective("drill", None, since, missed=late, calendar=moments)


def _problems(
    ward: Ward, last: Point | None, wants: Sequence[Objective], verified: str, known: _Known
) -> tuple[str, ...]:
    """Return all that is wrong with a guest's protection, the worst first; empty texts are nothing."""
    missed = {one.name: one for one in wants if one.missed}
    frozen = f"its file systems are FROZEN since {ward.frozen}: vmhost snapshot thaw {ward.name}" if ward.frozen else ""
    if last is None:
        return (frozen, "none of its points is whole" if known.points or known.unread else "it has no point")
    drills = known.drills
    return (
        frozen,
        _told(missed.get("rpo"), "its newest point is {} old, {} are the most"),
        f"its last drill failed: {drills[-1].failed}" if drills and drills[-1].failed else "",
        _told(missed.get("rto"), "its last drill brought it back after {}, {} are the most"),
        f"none of its points can go: {known.unread}" if known.unread else "",
        "" if verified else "it never was found whole",
        _told(missed.get("verified"), "it last was found whole {} ago, {} are the most"),
        _undrilled(missed.get("drill")),
    )


def _undrilled(missed: Objective | None) -> str:
    if missed is None:
        return ""
    if missed.actual is None:
        return "it never came back in a drill"
    if missed.limit is None:
        return f"it last came back in a drill {_span(missed, missed.actual)} ago, one was due by {missed.calendar}"
    return _told(missed, "it last came back in a drill {} ago, {} are the most")


def _told(missed: Objective | None, text: str) -> str:
    if missed is None:
        return ""
    return text.format(_span(missed, missed.actual), _span(missed, missed.limit))


def _span(one: Objective, seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds:.0f} s" if one.name == "rto" else f"{seconds / 3600:.0f} h"
