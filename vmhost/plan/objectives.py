"""What a guest's site wants of its protection, and when a night's work has something to do for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vmhost.model.drills import DrillRecord
from vmhost.model.objectives import Objectives
from vmhost.model.points import Point
from vmhost.model.spec.protection import BackupSpec
from vmhost.plan.choose import newest, whole
from vmhost.plan.due import NEARLY, age_of


def objectives(
    wish: BackupSpec, points: Iterable[Point], drills: Sequence[DrillRecord], now: float, host: str, rpo: float
) -> Objectives:
    """Return what is wanted of a guest's protection and what comes next, by the rules of :func:`vmhost.plan.due.due`.

    :param points: its own. :param drills: its own, in order of time. :param host: whose points an increment may lie on.
    :param now: seconds since the epoch. :param rpo: seconds that the newest point may be old where its site says
        nothing.
    """
    last = newest((point for point in whole(points) if point.ref.host == host), host)
    return Objectives(
        wish.rpo or rpo,
        wish.rto,
        wish.verified,
        wish.drill.every,
        next((drill.rto for drill in reversed(drills) if not drill.failed), None),
        _until(wish.every, last.taken if last else "", now),
        _until(wish.drill.every, drills[-1].started if drills else "", now),
    )


def _until(every: float | None, last: str, now: float) -> float | None:
    if every is None:
        return None
    return max(0.0, NEARLY * every - age_of(last, now)) if last else 0.0
