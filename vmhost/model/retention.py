"""How long points stay: what is to be kept, and the verdict on each with its reasons."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Keep:
    """What is to be kept of one guest; 0: this rule keeps nothing.

    ``last``: that many of the newest. ``hourly`` to ``yearly``: the newest of each of that many hours, days, weeks
    (Monday to Sunday), months and years that have any, so that a time in which there were none costs nothing.
    ``within``: seconds before the newest; all of them. A newest one that is further ahead than that, as of a clock that
    was wrong, does not count alone: the one before it does, too.
    """

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    within: float = 0.0

    @property
    def rules(self) -> bool:
        """Whether there is any rule; without one nothing may go."""
        return any((self.last, self.hourly, self.daily, self.weekly, self.monthly, self.yearly, self.within))


@dataclass(frozen=True, slots=True)
class Held:
    """A point as retention sees it.

    ``generation`` says what came after what; ``time``, in seconds since the epoch, only in which hour, day or year it
    belongs, since clocks jump. ``needs`` is the id of the older point that it is of no use without, or empty.
    ``whole`` False: it is known to be damaged.
    """

    id: str
    generation: int
    time: float
    needs: str = ""
    pinned: bool = False
    verified: bool = False
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a point, and why: every reason to keep it, or the one to let it go."""

    point: Held
    keep: bool
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.point.id}: {'kept' if self.keep else 'goes'}: {', '.join(self.reasons)}"
