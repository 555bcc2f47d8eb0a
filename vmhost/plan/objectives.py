"""What a guest's site wants of its protection, and when a night's work has something to do for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, tzinfo
from math import inf

from vmhost.model.drills import DrillRecord
from vmhost.model.objectives import Objectives
from vmhost.model.points import Point
from vmhost.model.spec.protection import BackupSpec
from vmhost.plan.choose import newest, whole
from vmhost.plan.due import due_in


def objectives(
    wish: BackupSpec,
    points: Iterable[Point],
    drills: Sequence[DrillRecord],
    now: float,
    host: str,
    rpo: float,
    *,
    local: tzinfo = UTC,
) -> Objectives:
    """Return what is wanted of a guest's protection and what comes next, by the rules of :func:`vmhost.plan.due.due`.

    :param points: its own. :param drills: its own, in order of time. :param host: whose points an increment may lie on.
    :param now: seconds since the epoch. :param rpo: seconds that the newest point may be old where its site says
        nothing. :param local: the time zone of calendars that name none.
    """
    ours = [point for point in whole(points) if point.ref.host == host]
    last, full = newest(ours, host), newest((point for point in ours if point.kind == "full"), host)
    turns = wish.schedule
    found = (
        due_in(wish.every, turns.points, last.taken if last else None, now, local),
        due_in(wish.full, turns.full, full.taken if full else None, now, local),  # one is taken, whatever the others
    )
    silent = wish.every is None and turns.points is None
    return Objectives(
        wish.rpo or rpo,
        wish.rto,
        wish.verified,
        wish.drill.every,
        next((drill.rto for drill in reversed(drills) if not drill.failed), None),
        None if silent else min((seconds for seconds in found if seconds is not None), default=inf),
        due_in(wish.drill.every, turns.drill, drills[-1].started if drills else None, now, local),
    )
