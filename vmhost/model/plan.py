"""A plan: plain steps, each with its undo, its change class and its reason."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from vmhost.model.netsteps import KeeperStep, LinkStep
from vmhost.model.steps import EnsurePool, StartDomain, Step


class Change(StrEnum):
    """What a step means for a running guest."""

    LIVE = "live"
    NEXT_BOOT = "next boot"
    NEEDS_STOP = "needs stop"
    REPLACE = "replace"
    REMOVE = "remove"


@dataclass(frozen=True, slots=True)
class Planned:
    """One step of a plan.

    ``undo`` None means: nothing to undo, or it goes with something else. ``subject`` is the guest, link or pool that
    the step is about. ``why`` is one sentence in the glossary's words.
    """

    do: Step
    undo: Step | None
    change: Change
    subject: str
    why: str


@dataclass(frozen=True, slots=True)
class Note:
    """What the plan leaves alone, and why."""

    subject: str
    text: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be done.

    ``steps`` are undone from the end when one fails. After them lies the commit point; failures of ``after`` are
    reported, not undone: it holds what cannot be undone (deleting volumes) and what only looks (waiting for guests).
    """

    site: str
    steps: tuple[Planned, ...] = ()
    after: tuple[Planned, ...] = ()
    notes: tuple[Note, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether the host already is as the site says."""
        return not self.steps and not self.after

    @property
    def guests(self) -> tuple[str, ...]:
        """The subjects of the plan in order of their first step."""
        return tuple(dict.fromkeys(item.subject for item in (*self.steps, *self.after)))

    @property
    def uuids(self) -> tuple[str, ...]:
        """The guests that the plan touches."""
        steps = (item.do for item in (*self.steps, *self.after))
        return tuple(dict.fromkeys(uuid for step in steps if (uuid := getattr(step, "uuid", ""))))

    @property
    def starts(self) -> bool:
        """Whether a step starts a guest."""
        return any(isinstance(item.do, StartDomain) for item in self.steps)

    @property
    def changes_network(self) -> bool:
        """Whether a step is about the host's own network: its links, addresses and routes, or what is kept of them."""
        return any(isinstance(item.do, LinkStep | KeeperStep) for item in (*self.steps, *self.after))

    def same_as(self, other: Plan) -> bool:
        """Whether both plans do the same, whatever they say about it."""
        return tuple(i.do for i in self.steps) == tuple(i.do for i in other.steps) and tuple(
            i.do for i in self.after
        ) == tuple(i.do for i in other.after)

    def without_pools(self, other: Plan) -> Plan:
        """Return this plan without the pools that ``other`` does not make: all sites share them, so somebody has."""
        made = {item.do for item in other.steps}
        rest = (item for item in self.steps if not isinstance(item.do, EnsurePool) or item.do in made)
        return replace(self, steps=tuple(rest))

    def news(self, other: Plan) -> str:
        """Return in one sentence what this plan does that ``other`` did not, or the other way round."""
        mine, theirs = (*self.steps, *self.after), (*other.steps, *other.after)
        if not mine:
            return "now there is nothing to do"
        dos, before = {item.do for item in mine}, {item.do for item in theirs}
        more = next((f"now also: {item.why}" for item in mine if item.do not in before), "")
        return more or next((f"no longer: {item.why}" for item in theirs if item.do not in dos), "in another order")

    def __str__(self) -> str:
        lines = [f"{n:3} {item.change:10}  {item.why}" for n, item in enumerate(self.steps, 1)]
        if self.after:
            lines.append("    -- commit point: from here failures are reported, not undone --")
            lines += [f"{n:3} {item.change:10}  {item.why}" for n, item in enumerate(self.after, len(self.steps) + 1)]
        lines += [f"    note: {note.subject}: {note.text}" for note in self.notes]
        return "\n".join(lines) if lines else f"{self.site}: nothing to do".removeprefix(": ")


@dataclass(frozen=True, slots=True)
class Difference:
    """One field of a guest that is not as it should be.

    ``field`` is dotted (``memory.size``); ``want`` and ``have`` are as people write them. ``outside`` is True when
    the host no longer is what was last applied (somebody edited it), False when the site file moved on.
    """

    guest: str
    field: str
    want: str
    have: str
    outside: bool = False

    def __str__(self) -> str:
        cause = "changed outside vmhost" if self.outside else "the site says otherwise"
        return f"{self.guest}: {self.field} is {self.have or 'nothing'}, should be {self.want or 'nothing'} ({cause})"
