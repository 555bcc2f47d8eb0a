"""Ports of VLAN-aware bridges, over the fake host and a kernel that has them."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event

import pytest

from tests.contract.test_links import ALIAS, Network
from vmhost.drivers.netlink import Netlink
from vmhost.model.errors import Absent, AlreadyThere, Conflict
from vmhost.model.reach import AccessPort
from vmhost.model.vlans import NO_VLAN, PortVlans, parse_vids, port_vlans
from vmhost.testing import FakeHost


@pytest.fixture(params=["fake", pytest.param("kernel", marks=pytest.mark.uml)])
def network(request: pytest.FixtureRequest) -> Iterator[Network]:
    if request.param == "fake":
        host = FakeHost()
        yield Network(host.links, host)
        return
    request.getfixturevalue("lab")
    network = Network(Netlink())
    yield network
    from pyroute2 import IPRoute

    with IPRoute() as socket:
        for name in reversed(network.made):
            for index in socket.link_lookup(ifname=name):
                socket.link("del", index=index)


@pytest.fixture
def port(network: Network) -> str:
    """A port of a VLAN-aware bridge, as it is born."""
    name = network.name()
    network.links.create_bridge(name, alias=ALIAS, mtu=1500, address="", vlan_aware=True)
    bridge = network.find(name)
    assert bridge is not None
    assert (bridge.vlan_filtering, bridge.default_pvid, bridge.up) == (True, 0, True)
    return network.add_port(name)


def _vlans(network: Network, name: str) -> PortVlans:
    link = network.find(name)
    assert link is not None
    return link.vlans


def _all(network: Network) -> tuple[set[tuple[str, str, str]], tuple[str, ...]]:
    """Every link with its bridge and alias, and every namespace; a bridge's MTU and carrier follow its ports."""
    return {(link.name, link.master, link.alias) for link in network.links.links()}, network.links.namespaces()


def test_a_port_is_born_in_no_vlan(network: Network, port: str) -> None:
    assert _vlans(network, port) == NO_VLAN


def test_a_port_has_exactly_the_vlans_that_it_was_given_last(network: Network, port: str) -> None:
    for wanted in (
        port_vlans(100),
        port_vlans(0, parse_vids("5-7,9")),
        port_vlans(100, parse_vids("1,200-299,4094")),
        port_vlans(7, [100]),
        port_vlans(0, range(1, 4095)),
        PortVlans(10, frozenset({10, 20}), frozenset({30})),
        PortVlans(10, frozenset(), frozenset({10})),
        port_vlans(4094),
        NO_VLAN,
    ):
        network.links.set_port_vlans(port, wanted)
        assert _vlans(network, port) == wanted
        network.links.set_port_vlans(port, wanted)
        assert _vlans(network, port) == wanted


def test_other_ports_are_left_alone(network: Network, port: str) -> None:
    link = network.find(port)
    assert link is not None
    other = network.add_port(link.master)
    network.links.set_port_vlans(other, port_vlans(200))
    network.links.set_port_vlans(port, port_vlans(100))
    assert _vlans(network, other) == port_vlans(200)


def test_a_port_is_isolated_and_no_longer(network: Network, port: str) -> None:
    plain = network.add_port(network.bridge())
    for name in (port, plain):
        for on in (True, True, False, False):
            network.links.isolate_port(name, on)
            assert [link.name for link in network.links.links() if link.isolated] == ([name] if on else [])
    for name, kind in (("lo", Conflict), ("vh-not-there", Absent)):
        with pytest.raises(kind) as caught:
            network.links.isolate_port(name, True)
        assert (caught.value.subject, bool(caught.value.hint)) == (name, True)


def test_what_is_no_port_of_such_a_bridge_is_refused(network: Network, port: str) -> None:
    plain = network.add_port(network.bridge())
    for name, kind in ((plain, Conflict), ("lo", Conflict), ("vh-not-there", Absent)):
        with pytest.raises(kind) as caught:
            network.links.set_port_vlans(name, port_vlans(100))
        assert (caught.value.subject, bool(caught.value.hint)) == (name, True)


def test_whoever_watches_is_woken_by_changes_until_he_ends_it(network: Network, port: str) -> None:
    woken = Event()
    forget = network.links.watch(woken.set)
    try:
        network.links.set_port_vlans(port, port_vlans(100))
        assert woken.wait(10)
        woken.clear()
        network.links.create_bridge(network.name(), alias=ALIAS, mtu=1500, address="")
        assert woken.wait(10)
    finally:
        forget()
    woken.clear()
    network.links.set_port_vlans(port, port_vlans(7))
    assert not woken.wait(0.2)


def test_the_kernel_can_filter_vlans(network: Network, port: str) -> None:
    kernel = network.links.kernel()
    assert (kernel.vlan_filtering, kernel.vlan_links) == (True, True)


def test_an_access_port_comes_and_goes_whole(network: Network, port: str) -> None:
    bridge = network.find(port).master  # type: ignore[union-attr]
    access = AccessPort(bridge, 100, "10.9.9.1/24")
    before = _all(network)
    network.links.open_access(access, alias=ALIAS, mtu=1400)
    link = network.find(access.port)
    assert link is not None
    assert (link.kind, link.master, link.alias, link.mtu, link.up) == ("veth", bridge, ALIAS, 1400, True)
    assert link.vlans == port_vlans(100)
    assert access.namespace in network.links.namespaces()
    # Once more: what is left of an earlier one is replaced.
    network.links.set_port_vlans(access.port, port_vlans(7))
    network.links.open_access(access, alias=ALIAS, mtu=1500)
    assert _vlans(network, access.port) == port_vlans(100)
    with pytest.raises(AlreadyThere) as caught:
        network.links.close_access(access, alias="vmhost:other")
    assert (caught.value.subject, bool(caught.value.hint)) == (access.port, True)
    network.links.close_access(access, alias=ALIAS)
    network.links.close_access(access, alias=ALIAS)
    assert _all(network) == before


def test_an_access_port_that_cannot_be_made_leaves_nothing(network: Network, port: str) -> None:
    plain = network.bridge()
    before = _all(network)
    for bridge, kind in ((plain, Conflict), ("br-not-there", Absent)):
        with pytest.raises(kind):
            network.links.open_access(AccessPort(bridge, 100, "10.9.9.1/24"), alias=ALIAS, mtu=1500)
        assert _all(network) == before
