"""The steps of a network plan on a fake host, as the kernel does them, and the watchdog over a change."""

from __future__ import annotations

import json
from contextlib import suppress
from ipaddress import ip_interface

from vmhost.model.errors import Absent, AlreadyThere, Conflict, DriverError, VmhostError
from vmhost.model.netsteps import (
    AddAddress,
    AddRoute,
    AttachUplink,
    CreateBridge,
    CreateVlanLink,
    DeleteBridge,
    DeleteVlanLink,
    DetachUplink,
    LinkStep,
    RemoveAddress,
    RemoveRoute,
    SetBridge,
    SetPortVlans,
    alias_of,
    route_of,
    step_from_json,
)
from vmhost.model.vlans import PortVlans, parse_vids
from vmhost.testing.links import create_bridge, delete_bridge, find, set_vlans
from vmhost.testing.world import Link, World


def carry_out(world: World, step: LinkStep) -> None:
    """Do a step. :raises Absent, AlreadyThere, Conflict: as ``ports.Links.carry_out``."""
    match step:
        case CreateBridge(name, site, mtu, address, vlan_aware, ipv6):
            create_bridge(world, name, alias_of(site), mtu, address, vlan_aware, ipv6)
        case DeleteBridge(name, site):
            delete_bridge(world, name, alias_of(site))
        case SetPortVlans(port, pvid, untagged, tagged):
            set_vlans(world, port, PortVlans(pvid, parse_vids(untagged), parse_vids(tagged)))
        case SetBridge(name, mtu, ipv6):
            link = _link(world, name)
            link.mtu, link.ipv6 = mtu, ipv6
        case AttachUplink(name, bridge):
            _attach(world, name, bridge)
        case DetachUplink(name, bridge, up):
            link = _link(world, name)
            if link.master != bridge:
                raise Absent(f"it is no port of {bridge}", subject=name, hint=f"ip -details link show {name}")
            link.master, link.up = "", up
            world.vlans.pop(name, None)
        case CreateVlanLink() | DeleteVlanLink():
            _vlan_link(world, step)
        case AddAddress() | RemoveAddress():
            _address(world, step)
        case AddRoute() | RemoveRoute():
            _route(world, step)


def _link(world: World, name: str) -> Link:
    link = find(world, name)
    if link is None:
        raise Absent("there is no link of that name", subject=name, hint="ip link")
    return link


def _attach(world: World, name: str, bridge: str) -> None:
    link, _ = _link(world, name), _link(world, bridge)
    hint = f"ip -details link show {name}"
    if link.master == bridge:
        raise AlreadyThere(f"it is a port of {bridge} already", subject=name, hint=hint)
    if link.master:
        raise Conflict(f"it is a port of {link.master}", subject=name, hint=hint)
    link.master, link.up = bridge, True


def _vlan_link(world: World, step: CreateVlanLink | DeleteVlanLink) -> None:
    hint = f"ip -details link show {step.name}"
    if isinstance(step, CreateVlanLink):
        if find(world, step.name) is not None:
            raise AlreadyThere("there is a link of that name", subject=step.name, hint=hint)
        parent = _link(world, step.bridge)
        mac, alias = parent.mac, alias_of(step.site)
        made = Link(step.name, kind="vlan", mac=mac, mtu=step.mtu, alias=alias, addresses=[step.address])
        made.parent, made.vid = step.bridge, step.vid
        world.links[step.name] = made
        return
    link = _link(world, step.name)
    if link.kind != "vlan" or link.alias != alias_of(step.site):
        raise AlreadyThere(f"it is not the VLAN link {alias_of(step.site)!r}", subject=step.name, hint=hint)
    del world.links[step.name]
    world.routes[:] = [route for route in world.routes if route.link != step.name]


def _address(world: World, step: AddAddress | RemoveAddress) -> None:
    link, there = _link(world, step.link), step.address in _link(world, step.link).addresses
    hint = f"ip address show {step.link}"
    if isinstance(step, AddAddress):
        if there:
            raise AlreadyThere("it has this address", subject=step.link, hint=hint)
        link.addresses.append(step.address)
        return
    if not there:
        raise Absent(f"it has no address {step.address}", subject=step.link, hint=hint)
    link.addresses.remove(step.address)


def _route(world: World, step: AddRoute | RemoveRoute) -> None:
    route = route_of(step)
    link = _link(world, route.link)
    if isinstance(step, RemoveRoute):
        if route not in world.routes:
            raise Absent(f"there is no route to {route.to} by {route.link}", subject=route.link, hint="ip route")
        world.routes.remove(route)
        return
    if any((one.to, one.metric) == (route.to, route.metric) for one in world.routes):
        raise AlreadyThere("there is such a route", subject=route.link, hint="ip route")
    own = [ip_interface(address).network for address in link.addresses]
    if route.via and not any(ip_interface(route.via).ip in network for network in own):
        raise DriverError("Nexthop has invalid gateway", subject=route.link, hint=f"ip route get {route.via}")
    world.routes.append(route)


def restore(world: World) -> None:
    """Do what the watchdog does when nobody has confirmed the change in time."""
    guarded = world.guarded
    if guarded is None or guarded.state == "restored":
        return
    for text in guarded.undo:
        try:
            with suppress(Absent, AlreadyThere):
                carry_out(world, step_from_json(json.loads(text)))
        except VmhostError as error:
            guarded.failures.append(str(error))
    guarded.state, guarded.deadline = "restored", 0.0
