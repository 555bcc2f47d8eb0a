"""``vmhost watch`` on a real kernel: what others change while guests run is put back, and it ends cleanly."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from time import monotonic

import pytest

from tests.labfixture import InLab
from tests.network.conftest import GUESTS, Trio
from tests.network.guests import BRIDGE
from tests.network.sniffer import Sniffer, heard_again, until
from tests.reliability.scene import Command, started
from vmhost.drivers.command import run
from vmhost.drivers.netlink import Netlink
from vmhost.model.vlans import NO_VLAN, port_vlans

pytestmark = [pytest.mark.uml, GUESTS, pytest.mark.timeout(300)]

SOON = 10.0
"""Seconds within which a change has to be put back; on a quiet machine it is a tenth of one."""

RESTING = 3.0
"""Seconds that whoever polls would not sleep through."""


@pytest.fixture
def watch(trio: Trio) -> Iterator[Command]:
    with started("watch") as command:
        command.until("watching")
        yield command


def _waits(pid: int) -> int:
    """How often the threads of a process have gone to sleep so far (proc(5)): whoever wakes up goes to sleep again."""
    told = [(task / "status").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    return sum(int(text.partition("\nvoluntary_ctxt_switches:")[2].split()[0]) for text in told)


def _comes_to_rest(pid: int) -> bool:
    """Whether it comes to pass that no thread wakes up for a while. Every five seconds libvirt asks for its daemon."""
    deadline = monotonic() + 120
    while monotonic() < deadline:
        before = _waits(pid)
        Event().wait(RESTING)
        if _waits(pid) == before:
            return True
    return False


def test_what_others_change_is_put_back_and_told(trio: Trio, ear: Sniffer, lab: InLab, watch: Command) -> None:
    two, other = trio.two, trio.other
    run(["bridge", "vlan", "add", "dev", two.tap, "vid", "200"], timeout=20)
    watch.until(f"two: put back: port {two.tap} PVID 100, tagged 200 -> PVID 100")
    assert two.vlans == port_vlans(100)

    began = monotonic()
    run(["bridge", "vlan", "del", "dev", two.tap, "vid", "100"], timeout=20)
    assert until(lambda: two.vlans == port_vlans(100), SOON), f"not within {monotonic() - began:.1f} s"
    watch.until(f"two: put back: port {two.tap} no VLAN -> PVID 100")
    assert heard_again(ear, two)

    # libvirtd may go and come; the watch goes on.
    lab.restart_libvirtd(kill=True)
    other.until_reconnected()
    Netlink().set_port_vlans(other.tap, NO_VLAN)
    assert until(lambda: other.vlans == port_vlans(200), 60)

    run(["ip", "link", "set", two.tap, "nomaster"], timeout=20)
    watch.until(f"two: port {two.tap} is on no bridge, should be on {BRIDGE}; it stays there")
    run(["ip", "link", "set", two.tap, "master", BRIDGE], timeout=20)
    watch.until(f"two: put back: port {two.tap} no VLAN -> PVID 100")
    assert ear.vids(two.mac) == {100}

    # Between changes it does nothing: no polling.
    assert _comes_to_rest(watch.process.pid)

    watch.send(signal.SIGTERM)
    assert watch.end() == 0
    assert "ended; " in watch.talk
    Netlink().set_port_vlans(other.tap, NO_VLAN)
    assert other.vlans == NO_VLAN
    Netlink().set_port_vlans(other.tap, port_vlans(200))


def test_ctrl_c_ends_it(trio: Trio, watch: Command) -> None:
    watch.send(signal.SIGINT)
    assert watch.end() == 0
    assert "ended; 0 ports put back" in watch.talk
