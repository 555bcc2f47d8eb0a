"""What doctor finds in the host's network: each finding, with its weight and the command that mends it."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from vmhost.model.outcome import Finding
from vmhost.model.vlans import port_vlans
from vmhost.ops.host import Host
from vmhost.ops.sites import parse_site
from vmhost.render.parse.domain import parse_domain
from vmhost.testing import FakeHost, builders
from vmhost.testing.world import Link, Vlans

SITE = """
apiVersion: vmhost/v1
name: shop
bridges: {br0: {mode: vlan-aware}, br1: {mode: vlan-aware}}
networks: {front: {bridge: br0, vlan: 100, subnet: 10.1.0.0/24, reach: agent}}
guests:
  web: {image: debian-12, memory: 512M, disks: [{size: 4G}], nics: [{network: front}]}
"""


@pytest.fixture
def fake() -> FakeHost:
    made = FakeHost()
    made.add_image("debian-12")
    host = Host(ports=made.ports)
    host.apply(host.plan(parse_site(SITE)))
    made.add_link(Link("eno1", kind="", master="br0"))
    made.world.vlans["eno1"] = Vlans(0, "", "100")
    return made


def doctor(fake: FakeHost) -> tuple[Finding, ...]:
    return Host(ports=fake.ports).doctor(only="network")


def tap(fake: FakeHost) -> str:
    found = re.search(r'<target dev="(vh[^"]+)"', fake.domain("web").xml)
    assert found
    return found[1]


def _veth(fake: FakeHost, *, to: str = "br0", stp: bool = False) -> None:
    fake.world.links["br0"].stp = stp
    fake.add_link(Link("v0", kind="veth", master="br0", peer="v1"))
    fake.add_link(Link("v1", kind="veth", master=to, peer="v0"))


def _ring(fake: FakeHost) -> None:
    _veth(fake, to="br1")
    fake.add_link(Link("w0", kind="veth", master="br0", peer="w1"))
    fake.add_link(Link("w1", kind="veth", master="br1", peer="w0"))


def _second_uplink(fake: FakeHost) -> None:
    fake.add_link(Link("bond0", kind="bond", master="br0"))
    fake.world.vlans["bond0"] = Vlans(0, "", "100")


def _foreign_guest(fake: FakeHost) -> None:
    spec = builders.guest("old", nics=[{"network": "lan", "id": "lan", "mac": "52:54:00:00:00:99"}])
    fake.hypervisor.define(re.sub(r"<alias [^>]*>", "", builders.domain_xml(spec, builders.identity(spec), None)))
    fake.add_link(Link(parse_domain(fake.domain("old").xml).nics[0].tap, kind="tun", master="br0"))


CASES: dict[str, tuple[Callable[[FakeHost], object], str, str, str]] = {
    "uplink without carrier": (
        lambda fake: setattr(fake.world.links["eno1"], "carrier", False),
        "uplink-down",
        "uplink eno1 of br0 has no carrier",
        "ethtool eno1",
    ),
    "uplink down": (
        lambda fake: setattr(fake.world.links["eno1"], "up", False),
        "uplink-down",
        "uplink eno1 of br0 is down",
        "ip link set eno1 up",
    ),
    "VID missing on the uplink": (
        lambda fake: setattr(fake.world.vlans["eno1"], "tagged", "7"),
        "uplink-vids",
        "uplink eno1 of br0 does not carry VLAN 100",
        "bridge vlan add dev eno1 vid 100",
    ),
    "smaller MTU": (
        lambda fake: setattr(fake.world.links["eno1"], "mtu", 1400),
        "mtu",
        "port eno1 of br0 takes 1400 bytes, others 1500",
        "ip link set eno1 mtu 1500",
    ),
    "two uplinks": (
        _second_uplink,
        "two-uplinks",
        "bridge br0 has 2 uplinks and STP off: eno1, bond0",
        "ip link set br0 type bridge stp_state 1    # or a bond of them",
    ),
    "veth to itself": (_veth, "loop", "v0 and v1 lead from bridge br0 back to itself", "ip link set v1 nomaster"),
    "ring of bridges": (_ring, "loop", "w0 and w1 lead from bridge br0 back to itself", "ip link set w1 nomaster"),
    "tap of nobody": (
        lambda fake: fake.add_link(Link("tap0", kind="tun", master="br0")),
        "foreign-tap",
        "foreign tap tap0 is on bridge br0: no VLAN",
        "ip link set tap0 nomaster",
    ),
    "tap of a foreign guest": (_foreign_guest, "foreign-tap", " of guest old is on bridge br0: no VLAN", " nomaster"),
    "bridge-nf-call": (
        lambda fake: fake.world.nf_call.append("net.bridge.bridge-nf-call-iptables"),
        "bridge-nf-call",
        "the host's packet filter sees bridged traffic: net.bridge.bridge-nf-call-iptables",
        "sysctl net.bridge.bridge-nf-call-iptables=0",
    ),
    "bridge-nf-call of one bridge": (
        lambda fake: fake.world.nf_call.append("br0 nf_call_iptables"),
        "bridge-nf-call",
        "the host's packet filter sees bridged traffic: br0 nf_call_iptables",
        "ip link set br0 type bridge nf_call_iptables 0",
    ),
    "kernel without VLAN filtering": (
        lambda fake: setattr(fake.world, "vlan_filtering", False),
        "vlan-filtering",
        "this kernel's bridges cannot filter VLANs",
        "vmhost lab up --kernel uml    # or another kernel",
    ),
    "kernel without 802.1Q": (
        lambda fake: setattr(fake.world, "vlan_links", False),
        "vlan-links",
        "this kernel has no 802.1Q links",
        "modprobe 8021q",
    ),
    "bridge down": (
        lambda fake: setattr(fake.world.links["br1"], "up", False),
        "bridge-down",
        "bridge br1 is down",
        "ip link set br1 up",
    ),
    "port in another VLAN": (
        lambda fake: fake.links.set_port_vlans(tap(fake), port_vlans(200)),
        "port-vlans",
        " has PVID 200",
        "vmhost apply SITE    # the file of site shop",
    ),
    "no hook": (lambda fake: fake.hook.remove(), "hook", "libvirt's hook is missing or old", "vmhost apply SITE"),
}


def test_a_sound_network_has_no_findings(fake: FakeHost) -> None:
    found = doctor(fake)
    assert {finding.severity for finding in found} == {"ok"}
    assert {finding.id for finding in found} == {"bridge", "uplink", "hook", "port-vlans"}


@pytest.mark.parametrize("name", CASES)
def test_what_ails_is_found(fake: FakeHost, name: str) -> None:
    happen, wanted, title, mend = CASES[name]
    happen(fake)
    bad = [finding for finding in doctor(fake) if finding.severity != "ok"]
    assert [finding.id for finding in bad] == [wanted]
    assert bad[0].title.endswith(title)
    assert bad[0].mend.endswith(mend)
    assert bad[0].why
    warnings = ("mtu", "two-uplinks", "foreign-tap")
    assert bad[0].severity == ("warning" if wanted in warnings else "error")


@pytest.mark.parametrize("happen", [lambda fake: _veth(fake, stp=True), lambda fake: _veth(fake, to="br1")])
def test_pairs_that_make_no_loop_are_fine(fake: FakeHost, happen: Callable[[FakeHost], None]) -> None:
    happen(fake)
    assert not [finding for finding in doctor(fake) if finding.id == "loop"]


def test_where_nobody_uses_vlans_the_kernel_need_not_know_them() -> None:
    fake = FakeHost()
    fake.world.vlan_filtering = fake.world.vlan_links = False
    fake.world.nf_call.append("net.bridge.bridge-nf-call-iptables")
    assert [(finding.id, finding.severity) for finding in doctor(fake)] == [("vlan-filtering", "info")]
