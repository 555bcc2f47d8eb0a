"""What the guards of guests' ports have dropped, port by port."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from vmhost.model.guard import REASONS, guard_of
from vmhost.plan.guards import LivePort, limits_in_words, live_guards

if TYPE_CHECKING:
    from vmhost.model.observed import Observed


@dataclass(frozen=True, slots=True)
class GuardRow:
    """The port of a running guest, and what holds there.

    ``state``: ``guarded``; ``open``, where the guest may speak in any name; ``wrong``, where the kernel's rules are not
    what they should be. ``dropped`` counts frames by :data:`vmhost.model.guard.REASONS`. ``limits`` in words.
    """

    port: str
    guest: str
    nic: str
    state: Literal["guarded", "open", "wrong"]
    mac: str
    address: str
    isolated: bool
    limits: str
    dropped: tuple[tuple[str, int], ...]


def guard_rows(observed: Observed) -> tuple[GuardRow, ...]:
    """Return the ports of all running guests of ours, by guest."""
    return tuple(
        _row(domain.name, port)
        for domain in observed.domains
        if domain.metadata
        for port in live_guards(domain.metadata.identity, domain, observed)
    )


def _row(guest: str, port: LivePort) -> GuardRow:
    nic, counted = port.nic, dict(port.guard.dropped) if port.guard else {}
    wanted = guard_of(nic) is not None
    return GuardRow(
        port=nic.tap,
        guest=guest,
        nic=nic.id,
        state="wrong" if not port.guarded else "guarded" if wanted else "open",
        mac=nic.mac,
        address=nic.address.partition("/")[0],
        isolated=port.link.isolated,
        limits=limits_in_words(nic.inbound, nic.outbound),
        dropped=tuple((reason, counted.get(reason, 0)) for reason in REASONS) if port.guard else (),
    )
