"""What contradicts itself in uplinks, and in the host's own addresses and routes in VLANs."""

from __future__ import annotations

import ipaddress

from vmhost.model.spec import BridgeSpec, NetworkSpec
from vmhost.plan.inherit import Draft


def check_bridge(draft: Draft, name: str, bridge: BridgeSpec) -> None:
    """Note what is wrong with a declared bridge."""
    aware = bridge.mode == "vlan-aware"
    if aware and bridge.address:
        text = "the host is in no VLAN of a bridge that filters them: write address: at a network with a vlan"
        draft.fault(text, "bridges", name, "address")
    if bridge.native is not None and not (aware and bridge.uplink):
        draft.fault("only the uplink of a vlan-aware bridge has a native VLAN", "bridges", name, "native")
    if bridge.uplink is None:
        return
    if bridge.uplink in draft.written.bridges:
        draft.fault(f"{bridge.uplink} is a bridge of this site, and no uplink", "bridges", name, "uplink")
    first = next(other for other, spec in draft.written.bridges.items() if spec.uplink == bridge.uplink)
    if first != name:
        draft.fault(f"{bridge.uplink} is the uplink of {first}", "bridges", name, "uplink")


def check_host_places(draft: Draft) -> None:
    """Note addresses and routes that the host cannot have in a network."""
    defaults: dict[tuple[str, int], str] = {}
    for name, network in draft.written.networks.items():
        if network.address:
            _check_address(draft, name, network)
        for number, route in enumerate(network.routes):
            at = ("networks", name, "routes", number)
            router = ipaddress.ip_address(route.via)
            own = _own_address(draft, network)
            if own is None:
                draft.fault("the host has no address in this network, so it reaches no router there", *at)
                continue
            if router not in own.network or router == own.ip:
                draft.fault(f"{route.via} is no other machine of {own.network}", *at, "via")
            if route.to != "default" and ipaddress.ip_network(route.to).version != router.version:
                draft.fault(f"{route.to} and {route.via} are of different kinds", *at, "to")
            first = defaults.setdefault((route.to, router.version), name)
            if first != name:
                draft.fault(f"network {first} has a route to {route.to} already", *at, "to")


def _own_address(draft: Draft, network: NetworkSpec) -> ipaddress.IPv4Interface | ipaddress.IPv6Interface | None:
    bridge = draft.written.bridges.get(network.bridge or "")
    text = network.address or (bridge.address if bridge and network.vlan is None else None)
    return ipaddress.ip_interface(text) if text and bridge else None


def _check_address(draft: Draft, name: str, network: NetworkSpec) -> None:
    bridge = draft.written.bridges.get(network.bridge or "")
    at = ("networks", name, "address")
    if bridge is None:
        if not draft.partial([("bridges", network.bridge or "")]):
            draft.fault(f"bridge {network.bridge} is not declared here, so it is not ours to change", *at)
        return
    if not isinstance(network.vlan, int):
        draft.fault("only a network with a vlan has an address here: write it at the bridge", *at)
        return
    own = ipaddress.ip_interface(network.address or "")
    if network.subnet and own.network != ipaddress.ip_network(network.subnet):
        draft.fault(f"{network.address} is not an address of the subnet {network.subnet}", *at)
    if network.gateway and own.ip == ipaddress.ip_address(network.gateway):
        return  # the host is the guests' router there
