"""Addresses of guests that are gone rest, and those of two VLANs do not know each other."""

from __future__ import annotations

import pytest

from vmhost.model.errors import Conflict, NoCapacity, SpecError
from vmhost.model.permit import Permit
from vmhost.model.reservations import Reservation
from vmhost.ops.host import Host
from vmhost.ops.sites import parse_site
from vmhost.testing import FakeHost
from vmhost.testing.world import Link, Vlans

HARM = Permit(power_off=True, disks=True)
LAN = "lan: {bridge: br0, subnet: 10.20.0.0/24, gateway: 10.20.0.1, pool: 10.20.0.2-10.20.0.4}"
VLANS = """
  prod: {bridge: br0, vlan: 100, subnet: 10.20.0.0/24, reach: agent}
  test: {bridge: br0, vlan: 200, subnet: 10.20.0.0/24, reach: agent}"""


def site(*guests: str, networks: str = LAN, bridge: str = "{address: 10.20.0.1/24}", name: str = "shop") -> str:
    lines = "".join(f"\n  {guest}" for guest in guests)
    defaults = "{image: debian-12, memory: 512M, disks: [{size: 4G}]}"
    head = f"apiVersion: vmhost/v1\nname: {name}\nbridges: {{br0: {bridge}}}\nnetworks:\n  {networks.strip()}\n"
    return f"{head}defaults: {defaults}\nguests:{lines}\n"


@pytest.fixture
def fake() -> FakeHost:
    fake = FakeHost(seed=5)
    fake.add_image("debian-12")
    return fake


def apply(fake: FakeHost, text: str) -> dict[str, tuple[str, ...]]:
    host = Host(ports=fake.ports)
    host.apply(host.plan(parse_site(text)))
    return {row.name: row.addresses for row in host.guests()}


def delete(fake: FakeHost, *names: str) -> None:
    host = Host(ports=fake.ports)
    host.apply(host.plan_delete(names, HARM))


def lan(*names: str) -> str:
    return site(*(f"{name}: {{nics: [{{network: lan}}]}}" for name in names))


def test_an_address_rests_for_an_hour_and_is_then_given_to_others(fake: FakeHost) -> None:
    apply(fake, lan("keeper", "old"))
    delete(fake, "old")
    assert apply(fake, lan("keeper", "new"))["new"] == ("10.20.0.4",)
    with pytest.raises(NoCapacity, match=r"no free address in .*; 1 of them rests after a release"):
        apply(fake, lan("keeper", "new", "more"))
    fake.advance(3600)
    assert apply(fake, lan("keeper", "new", "more"))["more"] == ("10.20.0.3",)


def test_who_had_it_has_it_again_at_once(fake: FakeHost) -> None:
    before = apply(fake, lan("keeper", "a", "b"))
    delete(fake, "a", "b")
    assert apply(fake, lan("keeper", "b"))["b"] == before["b"]
    assert apply(fake, lan("keeper", "b", "a")) == before


def test_what_is_written_by_hand_is_kept_from_nobody(fake: FakeHost) -> None:
    apply(fake, lan("keeper", "old"))
    delete(fake, "old")
    by_hand = site("keeper: {nics: [{network: lan}]}", "new: {nics: [{network: lan, address: 10.20.0.3}]}")
    assert apply(fake, by_hand)["new"] == ("10.20.0.3",)


def test_an_undone_delete_lets_nothing_rest(fake: FakeHost) -> None:
    apply(fake, lan("keeper", "old"))
    host = Host(ports=fake.ports)
    with pytest.raises(Exception, match="cancelled"):
        host.apply(host.plan_delete(["old"], HARM), cancelled=lambda: len(list(fake.world.domains)) == 1)
    assert fake.world.reservations == []
    assert len(fake.world.domains) == 2


def test_two_vlans_may_have_the_same_addresses(fake: FakeHost) -> None:
    guests = (
        "one: {nics: [{network: prod, address: 10.20.0.9}]}",
        "two: {nics: [{network: test, address: 10.20.0.9}]}",
        "three: {nics: [{network: prod}]}",
        "four: {nics: [{network: test}]}",
    )
    text = site(*guests, networks=VLANS, bridge="{mode: vlan-aware}")
    rows = apply(fake, text)
    assert (rows["one"], rows["three"]) == (rows["two"], rows["four"]) == (("10.20.0.9",), ("10.20.0.1",))
    host = Host(ports=fake.ports)
    assert host.plan(parse_site(text)).empty
    assert host.drift(parse_site(text)) == ()


def test_within_one_vlan_an_address_is_one_guests(fake: FakeHost) -> None:
    twice = ("one: {nics: [{network: prod, address: 10.20.0.9}]}", "two: {nics: [{network: prod, address: 10.20.0.9}]}")
    with pytest.raises(SpecError, match=r"address 10\.20\.0\.9 belongs to NIC prod of guest one"):
        parse_site(site(*twice, networks=VLANS, bridge="{mode: vlan-aware}"))
    apply(fake, site(twice[0], networks=VLANS, bridge="{mode: vlan-aware}"))
    other = VLANS.replace("{bridge: br0, vlan: 200", "{bridge: br0, vlan: 300")
    text = site(twice[1], networks=other, bridge="{mode: vlan-aware}", name="other").replace(
        "bridges: {br0: {mode: vlan-aware}}\n", ""
    )
    with pytest.raises(Conflict, match=r"10\.20\.0\.9 is taken by one"):
        apply(fake, text)


def test_doctor_tells_leaks(fake: FakeHost) -> None:
    auto = "lab: {bridge: br0, vlan: auto, range: 1000-1001, reach: agent}"
    apply(fake, site("one: {nics: [{network: lab, address: none}]}", networks=auto, bridge="{mode: vlan-aware}"))
    host = Host(ports=fake.ports)
    host.vlans.allocate("1000-1001", owner="switch")
    found = {finding.id: finding for finding in host.doctor(only="network")}
    assert found["vlan-idle"].title == "VLAN 1001 is reserved for switch, and nobody is in it"
    assert found["vlan-idle"].mend == "vmhost net vlan release 1001"
    assert not {"vlan-twice", "vlan-foreign", "address-twice"} & found.keys()
    assert host.vlans.allocate("1000-1001", owner="switch").vid == 1001
    host.vlans.release(1001)
    assert host.vlans.allocate("1000-1001", owner="switch").vid == 1001
    host.vlans.release(1001)
    fake.add_link(Link("vnet9", kind="tun", master="br0"))
    fake.world.vlans["vnet9"] = Vlans(1002, "1002")
    fake.world.reservations[0] = Reservation("vlan", "1000", "x", "y", pool="1000-1010")
    found = {finding.id: finding for finding in host.doctor(only="network")}
    assert found["vlan-foreign"].title == "VLAN 1002, which vmhost may give to a network, is carried by vnet9"
    assert found["vlan-twice"].title == "VLAN 1000 of network x of site y is used by network lab of site shop, too"


def test_the_last_guest_of_a_site_gives_its_vlan_up(fake: FakeHost) -> None:
    auto = "lab: {bridge: br0, vlan: auto, range: 1000-1001, reach: agent}"
    text = site("one: {nics: [{network: lab, address: none}]}", networks=auto, bridge="{mode: vlan-aware}")
    apply(fake, text)
    host = Host(ports=fake.ports)
    assert [(row.vid, row.state, row.guests) for row in host.vlans.list()] == [(1000, "used", ("one",))]
    delete(fake, "one")
    assert [(row.vid, row.state) for row in host.vlans.list()] == [(1000, "resting")]
    apply(fake, text.replace("name: shop", "name: other"))
    assert [(row.vid, row.state) for row in host.vlans.list()] == [(1000, "resting"), (1001, "used")]
