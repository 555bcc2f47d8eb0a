"""One difference between the network that a site wants and the one that is, with the step that mends it."""

from __future__ import annotations

from dataclasses import dataclass, field

from vmhost.model.netsteps import LinkStep, SetPortVlans
from vmhost.model.plan import Change, Difference, Note, Planned
from vmhost.model.vlans import PortVlans, format_vids
from vmhost.plan.request import Refusal


def port_step(port: str, vlans: PortVlans) -> SetPortVlans:
    """Return the step that makes a port, or a bridge itself, carry exactly these VLANs."""
    return SetPortVlans(port, vlans.pvid, format_vids(vlans.untagged), format_vids(vlans.tagged))


@dataclass(frozen=True, slots=True)
class Turn:
    """A step of a network plan. ``field`` is dotted, ``want`` and ``have`` are as people write them."""

    do: LinkStep
    undo: LinkStep
    subject: str
    field: str
    want: str
    have: str
    why: str

    @property
    def planned(self) -> Planned:
        """The step as plans hold it."""
        return Planned(self.do, self.undo, Change.LIVE, self.subject, f"{self.subject}: {self.why}")

    def difference(self, applied: frozenset[LinkStep]) -> Difference:
        """Return it as drift; ``applied`` is what was applied last."""
        return Difference(self.subject, self.field, self.want, self.have, self.do in applied)


@dataclass(slots=True)
class Turns:
    """What a part of the network needs. ``guarded``: it may cut off whoever works on this host over its network."""

    turns: list[Turn] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    guarded: bool = False

    def add(self, other: Turns) -> None:
        """Take over everything of another part."""
        self.turns += other.turns
        self.refusals += other.refusals
        self.notes += other.notes
        self.guarded |= other.guarded
