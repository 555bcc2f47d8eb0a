"""Ports of VLAN-aware bridges, over the fake host and a kernel that has them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.test_links import ALIAS, Network
from vmhost.drivers.netlink import Netlink
from vmhost.model.errors import Absent, Conflict
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


def test_what_is_no_port_of_such_a_bridge_is_refused(network: Network, port: str) -> None:
    plain = network.add_port(network.bridge())
    for name, kind in ((plain, Conflict), ("lo", Conflict), ("vh-not-there", Absent)):
        with pytest.raises(kind) as caught:
            network.links.set_port_vlans(name, port_vlans(100))
        assert (caught.value.subject, bool(caught.value.hint)) == (name, True)
