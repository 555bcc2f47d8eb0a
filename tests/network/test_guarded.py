"""Guests whose ports are guarded by the hook, and limits that hold, on a real kernel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from time import monotonic

import pytest

from tests.labfixture import InLab
from tests.network.conftest import GUESTS, Trio
from tests.network.guests import Guest, remove
from tests.network.sniffer import Sniffer, unfiltered
from vmhost.drivers.command import CommandFailed, run
from vmhost.drivers.libvirt import connect
from vmhost.drivers.netlink import Netlink
from vmhost.drivers.nft import Nft
from vmhost.model.guard import ObservedGuard, guard_of
from vmhost.render.nft import marks
from vmhost.render.parse.nft import parse_guards

pytestmark = [pytest.mark.uml, GUESTS, pytest.mark.timeout(480)]

LIMIT = 122  # KiB a second: 1 Mbit
SETTLING, MEASURED = 3.0, 6.0


def guards() -> dict[str, ObservedGuard]:
    return {one.port: one for one in parse_guards(Nft().table())}


def dropped(guest: Guest) -> dict[str, int]:
    return dict(guards()[guest.tap].dropped)


def test_the_hook_guards_those_who_wish_it(trio: Trio) -> None:
    wanted = guard_of(trio.one.nic)
    assert wanted is not None
    found = guards()
    assert found.keys() == {trio.one.tap}
    assert (found[trio.one.tap].marks, found[trio.one.tap].reached) == (marks(wanted), True)
    assert trio.one.reaches("10.1.1.2")


def test_a_guest_with_anothers_address_reaches_nobody(trio: Trio) -> None:
    before = dropped(trio.one)
    trio.one.run("ip addr add 10.1.1.77/24 dev eth0")
    try:
        code, text = trio.one.run("ping -c 2 -W 1 -I 10.1.1.77 10.1.1.2")
        assert (code, "packets transmitted" in text) == (1, True), text
    finally:
        trio.one.run("ip addr del 10.1.1.77/24 dev eth0")
    after = dropped(trio.one)
    assert after["ipv4"] + after["arp"] > before["ipv4"] + before["arp"]
    assert trio.one.reaches("10.1.1.2")


def test_a_guest_with_another_mac_reaches_nobody(trio: Trio) -> None:
    before = dropped(trio.one)["mac"]
    code, text = trio.one.run("ip link set eth0 address 52:54:00:66:66:66")
    assert code == 0, text
    try:
        assert not trio.one.reaches("10.1.1.2")
    finally:
        trio.one.run(f"ip link set eth0 address {trio.one.mac}")
    assert dropped(trio.one)["mac"] > before
    assert trio.one.reaches("10.1.1.2")


def test_a_guard_comes_before_qemu_and_goes_with_it(lab: InLab, trio: Trio) -> None:
    guest = Guest(lab, "guarded", 100, address="10.1.1.9/24", spoofing="refused", isolated=True)
    guest.define()
    try:
        lab.virsh("start", guest.name, "--paused", timeout=90)
        assert guards().keys() == {trio.one.tap, guest.tap}
        assert {link.name for link in Netlink().links() if link.isolated} == {guest.tap}
        lab.virsh("destroy", guest.name)
        assert guards().keys() == {trio.one.tap}
    finally:
        remove(guest)


def test_a_start_that_fails_leaves_no_guard(lab: InLab, trio: Trio, ear: Sniffer) -> None:
    guest = Guest(lab, "unlucky", 100, address="10.1.1.9/24", spoofing="refused")
    guest.define()
    try:
        with unfiltered(ear, trio.two), pytest.raises(CommandFailed, match="does not filter VLANs"):
            lab.virsh("start", guest.name, timeout=90)
        assert guards().keys() == {trio.one.tap}
    finally:
        remove(guest)


def test_a_guard_that_was_lost_is_back_when_libvirtd_starts_again(lab: InLab, trio: Trio) -> None:
    lab.stop_libvirtd()
    run(["nft", "delete", "table", "bridge", "vmhost"], timeout=20)
    lab.start_libvirtd()
    trio.one.until_reconnected()
    assert guards()[trio.one.tap].reached


def test_limits_hold_both_ways_within_15_percent_and_go_again(trio: Trio) -> None:
    """At once on a running guest. Without them there is at least three times as much."""
    hypervisor = connect("qemu:///system")
    one, two = trio.one, trio.two
    try:
        with _flood(one, two):
            free = [_rate(two.tap, 1.0)]
            while max(free) <= 3 * LIMIT * 1024 and len(free) < 30:  # a busy machine may be slow for a while
                free.append(_rate(two.tap, 1.0))
            assert max(free) > 3 * LIMIT * 1024, f"{free} bytes a second are no test of a limit"
            hypervisor.set_bandwidth(one.uuid, one.tap, 0, LIMIT)
            Event().wait(SETTLING)
            out = _limited(two.tap)
        with _flood(two, one):
            hypervisor.set_bandwidth(one.uuid, one.tap, LIMIT, 0)
            Event().wait(SETTLING)
            into = _limited(one.tap)
        assert (out / (LIMIT * 1024), into / (LIMIT * 1024)) == pytest.approx((1, 1), abs=0.15)
        hypervisor.set_bandwidth(one.uuid, one.tap, 0, 0)
        left = run(["tc", "qdisc", "show", "dev", one.tap], timeout=20).text
        assert "htb" not in left
        assert "ingress" not in left
    finally:
        hypervisor.close()
    assert one.reaches("10.1.1.2")


@contextmanager
def _flood(source: Guest, target: Guest) -> Iterator[None]:
    """More than ten times the limit, from one guest to another, at an address that is nobody's: nobody answers."""
    source.run(f"arp -s 10.1.1.200 {target.mac}")
    source.run("ping -q -s 16000 -i 0.01 10.1.1.200 >/dev/null 2>&1 & flood=$!")
    try:
        yield
    finally:
        source.run("kill $flood; wait $flood")
        source.run("arp -d 10.1.1.200")


def _limited(tap: str) -> float:
    """Bytes a second when as much comes as may. A busy machine gives less for a while; more there is at no time."""
    rate = 0.0
    for _ in range(10):
        rate = _rate(tap, MEASURED)
        if rate >= 0.85 * LIMIT * 1024:
            break
    return rate


def _rate(tap: str, seconds: float) -> float:
    """Bytes a second that go out of a port to its guest."""
    counter = Path(f"/sys/class/net/{tap}/statistics/tx_bytes")
    begin, sent = monotonic(), int(counter.read_text())
    Event().wait(seconds)
    return (int(counter.read_text()) - sent) / (monotonic() - begin)
