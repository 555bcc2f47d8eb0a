"""A VLAN-aware bridge with three guests on it, and the hook in libvirt's configuration."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.labfixture import InLab
from tests.network.guests import BRIDGE, Guest, remove, start_all
from tests.network.sniffer import Sniffer
from tests.reliability.image import tiny_image
from tests.reliability.scene import ALL
from vmhost.drivers.hook import LibvirtHook
from vmhost.drivers.netlink import Netlink
from vmhost.model.vlans import port_vlans
from vmhost.ops.host import Host, connect

ALIAS = "vmhost:tests"
GUESTS = pytest.mark.xdist_group("guests")
"""For tests with guests that run for all of them: they share a lab."""


@pytest.fixture(scope="session")
def bridge(lab: InLab) -> Iterator[str]:
    """A VLAN-aware bridge; libvirt calls the hook."""
    Netlink().create_bridge(BRIDGE, alias=ALIAS, mtu=1500, address="", vlan_aware=True)
    hook = LibvirtHook()
    hook.install()
    hook.restart_daemon()
    yield BRIDGE
    hook.remove()
    Netlink().delete_bridge(BRIDGE, alias=ALIAS)


@pytest.fixture(scope="session")
def ear(bridge: str) -> Iterator[Sniffer]:
    """A trunk port that hears every frame of every VLAN, with its tag, for as long as there are tests."""
    with Sniffer("ear", port_vlans(0, range(1, 4095))) as sniffer:
        yield sniffer


@dataclass(frozen=True)
class Trio:
    """Two guests in VLAN 100, the first of them guarded, and one in VLAN 200, all in one subnet.

    ``two`` sends broadcasts all the time, from its first moment on.
    """

    one: Guest
    two: Guest
    other: Guest


@pytest.fixture(scope="session")
def trio(lab: InLab, bridge: str, ear: Sniffer) -> Iterator[Trio]:
    guests = (
        Guest(lab, "one", 100, words="ip4=10.1.1.1/24", address="10.1.1.1/24", spoofing="refused"),
        Guest(lab, "two", 100, words="ip4=10.1.1.2/24 chatter=10.1.1.255", disk=True),
        Guest(lab, "other", 200, words="ip4=10.1.1.3/24"),
    )
    start_all(*guests)
    yield Trio(*guests)
    remove(*guests)


@pytest.fixture
def host(lab: InLab) -> Iterator[Host]:
    """This host, for sites of tiny guests; what they leave is deleted."""
    images = Path("/run/vmhost-images")
    images.mkdir(exist_ok=True)
    with tiny_image(images, "tiny"), connect() as opened:
        yield opened
        names = [row.name for row in opened.guests() if row.site != "tests"]  # others' tests need theirs
        if names:
            opened.apply(opened.plan_delete(names, ALL))
