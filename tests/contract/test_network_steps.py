"""The steps of a network plan, over the fake host and a kernel that has VLANs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.contract.test_links import Network
from vmhost.drivers.netlink import Netlink
from vmhost.model.errors import Absent, AlreadyThere, Conflict, VmhostError
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
    add_route,
    remove_route,
)
from vmhost.model.observed import ObservedLink
from vmhost.model.vlans import port_vlans
from vmhost.testing import FakeHost
from vmhost.testing.world import Link


@pytest.fixture(params=["fake", pytest.param("kernel", marks=pytest.mark.uml)])
def network(request: pytest.FixtureRequest) -> Iterator[Network]:
    if request.param == "fake":
        host = FakeHost()
        for name in ("up1", "up2"):
            host.add_link(Link(name, kind="dummy", mac="52:54:00:00:00:07", up=False))
        yield Network(host.links, host)
        return
    request.getfixturevalue("lab")
    from pyroute2 import IPRoute

    network = Network(Netlink())
    with IPRoute() as socket:
        for name in ("up1", "up2"):
            socket.link("add", ifname=name, kind="dummy")
        network.made += ["up1", "up2"]
        yield network
        for name in ("br1.7", "br1", *network.made):
            for index in socket.link_lookup(ifname=name):
                socket.link("del", index=index)


def _do(network: Network, *steps: LinkStep) -> None:
    for step in steps:
        network.links.carry_out(step)


def _refused(network: Network, step: LinkStep, kind: type[VmhostError]) -> None:
    with pytest.raises(kind) as caught:
        network.links.carry_out(step)
    assert caught.value.subject
    assert caught.value.hint


def _link(network: Network, name: str) -> ObservedLink:
    link = network.find(name)
    assert link is not None
    return link


def _state(network: Network) -> Any:
    """Everything that steps change; a bridge's own MAC is drawn anew each time."""
    links = [
        replace(link, index=0, mac="", carrier=True, addresses=(), held=tuple(one for one in link.held if one.lasting))
        for link in network.links.links()
    ]
    return links, network.links.routes()


BRIDGE = CreateBridge("br1", "shop", 1400, "", True)


def test_every_step_is_undone_by_its_undo(network: Network) -> None:
    route = HostRoute("10.99.0.0/16", "10.7.0.9", "br1.7")
    pairs: list[tuple[LinkStep, LinkStep]] = [
        (AddAddress("up1", "10.8.0.1/24"), RemoveAddress("up1", "10.8.0.1/24")),
        (RemoveAddress("up1", "10.8.0.1/24"), AddAddress("up1", "10.8.0.1/24")),
        (BRIDGE, DeleteBridge("br1", "shop")),
        (AttachUplink("up1", "br1"), DetachUplink("up1", "br1", False)),
        (SetPortVlans("up1", 7, "7", "8-9"), SetPortVlans("up1", 0, "", "")),
        (SetPortVlans("br1", 0, "", "7"), SetPortVlans("br1", 0, "", "")),
        (SetBridge("br1", 1300, True), SetBridge("br1", 1400, False)),
        (CreateVlanLink("br1.7", "br1", 7, "shop", 1300, "10.7.0.1/24"), DeleteVlanLink("br1.7", "shop")),
        (add_route(route), remove_route(route)),
    ]
    states = []
    for do, _ in pairs:
        states.append(_state(network))
        _do(network, do)
        assert _state(network) != states[-1], do
    made = _link(network, "br1.7")
    assert (made.kind, made.alias, made.parent, made.vid, made.mtu, made.up) == (
        *("vlan", "vmhost:shop", "br1", 7, 1300, True),
    )
    assert (_link(network, "up1").vlans, _link(network, "br1").vlans) == (port_vlans(7, [8, 9]), port_vlans(0, [7]))
    assert route in network.links.routes()
    for state, (_, undo) in zip(reversed(states), reversed(pairs), strict=True):
        _do(network, undo)
        assert _state(network) == state, undo


def test_what_is_so_already_is_said(network: Network) -> None:
    route = HostRoute("10.99.0.0/16", "10.7.0.9", "br1.7")
    link = CreateVlanLink("br1.7", "br1", 7, "shop", 1400, "10.7.0.1/24")
    _do(network, BRIDGE, AttachUplink("up1", "br1"), link, add_route(route))
    for step in (BRIDGE, AttachUplink("up1", "br1"), link, AddAddress("br1.7", "10.7.0.1/24"), add_route(route)):
        _refused(network, step, AlreadyThere)
    before = _state(network)
    _do(network, SetBridge("br1", 1400, False), SetPortVlans("up1", 0, "", ""))
    assert _state(network) == before


def test_what_is_not_there_is_said(network: Network) -> None:
    _do(network, BRIDGE)
    absent: tuple[LinkStep, ...] = (
        AttachUplink("up9", "br1"),
        AttachUplink("up1", "br9"),
        DetachUplink("up1", "br1", True),
        SetBridge("br9", 1500, False),
        CreateVlanLink("br9.7", "br9", 7, "shop", 1500, "10.7.0.1/24"),
        DeleteVlanLink("br1.7", "shop"),
        AddAddress("up9", "10.8.0.1/24"),
        RemoveAddress("up1", "10.8.0.1/24"),
        AddRoute("10.99.0.0/16", "10.7.0.9", "br1.7"),
        RemoveRoute("10.99.0.0/16", "10.7.0.9", "up1"),
    )
    before = _state(network)
    for step in absent:
        _refused(network, step, Absent)
    assert _state(network) == before


def test_what_belongs_to_others_stays(network: Network) -> None:
    _do(network, BRIDGE, CreateBridge("br2", "other", 1500, "", True), AttachUplink("up1", "br1"))
    network.made.append("br2")
    _do(network, CreateVlanLink("br1.7", "br1", 7, "other", 1400, "10.7.0.1/24"))
    before = _state(network)
    _refused(network, AttachUplink("up1", "br2"), Conflict)
    _refused(network, DeleteVlanLink("br1.7", "shop"), AlreadyThere)
    _refused(network, DeleteBridge("br2", "shop"), AlreadyThere)
    _refused(network, DeleteBridge("br1", "shop"), AlreadyThere)
    assert _state(network) == before


def test_many_steps_of_ports_are_done_at_once_and_what_is_left_is_said(network: Network) -> None:
    """As one by one: the last one for a port counts, and what fails keeps no other from being done."""
    _do(network, CreateBridge("br1", "shop", 1500, "", True))
    done = [
        AttachUplink("up1", "br1"),
        SetPortVlans("up1", 7, "7", "100-199"),
        SetPortVlans("up1", 8, "8", "150-199,300"),
        AttachUplink("up2", "br1"),
        SetPortVlans("up2", 0, "", "5"),
        SetPortVlans("up2", 0, "", "5,6"),
    ]
    left = [
        AttachUplink("nobody", "br1"),
        SetPortVlans("nobody", 7, "7", ""),
        AttachUplink("up1", "nowhere"),
        AttachUplink("up2", "br1"),
    ]
    assert network.links.carry_out_ports([*done, *left]) == tuple(left)
    assert (_link(network, "up1").master, _link(network, "up1").up) == ("br1", True)
    assert _link(network, "up1").vlans == port_vlans(8, [*range(150, 200), 300])
    assert _link(network, "up2").vlans == port_vlans(0, [5, 6])
    for step, kind in zip(left, (Absent, Absent, Absent, AlreadyThere), strict=True):
        _refused(network, step, kind)

    changed = [SetPortVlans("up1", vid, str(vid), "") for vid in range(1, 10)]
    assert network.links.carry_out_ports(changed) == ()
    assert network.links.carry_out_ports(changed[-1:] * 9) == ()
    assert _link(network, "up1").vlans == port_vlans(9)
    _do(network, DetachUplink("up1", "br1", False), DetachUplink("up2", "br1", False))
    assert network.links.carry_out_ports(changed) == tuple(changed)
