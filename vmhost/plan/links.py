"""Bridges that a site declares, and those that its networks merely name."""

from __future__ import annotations

from vmhost.model.observed import Observed, ObservedLink
from vmhost.model.plan import Change, Planned
from vmhost.model.spec import BridgeSpec, Site
from vmhost.model.steps import CreateBridge, DeleteBridge
from vmhost.plan.request import Conflict, NotFound, Refusal


def bridge_alias(site: str) -> str:
    """Return the alias that marks a link as made for a site."""
    return f"vmhost:{site}"


def plan_bridges(site: Site, observed: Observed) -> tuple[list[Planned], list[Refusal]]:
    """Return the steps that make the declared bridges, and what speaks against the networks."""
    steps: list[Planned] = []
    refusals: list[Refusal] = []
    for name, spec in site.bridges.items():
        link = observed.link(name)
        if link is None:
            steps.append(_create(site.name, name, spec))
        else:
            refusals += _differences(site.name, link, spec)
    for name, network in site.networks.items():
        if network.bridge and network.bridge not in site.bridges:
            refusals += _existing(name, network.bridge, observed)
            refusals += _unfiltered(name, network.bridge, site, observed)
    return steps, refusals


def _create(site: str, name: str, spec: BridgeSpec) -> Planned:
    where = f" with {spec.address}" if spec.address else ""
    where += " that keeps VLANs apart" if spec.mode == "vlan-aware" else ""
    return Planned(
        CreateBridge(name, site, spec.mtu, spec.address or "", spec.mode == "vlan-aware"),
        DeleteBridge(name, site),
        Change.LIVE,
        name,
        f"{name}: new bridge{where}",
    )


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
    if spec.address and spec.address not in link.addresses:
        return [
            Refusal(
                link.name,
                f"the bridge lacks its address {spec.address}",
                f"ip address add {spec.address} dev {link.name}",
            )
        ]
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


def idle_bridges(site: str, observed: Observed, leaving: frozenset[str]) -> tuple[str, ...]:
    """Return the bridges made for ``site`` that no domain would use after the domains ``leaving`` (UUIDs) are gone."""
    used = {nic.source for domain in observed.domains if domain.uuid not in leaving for nic in domain.facts.nics}
    ours = [link.name for link in observed.links if link.kind == "bridge" and link.alias == bridge_alias(site)]
    return tuple(name for name in ours if name not in used)
