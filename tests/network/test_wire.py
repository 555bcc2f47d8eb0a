"""What is on the wire, frame by frame: tags of trunks and hybrid ports, closed ports, and nobody in a wrong VLAN.

Beside the guests a trunk port hears every frame of every VLAN, with its tag, for as long as there are tests: what is
done to guests in other files is heard, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.labfixture import InLab
from tests.network.conftest import GUESTS, Trio
from tests.network.guests import Guest, remove, start_all
from tests.network.sniffer import Sniffer, heard_again, until
from vmhost.drivers.command import run
from vmhost.drivers.netlink import Netlink
from vmhost.model.vlans import NO_VLAN, port_vlans

pytestmark = [pytest.mark.uml, GUESTS, pytest.mark.timeout(480)]

STRANGER = bytes.fromhex("ffffffffffff0200000000ee88b5") + bytes(46)
"""A broadcast of a machine that nobody knows (an experimental EtherType, IEEE 802)."""


@pytest.fixture(scope="module")
def trunk(lab: InLab, trio: Trio) -> Iterator[Guest]:
    """A guest on a trunk, which sends broadcasts all the time, from its first moment on, without a tag."""
    words = "ip4=10.1.1.4/24 vlan=300 tagged=10.3.0.4/24 chatter=10.1.1.255"
    guest = Guest(lab, "trunk", tagged="300-301", words=words)
    start_all(guest)
    yield guest
    remove(guest)


@pytest.fixture
def desk(bridge: str) -> Iterator[Sniffer]:
    """A machine of VLAN 300: the host itself, through an access port."""
    with Sniffer("desk", port_vlans(300)) as sniffer:
        run(["ip", "addr", "add", "10.3.0.9/24", "dev", sniffer.ear], timeout=20)
        yield sniffer


def _answers(address: str) -> bool:
    return run(["busybox", "ping", "-c", "3", "-i", "0.2", "-W", "4", address], timeout=30, check=False).code == 0


def test_the_ear_hears_every_vlan_with_its_tag(trio: Trio, ear: Sniffer) -> None:
    # Other tests put this guest into a wrong VLAN by hand; what it happened to send there does not count.
    now = len(ear.frames)
    trio.other.run("ping -c 3 -W 1 10.1.1.250")
    assert until(lambda: ear.vids(trio.other.mac, since=now) == {200})
    assert heard_again(ear, trio.two)
    assert ear.vids(trio.two.mac) == {100}


def test_a_trunk_guest_sees_tags(trunk: Guest, ear: Sniffer, desk: Sniffer) -> None:
    assert trunk.vlans == port_vlans(0, [300, 301])
    # Its eth0.300 takes frames with the tag 300 only, and the access port on the other side has none.
    assert _answers("10.3.0.4")
    assert trunk.reaches("10.3.0.9")
    assert ear.vids(trunk.mac) == {300}
    assert desk.vids(trunk.mac) == {0}
    # What it sends without a tag, all the time, arrives nowhere.
    assert not trunk.reaches("10.1.1.1")
    assert ear.vids(trunk.mac) == {300}


def test_a_hybrid_guest_is_in_one_vlan_untagged_and_sees_the_others_tagged(
    trunk: Guest, ear: Sniffer, desk: Sniffer
) -> None:
    Netlink().set_port_vlans(trunk.tap, port_vlans(100, [300]))
    try:
        assert trunk.reaches("10.1.1.1")
        assert _answers("10.3.0.4")
        assert ear.vids(trunk.mac) == {100, 300}
    finally:
        Netlink().set_port_vlans(trunk.tap, port_vlans(0, [300, 301]))
    assert not trunk.reaches("10.1.1.1")


def test_a_port_that_nobody_tagged_carries_nothing(trio: Trio, trunk: Guest, ear: Sniffer) -> None:
    with Sniffer("closed", NO_VLAN) as closed:
        closed.tell(STRANGER)
        assert heard_again(ear, trio.two, 20)
        assert ear.heard("02:00:00:00:00:ee") == []
        assert all(closed.heard(guest.mac) == [] for guest in (trio.one, trio.two, trio.other, trunk))
        # The very same port, tagged: now the same frame arrives, and it hears its VLAN.
        Netlink().set_port_vlans("closed", port_vlans(100))
        closed.tell(STRANGER)
        assert until(lambda: [frame.vid for frame in ear.heard("02:00:00:00:00:ee")] == [100])
        assert until(lambda: closed.heard(trio.two.mac) != [])


def test_a_revert_is_no_moment_in_a_wrong_vlan(lab: InLab, trio: Trio, ear: Sniffer) -> None:
    lab.virsh("snapshot-create-as", "two", "before", timeout=180)
    assert heard_again(ear, trio.two)
    trio.two.let_go()
    process = _process(trio.two)
    lab.virsh("snapshot-revert", "two", "before", "--running", "--force", timeout=180)
    assert _process(trio.two) != process  # a new QEMU, and a new tap
    assert trio.two.vlans == port_vlans(100)
    assert heard_again(ear, trio.two)
    assert ear.vids(trio.two.mac) == {100}


def _process(guest: Guest) -> str:
    return Path(f"/run/libvirt/qemu/{guest.name}.pid").read_text().strip()


def test_nobody_has_ever_been_in_a_wrong_vlan(trio: Trio, ear: Sniffer) -> None:
    assert ear.vids(trio.two.mac) == {100}
    assert ear.vids(trio.one.mac) <= {100}
