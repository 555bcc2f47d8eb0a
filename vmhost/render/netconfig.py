"""A guest's NICs as cloud-init's network-config, version 2.

The NICs are matched by MAC and named ``net0``, ``net1``, ...: cloud-init's renderers for ifupdown and systemd-networkd
match by name as well, so a configuration without names works with netplan only. For the same reason the default route
is written as ``0.0.0.0/0``: those renderers refuse ``default``.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

from vmhost.model.identity import GuestIdentity, NicIdentity
from vmhost.model.spec import GuestSpec, NetworkSpec, NicSpec

DEFAULT_ROUTES = {4: "0.0.0.0/0", 6: "::/0"}


def ethernets(spec: GuestSpec, identity: GuestIdentity, networks: Mapping[str, NetworkSpec]) -> dict[str, Any]:
    """Return the ``ethernets`` of a guest. The first NIC that can, and no other, leads to the rest of the world."""
    routed: set[int] = set()
    found: dict[str, Any] = {}
    for number, (nic, drawn) in enumerate(zip(spec.nics, identity.nics, strict=True)):
        network = networks[nic.network]
        common: dict[str, Any] = {"match": {"macaddress": drawn.mac}, "set-name": f"net{number}"}
        if network.mtu:
            common["mtu"] = network.mtu
        found[f"net{number}"] = common | _addressing(nic, drawn, network, routed)
    return found


def _addressing(nic: NicSpec, drawn: NicIdentity, network: NetworkSpec, routed: set[int]) -> dict[str, Any]:
    if nic.address == "none":
        return {"dhcp4": False, "dhcp6": False, "link-local": [], "optional": True}
    if not drawn.address:
        return _dhcp(network, routed) | _names(network)
    version = ipaddress.ip_interface(drawn.address).version
    static: dict[str, Any] = {"dhcp4": False, "dhcp6": False, "addresses": [drawn.address]}
    if version == 4 or network.gateway:
        # Nothing is expected from a router. Otherwise systemd-networkd waits for one before the network counts as
        # online: 12 s at every boot where there is none (RFC 4861: MAX_RTR_SOLICITATIONS * RTR_SOLICITATION_INTERVAL).
        static["accept-ra"] = False
    if network.gateway and version not in routed:
        routed.add(version)
        static["routes"] = [{"to": DEFAULT_ROUTES[version], "via": network.gateway}]
    return static | _names(network)


def _dhcp(network: NetworkSpec, routed: set[int]) -> dict[str, Any]:
    """DHCP; the identifier is the MAC, since a machine-id is not drawn yet when the first lease is asked for."""
    version = ipaddress.ip_network(network.subnet).version if network.subnet else 4
    wanted: dict[str, Any] = {"dhcp4": version == 4, "dhcp6": version == 6, "dhcp-identifier": "mac"}
    if version in routed:
        wanted |= {f"dhcp{version}-overrides": {"use-routes": False}, "optional": True}
    routed.add(version)
    return wanted


def _names(network: NetworkSpec) -> dict[str, Any]:
    if not network.dns and not network.search:
        return {}
    return {"nameservers": {"addresses": list(network.dns), "search": list(network.search)}}
