"""A VLAN-aware bridge with three guests on it, and the hook in libvirt's configuration."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.labfixture import InLab
from tests.network.guests import BRIDGE, Guest, remove, start_all
from vmhost.drivers.hook import LibvirtHook
from vmhost.drivers.netlink import Netlink

ALIAS = "vmhost:tests"


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


@dataclass(frozen=True)
class Trio:
    """Two guests in VLAN 100, one in VLAN 200, all in one subnet."""

    one: Guest
    two: Guest
    other: Guest


@pytest.fixture(scope="session")
def trio(lab: InLab, bridge: str) -> Iterator[Trio]:
    guests = (
        Guest(lab, "one", 100, words="ip4=10.1.1.1/24"),
        Guest(lab, "two", 100, words="ip4=10.1.1.2/24"),
        Guest(lab, "other", 200, words="ip4=10.1.1.3/24"),
    )
    start_all(*guests)
    yield Trio(*guests)
    remove(*guests)
