"""What is wanted of a guest's protection, and what comes next for it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Objectives:
    """What is wanted of a guest's protection and what comes next for it, all in seconds.

    ``rpo`` is how old its newest point may be, ``rto`` how long a drill may take to bring it back, ``verified`` how
    long ago a point was found whole, ``drill`` how long ago it was drilled; None: its site does not say. ``took`` is
    how long its last good drill took, None: there was none.
    ``next_point`` and ``next_drill`` are the time until that is due, when a night's work next runs, 0: now; None: a
    point at every night's work, a drill never by itself; a point whose calendar has no more days is infinitely far.
    """

    rpo: float
    rto: float | None = None
    verified: float | None = None
    drill: float | None = None
    took: float | None = None
    next_point: float | None = None
    next_drill: float | None = None
