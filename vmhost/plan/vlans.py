"""VLANs of guests: who is in one, what its port should carry, and the hook that sees to it at every start."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from vmhost.model.identity import GuestIdentity, NicIdentity
from vmhost.model.observed import Observed, ObservedDomain
from vmhost.model.plan import Change, Planned
from vmhost.model.spec import NetworkSpec, NicSpec, Site
from vmhost.model.steps import InstallHook, RemoveHook, RestartDaemon
from vmhost.model.vlans import PortVlans
from vmhost.plan.guards import is_isolated, spoofing_of
from vmhost.plan.request import Refusal, Refused
from vmhost.plan.turns import port_step

HOOK = "libvirt"
"""What the steps about the hook are about."""


def in_vlans(nic: NicIdentity, spec: NicSpec, network: NetworkSpec) -> NicIdentity:
    """Return a NIC with the VLANs of its port, if it is to be in some."""
    if not isinstance(network.vlan, int) and spec.tagged is None:
        return nic
    pvid = network.vlan if isinstance(network.vlan, int) else 0
    return replace(nic, pvid=pvid, tagged=spec.tagged or "", bridge=network.bridge or "")


def uses_vlans(identity: GuestIdentity) -> bool:
    """Whether a NIC of a guest is in a VLAN."""
    return any(nic.pvid or nic.tagged for nic in identity.nics)


def needs_hook(identity: GuestIdentity) -> bool:
    """Whether something has to hold for a port of a guest before its system runs."""
    return uses_vlans(identity) or any(nic.isolated or nic.spoofing == "refused" for nic in identity.nics)


def plan_hook(site: Site, observed: Observed) -> tuple[list[Planned], list[Refusal]]:
    """Return the steps that make libvirt tag the ports of the site's guests, and what speaks against it."""
    nics = [nic for guest in site.guests for nic in guest.nics]
    if not any(_wants_hook(nic, site.networks[nic.network]) for nic in nics):
        return [], []
    host, hook = observed.host, observed.hook
    if not (host.privileged and host.local):
        text = f"VLANs, isolation and guards need the system's libvirt of this machine, not {host.uri}"
        return [], [Refusal(site.name, text, "vmhost -c qemu:///system plan SITE", Refused)]
    if hook.installed and hook.active:
        return [], []
    steps = []
    if not hook.installed:
        why = "libvirt: a hook that sets up the ports of guests at every start"
        # One of an older vmhost is replaced for good: guests that run may need it.
        undo = None if _anybody(observed) else RemoveHook()
        steps.append(Planned(InstallHook(), undo, Change.LIVE, HOOK, why))
    why = "libvirt: restart its daemon, which reads hooks when it starts; guests run on"
    return [*steps, Planned(RestartDaemon(), None, Change.LIVE, HOOK, why)], []


def _wants_hook(nic: NicSpec, network: NetworkSpec) -> bool:
    in_vlan = nic.tagged is not None or isinstance(network.vlan, int)
    return in_vlan or is_isolated(nic, network) or spoofing_of(nic, network) == "refused"


def unused_hook(observed: Observed, leaving: frozenset[str]) -> list[Planned]:
    """Return the step that takes the hook away when nobody is in a VLAN after the domains ``leaving`` (UUIDs) go."""
    if not observed.hook.installed or _anybody(observed, leaving):
        return []
    why = "libvirt: take the hook away, no guest's port needs it any more"
    return [Planned(RemoveHook(), None, Change.LIVE, HOOK, why)]


def _anybody(observed: Observed, leaving: frozenset[str] = frozenset()) -> bool:
    return any(
        domain.metadata and needs_hook(domain.metadata.identity)
        for domain in observed.domains
        if domain.uuid not in leaving
    )


def live_ports(
    identity: GuestIdentity, domain: ObservedDomain, observed: Observed
) -> Iterator[tuple[NicIdentity, PortVlans, PortVlans]]:
    """Yield the NICs of a running guest that are to be in VLANs: each with what its port should carry and carries.

    A port that is still on another bridge is left alone: it moves at the guest's next boot.
    """
    for nic in identity.nics if domain.active else ():
        vlans, link = nic.vlans, observed.link(nic.tap) if nic.tap else None
        if vlans is not None and link is not None and link.master == nic.bridge:
            yield nic, vlans, link.vlans


def set_ports(name: str, identity: GuestIdentity, domain: ObservedDomain, observed: Observed) -> list[Planned]:
    """Return the steps that put the ports of a running guest into their VLANs at once."""
    return [
        Planned(
            port_step(nic.tap, want),
            port_step(nic.tap, have),
            Change.LIVE,
            name,
            f"{name}: port {nic.tap} {have} -> {want}",
        )
        for nic, want, have in live_ports(identity, domain, observed)
        if want != have
    ]
