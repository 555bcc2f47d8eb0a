"""The examples load as they stand, and say what their comments say."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmhost.model.spec import Site
from vmhost.ops.sites import load_site

EXAMPLES = Path(__file__).parents[2] / "examples"


def is_site(path: Path) -> bool:
    return "apiVersion:" in path.read_text()


def load(name: str) -> Site:
    return load_site(EXAMPLES / f"{name}.yaml")


@pytest.mark.parametrize(
    "path", [path for path in sorted(EXAMPLES.glob("*.yaml")) if is_site(path)], ids=lambda path: path.name
)
def test_an_example_loads(path: Path) -> None:
    assert load_site(path).guests


def test_two_guests() -> None:
    site = load("two-guests")
    web, db = site.guests
    assert (web.name, db.name) == ("web-01", "db-01")
    assert (web.nics[0].address, db.nics[0].address) == ("10.77.0.11", "auto")
    assert {guest.ready.by for guest in site.guests} == {"ssh"}
    assert site.bridges["br-demo"].address == "10.77.0.1/24"


def test_profiles() -> None:
    site = load("profiles")
    assert [guest.name for guest in site.guests] == ["web-01", "web-02", "web-03", "db-01"]
    assert site.guests[0].cpus.max == 4
    assert site.guests[0].labels == {"owner": "ops", "tier": "web"}
    assert [disk.id for disk in site.guests[3].disks] == ["root", "data1"]
    assert site.guests[3].cloud_init.user_data is not None


def test_ordinary_user() -> None:
    (guest,) = load("ordinary-user").guests
    assert guest.ready.by == "ssh"
    assert guest.nics[0].address == "dhcp"


def test_vlans() -> None:
    site = load("vlans")
    shop, disk, relay, test = site.guests
    assert shop.nics[0].address == disk.nics[0].address, "in two VLANs, so they do not meet"
    assert {site.networks[guest.nics[0].network].vlan for guest in (shop, disk, test)} == {100, 200, "auto"}
    assert (site.networks[relay.nics[0].network].vlan, str(relay.nics[0].tagged)) == (100, "200")
    assert test.nics[0].isolated
