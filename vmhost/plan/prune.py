"""Points that go, as retention says; what lies on them goes first. Why so: docs/decisions/0086."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, tzinfo
from typing import Final

from vmhost.model.backupsteps import DeletePoint
from vmhost.model.plan import Change, Note, Plan, Planned
from vmhost.model.points import Damage, Point
from vmhost.model.retention import Held, Keep, Verdict
from vmhost.plan.choose import whole
from vmhost.plan.retention import retain

ALL_STAY: Final = "all its points stay: "
"""How the note begins which says that nothing of a guest may go, whatever its rules say."""


def plan_prune(
    points: Iterable[Point],
    keep: Keep,
    host: str,
    zone: tzinfo = UTC,
    *,
    unread: Damage | None = None,
    label: str = "",
) -> Plan:
    """Return the plan that deletes what retention lets go, guest by guest; its notes say why the others stay.

    :param points: of one repository.
    :param host: whose points may go: what other hosts have put there is theirs.
    :param unread: a point of these guests that cannot be understood, so that nobody knows what it lies on, or what is
        noted of their points: nothing goes.
    :param label: what to call their guest; empty: what each point calls it.
    """
    if unread is not None and keep.rules:
        names = dict.fromkeys(label or point.name for point in points)
        return Plan("", notes=tuple(Note(name, f"{ALL_STAY}{unread}") for name in names))
    mine = [point for point in points if point.ref.host == host]
    good = {point.ref for point in whole(mine)}
    after: list[Planned] = []
    notes: list[Note] = []
    for guest in dict.fromkeys(point.ref.guest for point in mine):
        its = {point.id: point for point in mine if point.ref.guest == guest}
        for verdict in retain([_held(point, point.ref in good) for point in its.values()], keep, zone):
            point = its[verdict.point.id]
            if verdict.keep:
                notes.append(Note(label or point.name, f"{point.id} stays: {', '.join(verdict.reasons)}"))
            else:
                after.append(_delete(point, verdict, label or point.name))
    return Plan("", after=tuple(after), notes=tuple(notes))


def _held(point: Point, is_whole: bool) -> Held:
    taken = datetime.fromisoformat(point.taken).timestamp()
    noted = {"pinned": point.pinned, "verified": bool(point.verified), "whole": is_whole}
    return Held(point.id, point.generation, taken, needs=point.parent, **noted)


def _delete(point: Point, verdict: Verdict, label: str) -> Planned:
    why = f"{label}: delete point {point.id} for good: {', '.join(verdict.reasons)}"
    return Planned(DeletePoint(point.ref), None, Change.REMOVE, point.name, why)
