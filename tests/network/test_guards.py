"""Guards on a real kernel: nothing comes in through a port in the name of others, and nothing of others is touched."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from tests.labfixture import InLab
from tests.network import frames
from tests.network.frames import ARP, IPV4, IPV6, Port, ethernet, last_of
from vmhost.drivers.command import run
from vmhost.drivers.netlink import Netlink
from vmhost.drivers.nft import Nft
from vmhost.model.guard import ObservedGuard, PortGuard
from vmhost.model.vlans import parse_vids, port_vlans
from vmhost.render import nft
from vmhost.render.parse.nft import parse_guards

pytestmark = pytest.mark.uml

BRIDGE = "br-guard"
MAC, OTHER = "52:54:00:00:00:01", "52:54:00:00:00:02"
MINE, THEIRS = "10.1.1.1", "10.1.1.2"
LOCAL = "fe80::5054:ff:fe00:1"
FOREIGN = """
table bridge stranger {
  counter seen { packets 7 bytes 8 }
  chain in { type filter hook input priority 0; counter name seen; }
}
table bridge foreign {
  chain pre { type filter hook prerouting priority 0; counter; }
}
"""


@pytest.fixture(scope="module")
def bridge(lab: InLab) -> Iterator[str]:
    Netlink().create_bridge(BRIDGE, alias="vmhost:guards", mtu=1500, address="", vlan_aware=True)
    yield BRIDGE
    run(["ip", "link", "delete", BRIDGE], timeout=20)


@dataclass(frozen=True)
class Wire:
    """A guest's port in VLAN 100 (and 200 with tags), listeners in both VLANs, and another guest's in 200."""

    guest: Port
    same: Port
    other: Port
    twin: Port


@pytest.fixture(scope="module")
def wire(bridge: str) -> Iterator[Wire]:
    ports = (
        Port("vh00000001-0", bridge, port_vlans(100)),
        Port("vh00000002-0", bridge, port_vlans(100)),
        Port("vh00000003-0", bridge, port_vlans(200)),
        Port("vh00000004-0", bridge, port_vlans(200)),
    )
    with ExitStack() as stack:
        yield Wire(*(stack.enter_context(port) for port in ports))


@pytest.fixture(autouse=True)
def nothing_left(wire: Wire) -> Iterator[None]:
    for port in (wire.guest, wire.same, wire.other, wire.twin):
        port.drain()
    yield
    mine = [port.name for port in (wire.guest, wire.same, wire.other, wire.twin)]
    Nft().change(lambda text: nft.unguard(mine, parse_guards(text)))
    assert not {one.port for one in parse_guards(Nft().table())} & set(mine)


def guard(*guards: PortGuard) -> None:
    Nft().change(lambda _: nft.guard(guards), look=False)


def guards() -> dict[str, ObservedGuard]:
    """The guards of these tests' ports; guests of others may be guarded, too."""
    return {one.port: one for one in parse_guards(Nft().table()) if one.port.startswith("vh0000000")}


def dropped(port: Port) -> dict[str, int]:
    return dict(guards()[port.name].dropped)


def hello(mac: str = MAC, ip: str = MINE, *tags: int) -> bytes:
    """What a guest may say."""
    return ethernet(mac, ARP, frames.arp(mac, ip), *tags)


def through(wire: Wire, *sent: bytes) -> list[bytes]:
    """Which of some frames come out of a port in the same VLAN."""
    end = last_of(hello())
    wire.same.drain()
    wire.guest.send(*sent, end)
    heard = wire.same.heard(end)
    return [frame for frame in sent if any(data.startswith(frame) for data in heard)]


ALLOWED = {
    "arp": hello(),
    "arp probe": hello(ip="0.0.0.0"),
    "ipv4": ethernet(MAC, IPV4, frames.ipv4(MINE, frames.udp(1, 2))),
    "dhcp request": ethernet(MAC, IPV4, frames.ipv4("0.0.0.0", frames.udp(68, 67))),
    "ipv6": ethernet(MAC, IPV6, frames.ipv6(LOCAL, frames.udp(1, 2))),
    "duplicate address detection": ethernet(MAC, IPV6, frames.ipv6("::", frames.icmpv6(135, LOCAL), 58)),
    "advertises itself": ethernet(MAC, IPV6, frames.ipv6(LOCAL, frames.icmpv6(136, LOCAL), 58)),
}
REFUSED = {
    "mac": (ethernet(OTHER, IPV4, frames.ipv4(MINE, frames.udp(1, 2))), "mac"),
    "mac in arp": (ethernet(MAC, ARP, frames.arp(OTHER, MINE)), "arp"),
    "address in arp": (hello(ip=THEIRS), "arp"),
    "sizes in arp": (ethernet(MAC, ARP, frames.arp(MAC, MINE, sizes=(6, 16))), "arp"),
    "ipv4": (ethernet(MAC, IPV4, frames.ipv4(THEIRS, frames.udp(1, 2))), "ipv4"),
    "ipv6": (ethernet(MAC, IPV6, frames.ipv6("fe80::2", frames.udp(1, 2))), "ipv6"),
    "global ipv6": (ethernet(MAC, IPV6, frames.ipv6("fd00::9", frames.udp(1, 2))), "ipv6"),
    "neighbour advertisement": (ethernet(MAC, IPV6, frames.ipv6(LOCAL, frames.icmpv6(136, "fe80::2"), 58)), "ipv6"),
    "dhcp answer": (ethernet(MAC, IPV4, frames.ipv4(MINE, frames.udp(67, 68))), "server"),
    "dhcpv6 answer": (ethernet(MAC, IPV6, frames.ipv6(LOCAL, frames.udp(547, 546))), "server"),
    "router advertisement": (ethernet(MAC, IPV6, frames.ipv6(LOCAL, frames.icmpv6(134), 58)), "server"),
    "redirect": (ethernet(MAC, IPV6, frames.ipv6(LOCAL, frames.icmpv6(137), 58)), "server"),
    "spanning tree": (ethernet(MAC, 0x0027, b"\x42\x42\x03" + bytes(36)), "other"),
    "tag within a tag": (ethernet(MAC, IPV4, frames.ipv4(MINE, frames.udp(1, 2)), 100, 200), "other"),
}


def test_without_a_guard_all_of_it_comes_through(wire: Wire) -> None:
    sent = [*ALLOWED.values(), *(frame for frame, _ in REFUSED.values() if frame[12:14] != b"\x81\x00")]
    assert through(wire, *sent) == sent


def test_what_a_guest_says_in_its_own_name_comes_through(wire: Wire) -> None:
    guard(PortGuard(wire.guest.name, MAC, (MINE,)))
    assert through(wire, *ALLOWED.values()) == list(ALLOWED.values())
    assert set(dropped(wire.guest).values()) == {0}


def test_what_it_says_in_the_name_of_others_is_dropped_and_counted(wire: Wire) -> None:
    guard(PortGuard(wire.guest.name, MAC, (MINE,)))
    before = dropped(wire.guest)
    for name, (frame, reason) in REFUSED.items():
        assert through(wire, frame) == [], name
        after = dropped(wire.guest)
        assert {key: after[key] - before[key] for key in after if after[key] != before[key]} == {reason: 1}, name
        before = after


def test_with_an_unknown_address_only_the_address_is_free(wire: Wire) -> None:
    guard(PortGuard(wire.guest.name, MAC))
    free = ("address in arp", "ipv4", "ipv6", "global ipv6", "neighbour advertisement")
    for name, (frame, _) in REFUSED.items():
        assert (through(wire, frame) == [frame]) == (name in free), name


def test_both_kinds_of_addresses_are_known(wire: Wire) -> None:
    guard(PortGuard(wire.guest.name, MAC, ("fd00::9", MINE)))
    both = (REFUSED["global ipv6"][0], ALLOWED["ipv4"], ALLOWED["arp"])
    assert through(wire, *both, REFUSED["ipv4"][0], hello(ip=THEIRS), REFUSED["ipv6"][0]) == [*both]


def test_a_guard_is_replaced_in_one_go_and_its_counters_go_on(wire: Wire) -> None:
    guard(PortGuard(wire.guest.name, MAC, (MINE,)))
    through(wire, REFUSED["ipv4"][0])
    first = guards()[wire.guest.name]
    guard(PortGuard(wire.guest.name, MAC, (THEIRS,)))
    second = guards()[wire.guest.name]
    assert (first.marks, second.reached) == (nft.marks(PortGuard(wire.guest.name, MAC, (MINE,))), True)
    assert second.marks == nft.marks(PortGuard(wire.guest.name, MAC, (THEIRS,))) != first.marks
    assert dict(second.dropped)["ipv4"] == dict(first.dropped)["ipv4"] == 1


def test_tags_are_no_way_around_the_guard(wire: Wire) -> None:
    """On a hybrid port the guest's addresses in tagged VLANs are its own affair; in its own VLAN they are not."""
    guard(PortGuard(wire.guest.name, MAC, (MINE,), tagged=True, pvid=100))
    Netlink().set_port_vlans(wire.guest.name, port_vlans(100, parse_vids("200")))
    try:
        tagged = ethernet(MAC, IPV4, frames.ipv4(THEIRS, frames.udp(1, 2)), 200)
        end = last_of(hello())
        wire.guest.send(tagged, ethernet(OTHER, ARP, frames.arp(OTHER, MINE), 200), _tagged(end, 200))
        (heard,) = wire.other.heard(end)
        assert heard.startswith(tagged[:12] + tagged[16:]), "it comes out untagged where the VLAN is untagged"
        for vid in (0, 100):
            end = last_of(hello())
            wire.guest.send(ethernet(MAC, IPV4, frames.ipv4(THEIRS, frames.udp(3, 4)), vid), end)
            assert wire.same.heard(end) == [], vid
    finally:
        Netlink().set_port_vlans(wire.guest.name, port_vlans(100))


def test_equal_addresses_in_two_vlans_stay_apart(wire: Wire) -> None:
    """The rules remember nothing: what one guest may say in its VLAN opens nothing for another in another VLAN."""
    guard(PortGuard(wire.guest.name, MAC, (MINE,)), PortGuard(wire.twin.name, OTHER, (MINE,)))
    flow = frames.ipv4(MINE, frames.udp(1, 2))
    mine, twins = ethernet(MAC, IPV4, flow), ethernet(OTHER, IPV4, flow)
    end, twins_end = last_of(hello()), last_of(hello(OTHER, MINE))
    wire.guest.send(mine, end)
    wire.twin.send(twins, twins_end)
    assert [data[: len(mine)] for data in wire.same.heard(end)] == [mine]
    assert [data[: len(twins)] for data in wire.other.heard(twins_end)] == [twins]
    # The very same flow is a stranger when it comes from the other VLAN.
    end = last_of(hello(OTHER, MINE))
    wire.twin.send(mine, ethernet(OTHER, IPV4, frames.ipv4(THEIRS, frames.udp(1, 2))), end)
    assert wire.other.heard(end) == []
    assert {key: count for key, count in dropped(wire.twin).items() if count} == {"mac": 1, "ipv4": 1}
    assert set(dropped(wire.guest).values()) == {0}


def test_isolated_ports_exchange_nothing_and_reach_the_rest(wire: Wire, bridge: str) -> None:
    links = Netlink()
    with Port("vh00000005-0", bridge, port_vlans(100)) as third:
        for port in (wire.guest, wire.same):
            links.isolate_port(port.name, True)
        try:
            assert {link.name for link in links.links() if link.isolated} == {wire.guest.name, wire.same.name}
            first, second = last_of(hello()), last_of(hello(OTHER, THEIRS))
            wire.guest.send(first)
            assert third.heard(first) == [], "the rest hears it"
            third.send(second)
            assert wire.same.heard(second) == [], "the other isolated one hears the rest, and nothing of the first"
        finally:
            for port in (wire.guest, wire.same):
                links.isolate_port(port.name, False)
        assert through(wire, ALLOWED["ipv4"]) == [ALLOWED["ipv4"]]


def test_tables_of_others_are_untouched_and_nothing_of_ours_stays(wire: Wire) -> None:
    run(["nft", "-f", "-"], input=FOREIGN.encode(), timeout=20)
    try:
        before = _ruleset()
        guard(PortGuard(wire.guest.name, MAC, (MINE,)), PortGuard(wire.same.name, OTHER, (THEIRS,)))
        assert _foreign(_ruleset()) == _foreign(before)
        Nft().change(lambda text: nft.unguard([wire.guest.name], parse_guards(text)))
        assert guards().keys() == {wire.same.name}
        assert through(wire, REFUSED["ipv4"][0]) == [REFUSED["ipv4"][0]]
        Nft().change(lambda text: nft.unguard([wire.same.name, "never-there"], parse_guards(text)))
        assert _ruleset() == before
    finally:
        run(["nft", "-f", "-"], input=b"delete table bridge stranger\ndelete table bridge foreign\n", timeout=20)


def test_a_transaction_that_fails_changes_nothing(wire: Wire) -> None:
    guard(PortGuard(wire.guest.name, MAC, (MINE,)))
    before = Nft().table()
    wrong = json.loads(nft.guard([PortGuard(wire.same.name, OTHER, (THEIRS,))]))
    wrong["nftables"].append({"delete": {"chain": {"family": "bridge", "table": "vmhost", "name": "nobody"}}})
    with pytest.raises(Exception, match="nft"):
        Nft().change(lambda _: json.dumps(wrong))
    assert Nft().table() == before


def test_a_rule_that_somebody_took_out_is_seen(wire: Wire) -> None:
    wanted = PortGuard(wire.guest.name, MAC, (MINE,))
    guard(wanted)
    run(["nft", "delete", "element", "bridge", "vmhost", "ports", f"{{ {wire.guest.name} }}"], timeout=20)
    assert guards()[wire.guest.name].reached is False
    guard(wanted)
    listing = json.loads(Nft().table())["nftables"]
    handle = next(item["rule"]["handle"] for item in listing if "rule" in item and item["rule"]["chain"] == wanted.port)
    run(["nft", "delete", "rule", "bridge", "vmhost", wanted.port, "handle", str(handle)], timeout=20)
    assert guards()[wanted.port].marks == nft.marks(wanted)[1:]


def _foreign(ruleset: dict[tuple[str, str], Any]) -> dict[tuple[str, str], Any]:
    return {key: value for key, value in ruleset.items() if key[1] != "vmhost"}


def _tagged(frame: bytes, vid: int) -> bytes:
    return frame[:12] + b"\x81\x00" + vid.to_bytes(2) + frame[12:]


def _ruleset() -> dict[tuple[str, str], Any]:
    """Everything in the packet filter by kind and table, without handles and counters."""
    found: dict[tuple[str, str], Any] = {}
    for item in json.loads(run(["nft", "--json", "list", "ruleset"], timeout=20).text)["nftables"]:
        for kind, value in item.items():
            if kind == "metainfo":
                continue
            table = value["name"] if kind == "table" else value["table"]
            plain = {key: entry for key, entry in value.items() if key not in ("handle", "packets", "bytes", "expr")}
            found.setdefault((kind, table), []).append(plain)
    return found
