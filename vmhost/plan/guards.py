"""What holds at the ports of guests besides VLANs: isolation, guards against speaking in others' names, limits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from vmhost.model.guard import ObservedGuard, guard_of
from vmhost.model.identity import GuestIdentity, NicIdentity
from vmhost.model.observed import Observed, ObservedDomain, ObservedLink
from vmhost.model.plan import Change, Planned
from vmhost.model.spec import NetworkSpec, NicSpec
from vmhost.model.steps import GuardPort, IsolatePort, SetBandwidth, UnguardPort
from vmhost.model.units import format_rate
from vmhost.render.nft import marks
from vmhost.render.views import kib_a_second


@dataclass(frozen=True, slots=True)
class LivePort:
    """A NIC of a running guest, its port, and the guard that the port has."""

    nic: NicIdentity
    link: ObservedLink
    guard: ObservedGuard | None

    @property
    def guarded(self) -> bool:
        """Whether the port has exactly the guard that the NIC should have, or none if it should have none."""
        wanted = guard_of(self.nic)
        if wanted is None or self.guard is None:
            return wanted is None and self.guard is None
        return self.guard.reached and self.guard.marks == marks(wanted)


def is_isolated(nic: NicSpec, network: NetworkSpec) -> bool:
    """Whether a NIC is isolated: as it says itself, else as its network says."""
    return network.isolated if nic.isolated is None else nic.isolated


def spoofing_of(nic: NicSpec, network: NetworkSpec) -> str:
    """Return whether a NIC may speak in the name of others."""
    return nic.spoofing or network.spoofing


def guarded(made: NicIdentity, nic: NicSpec, network: NetworkSpec) -> NicIdentity:
    """Return a NIC with what is to hold at its port."""
    limits = nic.bandwidth or network.bandwidth
    return replace(
        made,
        isolated=is_isolated(nic, network),
        spoofing="refused" if spoofing_of(nic, network) == "refused" else "",
        inbound=(limits.inbound or 0) if limits else 0,
        outbound=(limits.outbound or 0) if limits else 0,
    )


def live_guards(identity: GuestIdentity, domain: ObservedDomain, observed: Observed) -> Iterator[LivePort]:
    """Yield the NICs of a running guest that have their ports."""
    guards = {one.port: one for one in observed.guards}
    for nic in identity.nics if domain.active else ():
        link = observed.link(nic.tap) if nic.tap else None
        if link is not None and link.master:
            yield LivePort(nic, link, guards.get(nic.tap))


def set_guards(name: str, identity: GuestIdentity, domain: ObservedDomain, observed: Observed) -> list[Planned]:
    """Return the steps that make isolation and guards hold at once for a running guest."""
    old = {nic.tap: nic for nic in domain.metadata.identity.nics} if domain.metadata else {}
    steps = []
    for port in live_guards(identity, domain, observed):
        tap, on = port.nic.tap, port.nic.isolated
        if not port.guarded:
            steps.append(_guard(name, port, old.get(tap)))
        if port.link.isolated != on:
            why = f"{name}: port {tap} {'is isolated' if on else 'is no longer isolated'}"
            steps.append(Planned(IsolatePort(tap, on), IsolatePort(tap, not on), Change.LIVE, name, why))
    return steps


def set_limits(name: str, identity: GuestIdentity, domain: ObservedDomain) -> list[Planned]:
    """Return the steps that give NICs of a guest other limits: at once where it runs, and in its definition."""
    facts = {nic.alias: nic for nic in domain.facts.nics}
    steps = []
    for nic in identity.nics:
        found = facts.get(f"ua-nic-{nic.id}")
        want = kib_a_second(nic.inbound), kib_a_second(nic.outbound)
        if not nic.tap or found is None or (found.inbound, found.outbound) == want:
            continue
        do = SetBandwidth(domain.uuid, found.tap, *want)
        undo = SetBandwidth(domain.uuid, found.tap, found.inbound, found.outbound)
        why = f"{name}: limits of NIC {nic.id}: {limits_in_words(nic.inbound, nic.outbound)}"
        steps.append(Planned(do, undo, Change.LIVE, name, why))
    return steps


def limits_in_words(inbound: int, outbound: int) -> str:
    """Return limits in bits a second as people read them."""
    if inbound == outbound:
        return format_rate(inbound) + (" both ways" if inbound else "")
    return f"{format_rate(inbound)} in, {format_rate(outbound)} out"


def _guard(name: str, port: LivePort, old: NicIdentity | None) -> Planned:
    tap, wanted = port.nic.tap, guard_of(port.nic)
    before = guard_of(old) if old is not None and port.guard is not None else None
    undo: GuardPort | UnguardPort = UnguardPort(tap) if before is None else GuardPort(before)
    if wanted is None:
        return Planned(UnguardPort(tap), undo, Change.LIVE, name, f"{name}: port {tap} is no longer guarded")
    why = f"{name}: guard port {tap} against speaking in the name of others"
    return Planned(GuardPort(wanted), undo, Change.LIVE, name, why)
