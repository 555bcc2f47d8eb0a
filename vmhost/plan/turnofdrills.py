"""Whose drill is next: who never had one, then who had it the longest ago."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vmhost.model.drills import DrillRecord


@dataclass(frozen=True, slots=True)
class Turn:
    """A guest that is to be drilled; ``seconds`` is how long all of its last drill took, 0 when nobody knows."""

    name: str
    seconds: float = 0.0


def last_drills(drills: Iterable[DrillRecord]) -> dict[str, DrillRecord]:
    """Return the last drill of each guest, by UUID, who had it the longest ago first.

    :param drills: in the order in which they were noted, which a clock that was wrong does not change.
    """
    last = dict[str, DrillRecord]()
    for drill in drills:
        last.pop(drill.guest, None)
        last[drill.guest] = drill
    return last


def turns(guests: Mapping[str, str], drills: Iterable[DrillRecord]) -> tuple[Turn, ...]:
    """Return the guests, given as names by UUID, in the order in which they are to be drilled."""
    last = last_drills(drills)
    order = [
        *sorted(guests.keys() - last.keys(), key=lambda uuid: guests[uuid]),
        *(uuid for uuid in last if uuid in guests),
    ]
    return tuple(Turn(guests[uuid], _took(last[uuid]) if uuid in last else 0.0) for uuid in order)


def _took(drill: DrillRecord) -> float:
    """Return how long a drill took; of one before that was kept, until its guest was there."""
    return max(0.0, drill.seconds if drill.seconds >= 0 else drill.rto)
