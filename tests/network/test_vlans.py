"""Guests in VLANs on a real kernel: who reaches whom, and that nobody loses the VLAN when things are restarted."""

from __future__ import annotations

import pytest

from tests.conftest import one_of
from tests.labfixture import InLab
from tests.network.conftest import GUESTS, Trio
from tests.network.guests import Guest, remove
from tests.network.sniffer import Sniffer, heard_again, unfiltered
from vmhost.drivers.command import CommandFailed
from vmhost.drivers.hook import LibvirtHook
from vmhost.drivers.netlink import Netlink
from vmhost.model.vlans import NO_VLAN, parse_vids, port_vlans

pytestmark = [pytest.mark.uml, GUESTS, pytest.mark.timeout(480)]


def test_libvirt_has_called_the_hook(trio: Trio) -> None:
    state = LibvirtHook().state()
    assert (state.installed, state.active, state.called) == (True, True, True)


def test_ports_are_in_their_vlans(trio: Trio) -> None:
    assert [guest.vlans for guest in (trio.one, trio.two, trio.other)] == [
        port_vlans(100),
        port_vlans(100),
        port_vlans(200),
    ]


def test_guests_of_one_vlan_reach_each_other(trio: Trio) -> None:
    assert trio.one.reaches("10.1.1.2")
    assert trio.two.reaches("10.1.1.1")


def test_guests_of_two_vlans_do_not(trio: Trio) -> None:
    assert not trio.one.reaches("10.1.1.3")
    assert not trio.other.reaches("10.1.1.1")
    # It does live: its own VLAN is only empty.
    assert trio.other.reaches("127.0.0.1")


@pytest.mark.parametrize("end", one_of("libvirtd", "restart", "crash"))
def test_vlans_stay_when_libvirtd_starts_again(lab: InLab, trio: Trio, ear: Sniffer, end: str) -> None:
    lab.restart_libvirtd(kill=end == "crash")
    trio.one.until_reconnected()
    assert trio.one.running
    assert trio.one.vlans == port_vlans(100)
    assert trio.one.reaches("10.1.1.2")
    assert heard_again(ear, trio.two)
    assert ear.vids(trio.two.mac) == {100}


def test_what_was_changed_meanwhile_is_repaired_when_libvirtd_starts_again(lab: InLab, trio: Trio) -> None:
    lab.stop_libvirtd()
    Netlink().set_port_vlans(trio.other.tap, port_vlans(100))
    lab.start_libvirtd()
    trio.other.until_reconnected()
    assert trio.other.vlans == port_vlans(200)


def test_a_hook_that_fails_at_reconnect_hurts_nobody(lab: InLab, trio: Trio, ear: Sniffer) -> None:
    lab.stop_libvirtd()
    with unfiltered(ear, trio.two):
        lab.start_libvirtd()
        trio.one.until_reconnected()
        assert trio.one.running
    assert trio.one.vlans == port_vlans(100)


def test_a_guest_that_starts_again_is_in_its_vlan(trio: Trio, ear: Sniffer) -> None:
    trio.two.power_off()
    trio.two.start()
    assert trio.two.vlans == port_vlans(100)
    assert trio.one.reaches("10.1.1.2")
    assert not trio.other.reaches("10.1.1.2")
    assert heard_again(ear, trio.two)
    assert ear.vids(trio.two.mac) == {100}


def test_a_guest_that_is_restored_is_in_its_vlan(lab: InLab, trio: Trio, ear: Sniffer) -> None:
    trio.two.let_go()
    lab.virsh("managedsave", "two", timeout=90)
    assert not trio.two.running
    lab.virsh("start", "two", timeout=90)
    assert trio.two.vlans == port_vlans(100)
    assert trio.one.reaches("10.1.1.2")
    assert heard_again(ear, trio.two)
    assert ear.vids(trio.two.mac) == {100}


def test_a_guest_that_cannot_be_tagged_does_not_start(lab: InLab, trio: Trio, ear: Sniffer) -> None:
    guest = Guest(lab, "closed", 100)
    guest.define()
    try:
        with unfiltered(ear, trio.two), pytest.raises(CommandFailed, match="does not filter VLANs"):
            guest.start()
        assert not guest.running
        assert guest.tap not in {link.name for link in Netlink().links()}
    finally:
        remove(guest)


def test_a_hybrid_port_gets_its_vlans(lab: InLab, bridge: str) -> None:
    guest = Guest(lab, "hybrid", 7, "100,200-299")
    guest.define()
    # Paused: what its port carries is settled before its system runs.
    lab.virsh("start", guest.name, "--paused", timeout=90)
    assert guest.vlans == port_vlans(7, parse_vids("100,200-299"))
    remove(guest)


def test_a_foreign_guest_starts_and_is_in_no_vlan(lab: InLab, bridge: str) -> None:
    guest = Guest(lab, "foreign", ours=False)
    guest.define()
    lab.virsh("start", guest.name, "--paused", timeout=90)
    assert guest.vlans == NO_VLAN
    remove(guest)
