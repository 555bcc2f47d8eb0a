"""The steps of a network plan on rtnetlink, for :mod:`vmhost.drivers.netlink`."""

from __future__ import annotations

import socket as sockets
from ipaddress import ip_interface, ip_network
from typing import Any, Final, assert_never

from vmhost.drivers.linkread import Message, Socket, find_link, link_name
from vmhost.drivers.netlink import (
    create_bridge,
    delete_bridge,
    limit_ipv6,
    named_if_missing,
    passing_name,
    remove_abandoned,
    removed_on_failure,
)
from vmhost.drivers.portvlans import set_port_vlans
from vmhost.model.errors import Absent, AlreadyThere, Conflict
from vmhost.model.netsteps import (
    AddAddress,
    AddRoute,
    AttachUplink,
    CreateBridge,
    CreateVlanLink,
    DeleteBridge,
    DeleteVlanLink,
    DetachUplink,
    HostRoute,
    LinkStep,
    RemoveAddress,
    RemoveRoute,
    SetBridge,
    SetPortVlans,
    alias_of,
    route_of,
)
from vmhost.model.observed import ObservedLink
from vmhost.model.vlans import PortVlans, parse_vids

_MAIN: Final = 254  # RT_TABLE_MAIN of linux/rtnetlink.h
_UNICAST: Final = 1  # RTN_UNICAST
_BY_ITSELF: Final = frozenset({1, 2, 9})  # RTPROT_REDIRECT, _KERNEL, _RA: they come with addresses and routers


def carry_out(socket: Socket, step: LinkStep) -> None:  # noqa: C901 - one match over the closed union of steps
    """Do one step; see ``ports.Links.carry_out``."""
    match step:
        case CreateBridge(name, site, mtu, address, vlan_aware, ipv6, sealed):
            create_bridge(socket, name, alias_of(site), mtu, address, vlan_aware, ipv6, sealed)
        case DeleteBridge(name, site):
            delete_bridge(socket, name, alias_of(site))
        case SetPortVlans(port, pvid, untagged, tagged):
            set_port_vlans(socket, port, PortVlans(pvid, parse_vids(untagged), parse_vids(tagged)))
        case SetBridge(name, mtu, ipv6):
            bridge = _link(socket, name)
            socket.link("set", index=bridge.index, mtu=mtu)
            limit_ipv6(name, ipv6)
        case AttachUplink(link, bridge):
            _attach(socket, link, bridge)
        case DetachUplink(link, bridge, up):
            _detach(socket, link, bridge, up)
        case CreateVlanLink():
            _create_vlan_link(socket, step)
        case DeleteVlanLink(name, site):
            _delete_vlan_link(socket, name, site)
        case AddAddress(link, address, broadcast):
            socket.addr("add", index=_link(socket, link).index, **_address(address, broadcast))
        case RemoveAddress(link, address):
            _remove_address(socket, link, address)
        case AddRoute():
            socket.route("add", **_route(socket, route_of(step)))
        case RemoveRoute():
            _remove_route(socket, route_of(step))
        case _:
            assert_never(step)


def _link(socket: Socket, name: str, *, addresses: bool = False) -> ObservedLink:
    link = find_link(socket, name, addresses=addresses)
    if link is None:
        raise Absent("there is no link of that name", subject=name, hint="ip link")
    return link


def _attach(socket: Socket, name: str, bridge: str) -> None:
    link, master = _link(socket, name), _link(socket, bridge)
    if link.master == bridge:
        raise AlreadyThere(f"it is a port of {bridge} already", subject=name, hint=f"ip -details link show {name}")
    if link.master:
        raise Conflict(f"it is a port of {link.master}", subject=name, hint=f"ip -details link show {name}")
    socket.link("set", index=link.index, master=master.index, state="up")


def _detach(socket: Socket, name: str, bridge: str, up: bool) -> None:
    link = _link(socket, name)
    if link.master != bridge:
        raise Absent(f"it is no port of {bridge}", subject=name, hint=f"ip -details link show {name}")
    socket.link("set", index=link.index, master=0)
    if link.up and not up:
        socket.link("set", index=link.index, state="down")


def _create_vlan_link(socket: Socket, step: CreateVlanLink) -> None:
    """Create it under a passing name, as bridges are: whoever is killed in between leaves nothing that counts."""
    remove_abandoned(socket, step.name, "vlan")
    if find_link(socket, step.name) is not None:
        hint = f"ip -details link show {step.name}"
        raise AlreadyThere("there is a link of that name", subject=step.name, hint=hint)
    parent, passing = _link(socket, step.bridge), passing_name(step.name)
    with named_if_missing(step.name, "this kernel has no VLAN links (it lacks VLAN_8021Q)"):
        socket.link("add", ifname=passing, kind="vlan", link=parent.index, vlan_id=step.vid)
    with removed_on_failure(socket, passing) as made:
        socket.link("set", index=made.index, IFLA_IFALIAS=alias_of(step.site), mtu=step.mtu)
        limit_ipv6(passing, ":" in step.address)
        socket.addr("add", index=made.index, **_address(step.address, ""))
        socket.link("set", index=made.index, ifname=step.name)
        socket.link("set", index=made.index, state="up")


def _delete_vlan_link(socket: Socket, name: str, site: str) -> None:
    remove_abandoned(socket, name, "vlan")
    link = _link(socket, name)
    if link.kind != "vlan" or link.alias != alias_of(site):
        text = f"it is a {link.kind or 'hardware'} link with alias {link.alias!r}, not the VLAN link {alias_of(site)!r}"
        raise AlreadyThere(text, subject=name, hint=f"ip -details link show {name}")
    socket.link("del", index=link.index)


def _address(address: str, broadcast: str) -> dict[str, Any]:
    interface = ip_interface(address)
    extra = {"broadcast": broadcast} if broadcast else {}
    return {"address": str(interface.ip), "prefixlen": interface.network.prefixlen, **extra}


def _remove_address(socket: Socket, name: str, address: str) -> None:
    link = _link(socket, name, addresses=True)
    if ip_interface(address) not in map(ip_interface, link.addresses):
        raise Absent(f"it has no address {address}", subject=name, hint=f"ip address show {name}")
    socket.addr("delete", index=link.index, **_address(address, ""))


def host_routes(socket: Socket) -> tuple[HostRoute, ...]:
    """Return the unicast routes of the main table that somebody set, with one way each."""
    found = (entry for entry in socket.get_routes(table=_MAIN) if _set_by_somebody(entry))
    return tuple(_observed(entry) for entry in found)


def _set_by_somebody(entry: Message) -> bool:
    by_itself = entry["type"] != _UNICAST or entry["proto"] in _BY_ITSELF
    return not by_itself and entry.get_attr("RTA_OIF") is not None and entry.get_attr("RTA_TABLE") == _MAIN


def _observed(entry: Message) -> HostRoute:
    nowhere = "::" if entry["family"] == sockets.AF_INET6 else "0.0.0.0"  # noqa: S104 - no address to bind to
    return HostRoute(
        to=f"{entry.get_attr('RTA_DST') or nowhere}/{entry['dst_len']}",
        via=str(entry.get_attr("RTA_GATEWAY") or ""),
        link=link_name(entry.get_attr("RTA_OIF")),
        source=str(entry.get_attr("RTA_PREFSRC") or ""),
        metric=int(entry.get_attr("RTA_PRIORITY") or 0),
        proto=int(entry["proto"]),
        scope=int(entry["scope"]),
    )


def _route(socket: Socket, route: HostRoute) -> dict[str, Any]:
    network = ip_network(route.to)
    words: dict[str, Any] = {
        "family": sockets.AF_INET6 if network.version == 6 else sockets.AF_INET,
        "dst": str(network.network_address) if network.prefixlen else "",
        "dst_len": network.prefixlen,
        "oif": _link(socket, route.link).index,
        "table": _MAIN,
        "proto": route.proto,
        "scope": route.scope,
        "gateway": route.via,
        "prefsrc": route.source,
        "priority": route.metric,
    }
    return {key: value for key, value in words.items() if value not in ("", None) and (key != "priority" or value)}


def _remove_route(socket: Socket, route: HostRoute) -> None:
    if route not in host_routes(socket):
        raise Absent(f"there is no route to {route.to} by {route.link}", subject=route.link, hint="ip route")
    socket.route("del", **_route(socket, route))
