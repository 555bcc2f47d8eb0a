"""Uplinks of bridges: which link may be one, what it has to hand over, and the VLANs that pass it."""

from __future__ import annotations

from ipaddress import ip_interface
from shlex import quote

from vmhost.model.netsteps import (
    AddAddress,
    AttachUplink,
    DetachUplink,
    HostRoute,
    RemoveAddress,
    add_route,
    remove_route,
)
from vmhost.model.observed import Observed, ObservedLink
from vmhost.model.spec import BridgeSpec, Site
from vmhost.model.vlans import NO_VLAN, PortVlans, parse_vids, port_vlans
from vmhost.plan.hostlinks import host_addresses, route_words, wanted_routes
from vmhost.plan.request import Conflict, NotFound, Refusal, Refused
from vmhost.plan.turns import Turn, Turns, port_step


def uplink_vlans(site: Site, name: str, spec: BridgeSpec, observed: Observed) -> PortVlans:
    """Return what passes an uplink: the VLANs of the bridge's networks, of NICs and of guests of any site, and the
    native one untagged.
    """
    if spec.mode != "vlan-aware":
        return NO_VLAN
    networks = {key: network for key, network in site.networks.items() if network.bridge == name}
    vids = {network.vlan for network in networks.values() if isinstance(network.vlan, int)}
    for guest in site.guests:
        for nic in guest.nics:
            vids |= parse_vids(nic.tagged or "") if nic.network in networks else frozenset()
    for domain in observed.domains:
        for held in domain.metadata.identity.nics if domain.metadata else ():
            if held.bridge == name and held.vlans is not None:
                vids |= held.vlans.untagged | held.vlans.tagged
    native = spec.native or 0
    return port_vlans(native, vids - {native})


def present_uplink(site: str, name: str, spec: BridgeSpec | None, observed: Observed) -> ObservedLink | None:
    """Return the port of a bridge that is its uplink: the one that the site names, or the one that we once attached."""
    kept = [step.link for step in observed.network.kept_of(site).steps if isinstance(step, AttachUplink)]
    named = [spec.uplink] if spec and spec.uplink else []
    for link in (observed.link(one) for one in (*named, *kept)):
        if link is not None and link.master == name:
            return link
    return None


def plan_uplink(site: Site, name: str, spec: BridgeSpec, observed: Observed) -> Turns:
    """Return what it takes until the bridge has the uplink that it should have, with its VLANs."""
    found = Turns()
    have = present_uplink(site.name, name, spec, observed)
    if have is not None and have.name != spec.uplink:
        found.guarded = True
        found.turns += _leave(name, have)
    if spec.uplink is None:
        return found
    link = observed.link(spec.uplink)
    found.refusals += _against(site, name, spec, link, observed)
    if found.refusals or link is None:
        return found
    found.guarded = True
    attached = link.master == name
    if not attached:
        found.turns += _hand_over(link, observed)
        where = AttachUplink(link.name, name), DetachUplink(link.name, name, link.up)
        found.turns.append(Turn(*where, name, "uplink", link.name, "", f"uplink {link.name}"))
    elif not link.up:
        text = "the uplink is down"
        found.refusals.append(Refusal(name, f"{text}: {link.name}", f"ip link set {link.name} up"))
    want, now = uplink_vlans(site, name, spec, observed), link.vlans if attached else NO_VLAN
    if spec.mode == "vlan-aware" and want != now:
        steps = port_step(link.name, want), port_step(link.name, now)
        found.turns.append(Turn(*steps, name, "uplink.vlans", str(want), str(now), f"uplink {link.name}: {want}"))
    return found


def _leave(name: str, link: ObservedLink) -> list[Turn]:
    """Return the steps that take an uplink off its bridge."""
    steps = DetachUplink(link.name, name, link.up), AttachUplink(link.name, name)
    turns = [Turn(*steps, name, "uplink", "", link.name, f"take {link.name} off")]
    if link.vlans != NO_VLAN:
        steps_before = port_step(link.name, NO_VLAN), port_step(link.name, link.vlans)
        why = f"{link.name}: no VLAN any more"
        turns.insert(0, Turn(*steps_before, name, "uplink.vlans", str(NO_VLAN), str(link.vlans), why))
    return turns


def leave_uplink(site: str, name: str, observed: Observed) -> list[Turn]:
    """Return the steps that take the uplink off a bridge that goes."""
    link = present_uplink(site, name, None, observed)
    return _leave(name, link) if link else []


def _hand_over(link: ObservedLink, observed: Observed) -> list[Turn]:
    """Return the steps that take routes and addresses off a link; the bridge or a VLAN link of it gets them."""
    turns = [
        Turn(
            remove_route(route),
            add_route(route),
            link.name,
            "routes",
            "",
            route_words(route),
            f"no route to {route_words(route)}",
        )
        for route in observed.network.routes
        if route.link == link.name
    ]
    for held in reversed([held for held in link.held if not ip_interface(held.address).ip.is_link_local]):
        steps = (
            RemoveAddress(link.name, held.address, held.broadcast),
            AddAddress(link.name, held.address, held.broadcast),
        )
        turns.append(Turn(*steps, link.name, "address", "", held.address, f"no address {held.address}"))
    return turns


def _against(site: Site, name: str, spec: BridgeSpec, link: ObservedLink | None, observed: Observed) -> list[Refusal]:
    """Return why a link cannot be the uplink of a bridge."""
    hint = f"ip -details link show {spec.uplink}"
    if not (observed.host.privileged and observed.host.local):
        text = f"an uplink needs the system's libvirt of this machine, not {observed.host.uri}"
        return [Refusal(name, text, "vmhost -c qemu:///system net plan SITE", Refused)]
    if link is None:
        return [Refusal(name, f"there is no link {spec.uplink} to be its uplink", "ip link", NotFound)]
    if unfit := _unfit(link, observed):
        return [Refusal(name, f"{link.name} {unfit}", hint)]
    if link.master and link.master != name:
        master = observed.link(link.master)
        better = f"name {link.master} instead" if master and master.kind != "bridge" else f"take it off {link.master}"
        text = f"{link.name} is a port of {link.master}: {better}"
        return [
            Refusal(name, text, hint if master and master.kind != "bridge" else f"ip link set {link.name} nomaster")
        ]
    if spec.mtu > link.mtu:
        text = f"mtu {spec.mtu} is more than the {link.mtu} of its uplink {link.name}"
        return [Refusal(name, text, f"ip link set {link.name} mtu {spec.mtu}")]
    if link.master == name:
        return []
    return [
        *_managed(name, link, observed),
        *_taken_vlans(site, name, spec, link, observed),
        *_cut_off(site, name, link, observed),
    ]


def _unfit(link: ObservedLink, observed: Observed) -> str:
    taps = {nic.tap for domain in observed.domains for nic in domain.facts.nics}
    if link.kind == "bridge" or link.mac == "00:00:00:00:00:00":
        return "is a bridge" if link.kind == "bridge" else "is the loopback"
    if link.name in taps or link.kind == "tun":
        return "is the port of a guest"
    return "was made by vmhost for something else" if link.alias.startswith("vmhost:") else ""


def _managed(name: str, link: ObservedLink, observed: Observed) -> list[Refusal]:
    """Two programs that configure one link undo each other's work."""
    return [
        Refusal(name, f"{manager.name} configures {link.name} and would fight over it", "; ".join(manager.hand_over))
        for manager in observed.network.managers
        if manager.link == link.name
    ]


def _taken_vlans(site: Site, name: str, spec: BridgeSpec, link: ObservedLink, observed: Observed) -> list[Refusal]:
    """A VLAN link on the uplink gets its frames before the bridge sees them."""
    want = uplink_vlans(site, name, spec, observed)
    return [
        Refusal(name, f"{one.name} takes VLAN {one.vid} from {link.name}", f"ip link delete {one.name}")
        for one in observed.links
        if one.parent == link.name and one.vid in want.tagged | want.untagged
    ]


def _cut_off(site: Site, name: str, link: ObservedLink, observed: Observed) -> list[Refusal]:
    """Whoever reaches this host by an address of the uplink must find it on the bridge, and the way back, too."""
    refusals = []
    wanted = {ip_interface(address) for _, address in host_addresses(site, name)}
    for held in link.held:
        address = ip_interface(held.address)
        if address.ip.is_link_local:
            continue
        if address not in wanted:
            text = f"{link.name} has {held.address}, which nobody would reach any more"
            hint = f"write address: {held.address} at a network of {name}; or ip address delete {held.address} dev"
            refusals.append(Refusal(name, text, f"{hint} {quote(link.name)}"))
        elif not held.lasting:
            text = f"{link.name} has {held.address} for a time only, or as a peer's: it could not be put back"
            refusals.append(Refusal(name, text, f"ip address show {link.name}", Conflict))
    ways = {(route.to, route.via) for route in wanted_routes(site, name)}
    for route in observed.network.routes:
        if route.link == link.name and (route.to, route.via) not in ways:
            refusals.append(_lost(name, link, route))
    return refusals


def _lost(name: str, link: ObservedLink, route: HostRoute) -> Refusal:
    to = route_words(route)
    text = f"the host's route to {to} by {link.name} would be lost"
    hint = (
        f"write routes: [{{to: {to}, via: {route.via or 'ADDRESS'}}}] at a network of {name}; or ip route delete {to}"
    )
    return Refusal(name, text, f"{hint} dev {link.name}")
