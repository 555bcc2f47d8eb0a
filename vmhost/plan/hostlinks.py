"""The host's own place in VLANs: VLAN links on its bridges with addresses, and routes through them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_interface, ip_network
from typing import Final
from zlib import crc32

from vmhost.model.netsteps import (
    AddRoute,
    CreateVlanLink,
    DeleteVlanLink,
    HostRoute,
    add_route,
    alias_of,
    remove_route,
)
from vmhost.model.observed import Observed, ObservedLink
from vmhost.model.spec import BridgeSpec, NetworkSpec, Site
from vmhost.model.vlans import NO_VLAN, PortVlans, format_vids
from vmhost.plan.request import Refusal
from vmhost.plan.turns import Turn, Turns, port_step

LONGEST: Final = 14
_STATIC: Final = 4  # RTPROT_STATIC of linux/rtnetlink.h
_IPV6_METRIC: Final = 1024  # what the kernel takes for an IPv6 route that names none


def vlan_link_name(bridge: str, vid: int) -> str:
    """Return the name of the host's link in a VLAN of a bridge, of less than 15 bytes."""
    plain = f"{bridge}.{vid}"
    return plain if len(plain) <= LONGEST else f"v{crc32(bridge.encode()):08x}.{vid}"


def _networks(site: Site, bridge: str) -> Iterator[NetworkSpec]:
    return (network for network in site.networks.values() if network.bridge == bridge)


def host_addresses(site: Site, bridge: str) -> Iterator[tuple[str, str]]:
    """Yield the links that give the host addresses on a bridge, each with its address."""
    spec = site.bridges[bridge]
    if spec.address:
        yield bridge, spec.address
    for network in _networks(site, bridge):
        if network.address and isinstance(network.vlan, int):
            yield vlan_link_name(bridge, network.vlan), network.address


def wanted_links(site: Site, bridge: str, spec: BridgeSpec) -> tuple[CreateVlanLink, ...]:
    """Return the VLAN links that the host should have on a bridge."""
    return tuple(
        CreateVlanLink(vlan_link_name(bridge, network.vlan), bridge, network.vlan, site.name, spec.mtu, network.address)
        for network in _networks(site, bridge)
        if network.address and isinstance(network.vlan, int)
    )


def wanted_routes(site: Site, bridge: str) -> tuple[HostRoute, ...]:
    """Return the routes that the host should have through a bridge."""
    found = []
    for network in _networks(site, bridge):
        link = vlan_link_name(bridge, network.vlan) if isinstance(network.vlan, int) else bridge
        for route in network.routes:
            to = route.to if route.to != "default" else "::/0" if ":" in route.via else "0.0.0.0/0"
            metric = _IPV6_METRIC if ip_network(to).version == 6 else 0
            found.append(HostRoute(to, route.via, link, "", metric, _STATIC, 0))
    return tuple(found)


def own_vlans(links: tuple[CreateVlanLink, ...]) -> PortVlans:
    """Return the VLANs that a bridge itself is in, so that the host's VLAN links on it hear something."""
    return PortVlans(0, frozenset(), frozenset(link.vid for link in links))


def plan_host_links(site: Site, bridge: str, spec: BridgeSpec, observed: Observed) -> Turns:
    """Return what it takes until the host has its place in the VLANs of a bridge, and its routes through it."""
    found = Turns()
    links, there = wanted_links(site, bridge, spec), observed.link(bridge)
    leaving = [link for link in _ours(site.name, bridge, observed) if not any(_same(want, link) for want in links)]
    for link in leaving:
        found.turns += delete_vlan_link(site.name, link, observed)
    want, have = own_vlans(links), there.vlans if there else NO_VLAN
    if spec.mode == "vlan-aware" and want != have:
        steps = port_step(bridge, want), port_step(bridge, have)
        words = f"the host itself in VLAN {format_vids(want.tagged)}" if want.tagged else "the host itself in no VLAN"
        found.turns.append(Turn(*steps, bridge, "vlans", str(want), str(have), words))
    gone = {link.name for link in leaving}
    for wanted in links:
        have_link = observed.link(wanted.name)
        if have_link is None or wanted.name in gone:
            undo = DeleteVlanLink(wanted.name, site.name)
            why = f"new VLAN link with {wanted.address}"
            found.turns.append(Turn(wanted, undo, wanted.name, "address", wanted.address, "", why))
        elif not _same(wanted, have_link):
            text = f"a link of this name is there, and not the host's in VLAN {wanted.vid} of {bridge}"
            found.refusals.append(Refusal(wanted.name, text, f"ip -details link show {wanted.name}"))
        elif not have_link.up:
            found.refusals.append(Refusal(wanted.name, "this link is down", f"ip link set {wanted.name} up"))
    found.add(_plan_routes(site, bridge, observed, gone))
    return found


def _ours(site: str, bridge: str, observed: Observed) -> list[ObservedLink]:
    alias = alias_of(site)
    return [link for link in observed.links if link.kind == "vlan" and link.parent == bridge and link.alias == alias]


def _same(want: CreateVlanLink, have: ObservedLink) -> bool:
    same = (want.name, want.bridge, want.vid, want.mtu) == (have.name, have.parent, have.vid, have.mtu)
    addresses = {ip_interface(text) for text in have.addresses if not ip_interface(text).ip.is_link_local}
    return same and have.alias == alias_of(want.site) and addresses == {ip_interface(want.address)}


def delete_vlan_link(site: str, link: ObservedLink, observed: Observed) -> list[Turn]:
    """Return the steps that delete a VLAN link of ours, with the routes that go with it."""
    turns = [_no_route(route) for route in observed.network.routes if route.link == link.name]
    address = next((text for text in link.addresses if not ip_interface(text).ip.is_link_local), "")
    made = CreateVlanLink(link.name, link.parent, link.vid, site, link.mtu, address)
    turns.append(
        Turn(DeleteVlanLink(link.name, site), made, link.name, "address", "", address, "delete this VLAN link")
    )
    return turns


def leave_host_links(site: str, bridge: str, observed: Observed) -> list[Turn]:
    """Return the steps that delete the host's VLAN links on a bridge that goes."""
    return [turn for link in _ours(site, bridge, observed) for turn in delete_vlan_link(site, link, observed)]


def _plan_routes(site: Site, bridge: str, observed: Observed, gone: set[str]) -> Turns:
    found = Turns()
    uplink = site.bridges[bridge].uplink
    wanted = wanted_routes(site, bridge)
    kept = {step.link for step in observed.network.kept_of(site.name).steps if isinstance(step, AddRoute)}
    ours = {link.name for link in _ours(site.name, bridge, observed)} | (kept & {bridge})
    for route in observed.network.routes:
        if route.link in ours - gone and _plain(route) not in wanted:
            found.turns.append(_no_route(route))
    leaving = {turn.do for turn in found.turns}
    for route in wanted:
        there = [one for one in observed.network.routes if _plain(one) == route and one.link not in gone]
        if there:
            continue
        taken = [
            one
            for one in observed.network.routes
            if (one.to, one.metric) == (route.to, route.metric)
            and one.link not in {uplink, *gone}
            and remove_route(one) not in leaving
        ]
        if taken:
            text = f"there is a route to {route.to} by {taken[0].link} already"
            found.refusals.append(Refusal(route.link, text, f"ip route delete {route.to} dev {taken[0].link}"))
            continue
        why = f"route to {route_words(route)} by {route.via}"
        steps = add_route(route), remove_route(route)
        found.turns.append(Turn(*steps, route.link, "routes", f"{route_words(route)} by {route.via}", "", why))
    return found


def _no_route(route: HostRoute) -> Turn:
    steps = remove_route(route), add_route(route)
    return Turn(
        *steps, route.link, "routes", "", f"{route_words(route)} by {route.via}", f"no route to {route_words(route)}"
    )


def _plain(route: HostRoute) -> HostRoute:
    return replace(route, source="")


def route_words(route: HostRoute) -> str:
    """Return where a route leads to, as people write it."""
    return "default" if route.to in ("0.0.0.0/0", "::/0") else route.to
