"""Links: the bridges that vmhost makes and takes away."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_interface
from uuid import uuid4

import pytest

from vmhost.drivers.netlink import Netlink
from vmhost.model.errors import Absent, AlreadyThere
from vmhost.model.observed import ObservedLink
from vmhost.ports import Links
from vmhost.testing import FakeHost

ALIAS = "vmhost:shop"


@dataclass
class Network:
    """The links under test; ``outside`` makes a foreign bridge with a port, as an administrator would."""

    links: Links
    fake: FakeHost | None = None
    made: list[str] = field(default_factory=list)

    def name(self) -> str:
        name = f"br{uuid4().hex[:8]}"
        self.made.append(name)
        return name

    def bridge(self, *, alias: str = ALIAS, mtu: int = 1500, address: str = "") -> str:
        name = self.name()
        self.links.create_bridge(name, alias=alias, mtu=mtu, address=address)
        return name

    def find(self, name: str) -> ObservedLink | None:
        return next((link for link in self.links.links() if link.name == name), None)

    def add_port(self, bridge: str) -> str:
        port = f"p{uuid4().hex[:8]}"
        if self.fake is not None:
            from vmhost.testing.world import Link

            self.fake.add_link(Link(port, kind="veth", mac="52:54:00:00:00:99", master=bridge))
            return port
        from pyroute2 import IPRoute

        with IPRoute() as socket:
            index = socket.link_lookup(ifname=bridge)[0]
            socket.link("add", ifname=port, kind="veth", peer=f"q{port[1:]}")
            socket.link("set", index=socket.link_lookup(ifname=port)[0], master=index, state="up")
        self.made.append(port)
        return port


@pytest.fixture(params=["fake", pytest.param("kernel", marks=pytest.mark.lab)])
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


def test_loopback_is_a_link(network: Network) -> None:
    loopback = network.find("lo")
    assert loopback is not None
    assert (loopback.kind, loopback.up, loopback.master, loopback.alias) == ("", True, "", "")
    assert "127.0.0.1/8" in loopback.addresses


@pytest.mark.parametrize(("mtu", "address"), [(1500, ""), (1400, "10.9.0.1/24"), (1500, "fd00:9::1/64")])
def test_a_bridge_is_as_it_was_asked_for(network: Network, mtu: int, address: str) -> None:
    bridge = network.find(network.bridge(mtu=mtu, address=address))
    assert bridge is not None
    assert (bridge.kind, bridge.alias, bridge.mtu, bridge.up) == ("bridge", ALIAS, mtu, True)
    assert (bridge.master, bridge.vlan_filtering) == ("", False)
    own = [text for text in bridge.addresses if not ip_interface(text).ip.is_link_local]
    assert own == ([address] if address else [])


def test_what_is_there_first_wins(network: Network) -> None:
    name = network.bridge(alias="vmhost:other")
    before = network.find(name)
    for taken in (name, "lo"):
        with pytest.raises(AlreadyThere) as caught:
            network.links.create_bridge(taken, alias=ALIAS, mtu=9000, address="10.9.9.1/24")
        assert (caught.value.subject, bool(caught.value.hint)) == (taken, True)
    assert network.find(name) == before


def test_a_bridge_comes_and_goes(network: Network) -> None:
    before = network.links.links()
    name = network.bridge(address="10.9.0.1/24")
    network.links.delete_bridge(name, alias=ALIAS)
    assert network.links.links() == before
    with pytest.raises(Absent) as caught:
        network.links.delete_bridge(name, alias=ALIAS)
    assert (caught.value.subject, bool(caught.value.hint)) == (name, True)


def test_what_is_not_ours_stays(network: Network) -> None:
    name = network.bridge(alias="vmhost:other")
    before = network.find(name)
    for foreign in (name, "lo"):
        with pytest.raises(AlreadyThere):
            network.links.delete_bridge(foreign, alias=ALIAS)
    assert network.find(name) == before


def test_a_bridge_with_a_port_stays(network: Network) -> None:
    name = network.bridge()
    port = network.add_port(name)
    link = network.find(port)
    assert link is not None
    assert link.master == name
    with pytest.raises(AlreadyThere, match=port):
        network.links.delete_bridge(name, alias=ALIAS)
    assert network.find(name) is not None


def test_neighbours_have_addresses(network: Network) -> None:
    for neighbour in network.links.neighbours():
        assert neighbour.address
        assert neighbour.mac
