"""From the site to the wire: each station that differs from the one before it is named, and nothing else is."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from vmhost.model.reach import AccessPort
from vmhost.model.spec import Site
from vmhost.model.vlans import PortVlans, port_vlans
from vmhost.model.wire import NetDifference
from vmhost.ops.host import Host
from vmhost.ops.sites import parse_site
from vmhost.plan.netverify import add_vids
from vmhost.testing import FakeHost
from vmhost.testing.world import Link, Vlans

HEAD = """
apiVersion: vmhost/v1
name: shop
bridges: {br0: {mode: vlan-aware}}
networks:
  front: {bridge: br0, vlan: 100, subnet: 10.1.0.0/24, reach: agent}
  trunk: {bridge: br0, reach: agent}
defaults: {image: debian-12, memory: 512M, disks: [{size: 4G}]}
"""
GUESTS = """
guests:
  web: {nics: [{network: front}]}
  relay: {nics: [{network: front, tagged: 200-202}, {network: trunk, tagged: "300", address: none}]}
"""
SITE = HEAD + GUESTS


@pytest.fixture
def fake() -> FakeHost:
    made = FakeHost()
    made.add_image("debian-12")
    host = Host(ports=made.ports)
    host.apply(host.plan(parse_site(SITE)))
    return made


def verify(fake: FakeHost, site: Site | None = None) -> list[str]:
    return [str(item) for item in Host(ports=fake.ports).verify_network(site)]


def tap(fake: FakeHost, guest: str, index: int = 0) -> str:
    found = re.findall(r'<target dev="(vh[^"]+)"', fake.domain(guest).xml)
    return found[index]


def add_uplink(fake: FakeHost, vids: str, **more: object) -> None:
    fake.add_link(Link("eno1", kind="", master="br0", **more))  # type: ignore[arg-type]
    fake.world.vlans["eno1"] = Vlans(0, "", vids)


def test_a_site_that_was_applied_differs_nowhere(fake: FakeHost) -> None:
    assert verify(fake) == []
    assert verify(fake, parse_site(SITE)) == []


def test_the_site_that_moved_on_differs_from_what_is_noted(fake: FakeHost) -> None:
    moved = parse_site(
        SITE.replace("vlan: 100", "vlan: 101")
        .replace('tagged: "300"', 'tagged: "301"')
        .replace(
            "  web: {nics: [{network: front}]}\n", "  web: {nics: [{network: front}, {network: trunk, tagged: 7}]}\n"
        )
        + "  new: {nics: [{network: front}]}\n"
    )
    assert sorted(verify(fake, moved)) == [
        "libvirt: new: guest is absent, should be shop",
        "libvirt: relay: nics.front.pvid is 100, should be 101",
        "libvirt: relay: nics.trunk.tagged is 300, should be 301",
        "libvirt: web: nics.front.pvid is 100, should be 101",
        "libvirt: web: nics.trunk is nothing, should be trunk",
    ]


def test_a_nic_that_left_the_site_is_named(fake: FakeHost) -> None:
    less = parse_site(SITE.replace(', {network: trunk, tagged: "300", address: none}', ""))
    assert verify(fake, less) == ["libvirt: relay: nics.trunk is trunk, should be nothing"]


def test_a_definition_that_was_edited_is_named(fake: FakeHost) -> None:
    fake.edit("web", lambda xml: xml.replace('<source bridge="br0"', '<source bridge="br7"'))
    fake.edit("relay", lambda xml: re.sub(r'(<mac address=")[^"]*', r"\g<1>52:54:00:99:99:99", xml, count=1))
    assert "libvirt: web: nics.front.bridge is br7, should be br0" in verify(fake)
    assert any(text.startswith("libvirt: relay: nics.front.mac is 52:54:00:99:99:99") for text in verify(fake))


def test_a_nic_that_was_detached_from_the_definition_is_named(fake: FakeHost) -> None:
    fake.edit("web", lambda xml: re.sub(r"<interface.*?</interface>", "", xml, count=1, flags=re.DOTALL))
    assert verify(fake) == ["libvirt: web: nics.front is nothing, should be front"]


@pytest.mark.parametrize(
    ("vlans", "have"),
    [(port_vlans(200), "PVID 200"), (PortVlans(), "no VLAN"), (port_vlans(100, [5]), "PVID 100, tagged 5")],
)
def test_a_port_that_was_changed_is_named_with_what_mends_it(fake: FakeHost, vlans: PortVlans, have: str) -> None:
    fake.links.set_port_vlans(tap(fake, "web"), vlans)
    assert Host(ports=fake.ports).verify_network() == (
        NetDifference(
            "kernel", "web", "nics.front.port.vlans", "PVID 100", have, "vmhost apply SITE    # the file of site shop"
        ),
    )


def test_a_bridge_that_no_longer_filters_is_named(fake: FakeHost) -> None:
    fake.world.links["br0"].vlan_filtering = False
    assert "kernel: br0: vlan_filtering is off, should be on" in verify(fake)


def test_guests_that_do_not_run_have_no_ports(fake: FakeHost) -> None:
    fake.hypervisor.power_off(fake.domain("web").uuid)
    assert verify(fake) == []


def test_vlans_that_the_uplink_does_not_carry_are_named(fake: FakeHost) -> None:
    add_uplink(fake, "100,200-202,300")
    assert verify(fake) == []
    fake.world.vlans["eno1"].tagged = "100,201"
    difference = Host(ports=fake.ports).verify_network()[0]
    assert str(difference) == "uplink: eno1: vlans is 100,201, should be 100,200-202,300"
    assert (
        difference.mend
        == "bridge vlan add dev eno1 vid 200; bridge vlan add dev eno1 vid 202; bridge vlan add dev eno1 vid 300"
    )


@pytest.mark.parametrize(("how", "have"), [({"carrier": False}, "no carrier"), ({"up": False}, "down")])
def test_an_uplink_that_is_not_up_is_named(fake: FakeHost, how: dict[str, bool], have: str) -> None:
    add_uplink(fake, "100,200-202,300", **how)
    assert verify(fake) == [f"uplink: eno1: state is {have}, should be up"]


def test_guests_of_others_are_left_out(fake: FakeHost) -> None:
    other = parse_site(
        SITE.replace("name: shop", "name: lab").replace("  web:", "  lab-web:").replace("  relay:", "  lab-relay:")
    )
    fake.links.set_port_vlans(tap(fake, "web"), port_vlans(200))
    told = verify(fake, other)
    assert told
    assert all("lab-" in text for text in told)


NATIVE: list[Callable[[str], str]] = [
    lambda xml: xml.replace("<target dev=", '<vlan><tag id="100"/></vlan><target dev=', 1),
    lambda xml: xml.replace("<target dev=", '<vlan trunk="yes"><tag id="42"/></vlan><target dev=', 1),
]


@pytest.mark.parametrize("change", NATIVE)
def test_libvirts_own_vlan_is_never_a_difference(fake: FakeHost, change: Callable[[str], str]) -> None:
    site, host = parse_site(SITE), Host(ports=fake.ports)
    domain = fake.world.domains[fake.domain("web").uuid]
    domain.xml, domain.live_xml = change(domain.xml), change(domain.live_xml)
    assert "<vlan" in fake.domain("web").xml
    assert verify(fake, site) == []
    assert host.drift(site) == ()
    assert host.plan(site).empty


def test_ranges_are_added_with_one_command_each() -> None:
    assert add_vids("eno1", "7,100-199") == "bridge vlan add dev eno1 vid 7; bridge vlan add dev eno1 vid 100-199"


def test_a_way_into_a_vlan_that_is_gone_is_named() -> None:
    fake = FakeHost()
    fake.add_image("debian-12")
    host, site = (
        Host(ports=fake.ports),
        parse_site(SITE.replace("reach: agent", "reach: port, reach_address: 10.1.0.9", 1)),
    )
    host.apply(host.plan(site))
    assert verify(fake, site) == []
    access = AccessPort("br0", 100, "10.1.0.9/24")
    fake.links.set_port_vlans(access.port, port_vlans(7))
    told = [f"kernel: br0: access port {access.port} is gone or wrong, should be PVID 100"]
    assert verify(fake, site) == told
    fake.links.close_access(access, alias="vmhost:shop")
    assert verify(fake) == told


def test_a_declared_uplink_has_to_carry_all_that_its_site_says() -> None:
    fake = FakeHost()
    fake.add_image("debian-12")
    fake.add_link(Link("wire0", kind="veth"))
    text = SITE.replace("{mode: vlan-aware}", "{mode: vlan-aware, uplink: wire0, native: 7}")
    host, site = Host(ports=fake.ports), parse_site(text)
    host.apply(host.plan_network(site, confirm=60))
    host.apply(host.plan_confirmation())
    host.apply(host.plan(site))
    assert verify(fake, site) == []
    assert verify(fake) == []
    fake.links.set_port_vlans("wire0", port_vlans(0, [100, 200, 201, 202]))
    assert verify(fake, site) == ["uplink: wire0: vlans is 100,200-202, should be 7,100,200-202,300"]
    # Without the site what we attached is still known as an uplink, though its kind does not tell.
    assert verify(fake) == ["uplink: wire0: vlans is 100,200-202, should be 100,200-202,300"]
    fake.world.links["wire0"].master = ""
    assert verify(fake, site)[0] == "uplink: br0: uplink is port of no bridge, should be wire0"
