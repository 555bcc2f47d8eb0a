"""A guest from flags: what a profile, a network of a file, and the flags themselves make of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from vmhost.model.errors import NotFound, SpecError
from vmhost.model.reservations import Reservation
from vmhost.model.spec import GuestSpec, Site
from vmhost.ops.flavours import NOTHING, Flavours, read_flavours
from vmhost.ops.forms import NewGuest, new_site
from vmhost.ops.host import Host
from vmhost.testing import FakeHost

FILE = """
apiVersion: vmhost/v1
name: shop
bridges: {br-vlan: {mode: vlan-aware}}
networks:
  prod: {bridge: br-vlan, vlan: 100, subnet: 10.40.0.0/24, reach: port, reach_address: 10.40.0.250}
  test: {bridge: br-vlan, vlan: auto, range: 1000-1999, reach: agent}
defaults: {image: debian-12, labels: {owner: ops}}
profiles:
  base: {memory: 512M, disks: [{size: 4G}], labels: {tier: base}}
  tall: {profile: base, disks: null}
  web: {profile: base, cpus: 2, nics: [{network: prod, spoofing: refused}]}
"""
BRIDGES = {"br0": "10.20.0.1/24"}


def flavours(tmp_path: Path) -> Flavours:
    fake = FakeHost()
    fake.layout = replace(fake.layout, config=tmp_path)
    (tmp_path / "host.yaml").write_text(FILE)
    return read_flavours(fake.ports, "")


def guest_of(site: Site) -> GuestSpec:
    (guest,) = site.guests
    return guest


def test_a_profile_with_all_that_it_inherits_and_flags_before_it(tmp_path: Path) -> None:
    site = new_site(NewGuest("web-09", profile="web", memory="1G", network="prod"), BRIDGES, flavours(tmp_path))
    guest = guest_of(site)
    assert (site.name, guest.name, guest.image) == ("web-09", "web-09", "debian-12")
    assert (guest.cpus.count, guest.memory.size, guest.disks[0].size) == (2, 1 << 30, 4 << 30)
    assert guest.labels == {"owner": "ops", "tier": "base"}
    assert [(nic.network, nic.address) for nic in guest.nics] == [("prod", "auto")]
    assert (list(site.networks), site.networks["prod"].vlan, dict(site.bridges)) == (["prod"], 100, {})


def test_without_a_network_the_profiles_own_nics_stay(tmp_path: Path) -> None:
    site = new_site(NewGuest("web-09", profile="web"), BRIDGES, flavours(tmp_path))
    assert [(nic.network, nic.spoofing) for nic in guest_of(site).nics] == [("prod", "refused")]
    assert list(site.networks) == ["prod"]


def test_a_key_that_a_profile_takes_away_is_left_to_us(tmp_path: Path) -> None:
    guest = guest_of(new_site(NewGuest("x", profile="tall", network="prod"), BRIDGES, flavours(tmp_path)))
    assert (guest.memory.size, guest.disks[0].size) == (512 << 20, 10 << 30)


def test_small_needs_no_file_but_an_image() -> None:
    guest = guest_of(new_site(NewGuest("x", "debian-12", profile="small", network="br0"), BRIDGES))
    assert (guest.cpus.count, guest.memory.size, guest.disks[0].size) == (1, 1 << 30, 10 << 30)
    with pytest.raises(SpecError, match="lacks image"):
        new_site(NewGuest("x", profile="small"), BRIDGES)


def test_of_what_is_not_said_the_smallest() -> None:
    site = new_site(NewGuest("x", "debian-12"), {})
    guest = guest_of(site)
    assert (guest.cpus.count, guest.memory.size, guest.disks[0].size) == (1, 1 << 30, 10 << 30)
    assert [network.type for network in site.networks.values()] == ["user"]


def test_a_vlan_that_is_auto_is_the_one_that_its_site_has(tmp_path: Path) -> None:
    offered = flavours(tmp_path)
    with pytest.raises(NotFound, match="no VLAN is allocated for network test yet") as caught:
        new_site(NewGuest("x", profile="base", network="test"), BRIDGES, offered)
    assert caught.value.hint == f"vmhost net vlan allocate test --site {tmp_path / 'host.yaml'}"
    site = new_site(NewGuest("x", profile="base", network="test"), BRIDGES, replace(offered, vlans={"test": 1234}))
    assert (site.networks["test"].vlan, site.networks["test"].range) == (1234, None)


def test_the_vlans_of_a_file_are_those_that_are_held_for_it(tmp_path: Path) -> None:
    fake = FakeHost()
    path = tmp_path / "site.yaml"
    path.write_text(FILE)
    for item in (
        Reservation("vlan", "1000", "test", site="shop"),
        Reservation("vlan", "1001", "test", site="elsewhere"),
        Reservation("vlan", "1002", "prod", site="shop", until="2099-01-01T00:00:00Z"),
    ):
        fake.ports.reservations.keep((item,), "2026-01-01T00:00:00Z")
    found = read_flavours(fake.ports, str(path))
    assert (found.vlans, found.base) == ({"test": 1000}, tmp_path)
    assert read_flavours(fake.ports, "") is NOTHING


def test_what_is_not_there_is_named_with_what_is(tmp_path: Path) -> None:
    fake = FakeHost()
    path = tmp_path / "site.yaml"
    path.write_text(FILE)
    host = Host(ports=fake.ports)
    with pytest.raises(NotFound, match="there is no profile huge; known here: base, tall, web, small, medium, large"):
        host.plan_create(NewGuest("x", profile="huge", site=str(path)))
    with pytest.raises(NotFound, match="no network or bridge 'nosuch'; known here: prod, test, user, none"):
        host.plan_create(NewGuest("x", network="nosuch", site=str(path)))
    with pytest.raises(NotFound, match="there is no such file"):
        host.plan_create(NewGuest("x", site=str(tmp_path / "other.yaml")))
