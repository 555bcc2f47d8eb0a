"""What is wanted of a guest's protection, and what comes next for it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Objectives:
    """What is wanted of a guest's protection and what comes next for it, all in seconds.

    ``rpo`` is how old its newest point may be, ``verified`` how long ago one was found whole, ``drill`` how long ago it
    was drilled; None: its site does not say. ``rto`` is how long its last good drill took, None: there was none.
    ``next_point`` and ``next_drill`` are the time until a night's work has that to do for it, 0: now; None: a point at
    every night's work, a drill never by itself.
    """

    rpo: float
    verified: float | None = None
    drill: float | None = None
    rto: float | None = None
    next_point: float | None = None
    next_drill: float | None = None
