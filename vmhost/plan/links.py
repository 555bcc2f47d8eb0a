"""Bridges that a site declares, and those that its networks merely name."""

from __future__ import annotations

from vmhost.model.netsteps import AddAddress, CreateBridge, DeleteBridge, RemoveAddress, SetBridge, alias_of
from vmhost.model.observed import Observed, ObservedLink
from vmhost.model.reach import AccessPort
from vmhost.model.spec import BridgeSpec, Site
from vmhost.plan.hostlinks import plan_host_links
from vmhost.plan.request import Conflict, NotFound, Refusal
from vmhost.plan.turns import Turn, Turns
from vmhost.plan.uplinks import plan_uplink


def bridge_alias(site: str) -> str:
    """Return the alias that marks a link as made for a site."""
    return alias_of(site)


def plan_bridges(site: Site, observed: Observed) -> Turns:
    """Return what it takes until the declared bridges are as they should be, and what speaks against the networks."""
    found = Turns()
    for name, spec in site.bridges.items():
        found.add(_plan_bridge(site, name, spec, observed))
    for name, network in site.networks.items():
        if network.bridge and network.bridge not in site.bridges:
            found.refusals += _existing(name, network.bridge, observed)
            found.refusals += _unfiltered(name, network.bridge, site, observed)
    return found


def _plan_bridge(site: Site, name: str, spec: BridgeSpec, observed: Observed) -> Turns:
    """An uplink hands its addresses over before the bridge has them, and VLAN links come last."""
    link, found = observed.link(name), Turns()
    refusals = _differences(site.name, link, spec) if link else []
    if refusals:
        return Turns(refusals=refusals)
    uplink = plan_uplink(site, name, spec, observed)
    handed = [turn for turn in uplink.turns if turn.subject != name]
    found.turns += [*handed, *([_create(site.name, name, spec)] if link is None else _settings(link, spec))]
    found.turns += [turn for turn in uplink.turns if turn.subject == name]
    hosts = plan_host_links(site, name, spec, observed)
    found.turns += hosts.turns
    found.refusals += uplink.refusals or hosts.refusals  # an uplink that cannot be would hand over what is missed here
    found.guarded = uplink.guarded and bool(found.turns)
    return found


def _create(site: str, name: str, spec: BridgeSpec) -> Turn:
    where = f" with {spec.address}" if spec.address else ""
    where += " that keeps VLANs apart" if spec.mode == "vlan-aware" else ""
    return Turn(
        create_bridge(site, name, spec),
        DeleteBridge(name, site),
        name,
        "bridge",
        "there",
        "absent",
        f"new bridge{where}",
    )


def create_bridge(site: str, name: str, spec: BridgeSpec) -> CreateBridge:
    """Return the step that makes a declared bridge."""
    return CreateBridge(name, site, spec.mtu, spec.address or "", spec.mode == "vlan-aware", spec.ipv6)


def _settings(link: ObservedLink, spec: BridgeSpec) -> list[Turn]:
    """Return what mends a bridge of ours while it is used."""
    turns = []
    ipv6 = spec.ipv6 or ":" in (spec.address or "")
    if (link.mtu, link.ipv6) != (spec.mtu, ipv6):
        steps = SetBridge(link.name, spec.mtu, ipv6), SetBridge(link.name, link.mtu, link.ipv6)
        field = "mtu" if link.mtu != spec.mtu else "ipv6"
        want, have = (str(spec.mtu), str(link.mtu)) if field == "mtu" else (_on(ipv6), _on(link.ipv6))
        turns.append(Turn(*steps, link.name, field, want, have, f"{field} {have} -> {want}"))
    if spec.address and spec.address not in link.addresses:
        steps_address = AddAddress(link.name, spec.address), RemoveAddress(link.name, spec.address)
        turns.append(Turn(*steps_address, link.name, "address", spec.address, "", f"address {spec.address}"))
    return turns


def _on(value: bool) -> str:
    return "on" if value else "off"


def _differences(site: str, link: ObservedLink, spec: BridgeSpec) -> list[Refusal]:
    hint = f"ip -d link show {link.name}"
    if link.kind != "bridge":
        return [Refusal(link.name, f"this link is {_kind(link)}, not a bridge", hint)]
    if link.alias != bridge_alias(site):
        owner = link.alias.removeprefix("vmhost:")
        whose = f"belongs to site {owner}" if owner != link.alias else "was not made by vmhost"
        text = f"this bridge {whose}; to use it as it is, leave it out of 'bridges:'"
        return [Refusal(link.name, text, hint)]
    if link.vlan_filtering != (spec.mode == "vlan-aware"):
        have = "vlan-aware" if link.vlan_filtering else "plain"
        text = f"this bridge is {have}, should be {spec.mode}: that cuts off whoever is on it"
        hint = f"ip link show master {link.name}; when nobody is: ip link delete {link.name}"
        return [Refusal(link.name, text, hint)]
    if not link.up:
        return [Refusal(link.name, "the bridge is down", f"ip link set {link.name} up")]
    return []


def _existing(network: str, bridge: str, observed: Observed) -> list[Refusal]:
    link = observed.link(bridge)
    if link is None:
        text = f"bridge {bridge} of network {network} does not exist; declare it under 'bridges:' to have it made"
        return [Refusal(network, text, "ip link show type bridge", NotFound)]
    if link.kind != "bridge":
        return [Refusal(network, f"{bridge} is {_kind(link)}, not a bridge", "ip link show type bridge", Conflict)]
    return []


def _unfiltered(network: str, bridge: str, site: Site, observed: Observed) -> list[Refusal]:
    """Return why guests of a network cannot be put into VLANs on a bridge that is not ours to change."""
    link = observed.link(bridge)
    tagged = any(nic.network == network and nic.tagged for guest in site.guests for nic in guest.nics)
    if link is None or link.kind != "bridge" or link.vlan_filtering or not (site.networks[network].vlan or tagged):
        return []
    text = f"bridge {bridge} does not filter VLANs: guests of network {network} would not be kept apart"
    return [Refusal(network, text, f"ip link set {bridge} type bridge vlan_filtering 1")]


def _kind(link: ObservedLink) -> str:
    return f"a link of kind {link.kind}" if link.kind else "hardware"


def access_of(observed: Observed, leaving: frozenset[str]) -> set[str]:
    """Return the host's access ports into VLANs that only domains ``leaving`` are reached by: they go with these."""
    needed: dict[bool, set[str]] = {True: set(), False: set()}
    for domain in observed.domains:
        for nic in domain.metadata.identity.nics if domain.metadata else ():
            if isinstance(way := nic.way, AccessPort):
                needed[domain.uuid in leaving].add(way.port)
    return needed[True] - needed[False]


def idle_bridges(site: str, observed: Observed, leaving: frozenset[str]) -> tuple[str, ...]:
    """Return the bridges made for ``site`` that no domain would use after the domains ``leaving`` (UUIDs) are gone.

    A bridge with an uplink, or with the host's own place in a VLAN, stays: it is more than the guests'.
    """
    used = {nic.source for domain in observed.domains if domain.uuid not in leaving for nic in domain.facts.nics}
    taps = {nic.tap for domain in observed.domains if domain.uuid in leaving for nic in domain.facts.nics}
    used |= {link.master for link in observed.links if link.name not in taps | access_of(observed, leaving)}
    used |= {link.parent for link in observed.links}
    ours = [link.name for link in observed.links if link.kind == "bridge" and link.alias == bridge_alias(site)]
    return tuple(name for name in ours if name not in used)
