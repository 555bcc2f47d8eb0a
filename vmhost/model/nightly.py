"""What a night brought: of each guest a point or a reason, and how old what protects it is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GuestNight:
    """One guest's night: its new point, whether that was read back whole, how many old points went, and what failed.

    ``drilled`` is what a drill told, if one was due; ``failed`` is the step that did (``look``: at what is due,
    ``backup``, ``verify``, ``prune``, ``drill``) or empty, ``error`` says why.
    """

    name: str
    point: str = ""
    kind: str = ""
    size: int = 0
    verified: bool = False
    pruned: int = 0
    seconds: float = 0.0
    failed: str = ""
    error: str = ""
    drilled: str = ""

    def __str__(self) -> str:
        if self.failed:
            return f"{self.name}: {self.failed} FAILED: {self.error}"
        tail = f"; drill: {self.drilled}" if self.drilled else ""
        if not self.point:
            return f"{self.name}: no point is due{tail}"
        went = f", {self.pruned} old point{'' if self.pruned == 1 else 's'} deleted" if self.pruned else ""
        return f"{self.name}: {self.kind} point {self.point}, verified{went}, in {self.seconds:.1f} s{tail}"


@dataclass(frozen=True, slots=True)
class Night:
    """All guests of one night; times are ISO 8601 in UTC. ``cancelled`` says how far it came, or is empty."""

    started: str
    ended: str
    guests: tuple[GuestNight, ...] = ()
    cancelled: str = ""

    @property
    def failures(self) -> tuple[GuestNight, ...]:
        """Those that failed."""
        return tuple(guest for guest in self.guests if guest.failed)


@dataclass(frozen=True, slots=True)
class Objective:
    """One objective of a guest's protection and how it stands, in seconds; None: nobody knows, or it never was.

    ``name`` is ``rpo``, ``rto``, ``verified`` or ``drill``; ``limit`` is what ``actual`` may be at most, None where
    ``calendar`` says when a drill is due.
    """

    name: str
    limit: float | None
    actual: float | None
    missed: bool = False
    calendar: str = ""

    def __str__(self) -> str:
        unit, size = ("s", 1) if self.name == "rto" else ("h", 3600)
        actual = "-" if self.actual is None else f"{self.actual / size:.0f}"
        limit = "" if self.limit is None else f"/{self.limit / size:.0f}"
        told = f"{actual}{limit} {unit}{f' ({self.calendar})' if self.calendar else ''}"
        return f"{'MISSED ' if self.missed else ''}{self.name} {told}"


@dataclass(frozen=True, slots=True)
class Protection:
    """How a guest is protected: its newest point, and how old that is in seconds, -1: it has none.

    ``problem`` is why it counts as unprotected, or empty. ``verified`` and ``drilled`` are when a point of it was last
    found whole and when it last came back in a drill (ISO 8601), empty: never. ``frozen`` is since when its file
    systems are frozen and nobody could thaw them; ``woken`` whether anything wakes the night's work. ``objectives`` are
    those that there are, the missed ones first.
    """

    name: str
    points: int
    newest: str
    age: float
    kind: str
    level: str
    problem: str = ""
    verified: str = ""
    drilled: str = ""
    frozen: str = ""
    woken: bool = True
    objectives: tuple[Objective, ...] = ()
