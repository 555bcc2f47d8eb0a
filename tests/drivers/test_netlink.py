"""The netlink driver on a real kernel, as far as only a real one shows it; the rest is tests/contract/test_links.py."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import get_ident

import pytest
from pyroute2 import IPRoute

from tests.labfixture import InLab
from vmhost.drivers import netlink
from vmhost.drivers.command import run
from vmhost.drivers.netlink import Netlink, passing_name
from vmhost.model.errors import Absent, AlreadyThere, DriverError, PermissionDenied
from vmhost.model.observed import Neighbour, ObservedLink

pytestmark = pytest.mark.lab

ALIAS = "vmhost:shop"
TOP = Path(__file__).parents[2]

# Creates a bridge and is killed right before the n-th message to the kernel.
KILLED = """
import os, signal, sys
import pyroute2
from vmhost.drivers.netlink import Netlink

class Dying:
    left = int(sys.argv[2])

    def __init__(self):
        self.real = real()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.real.close()

    def __getattr__(self, name):
        call = getattr(self.real, name)
        if name not in ("link", "addr"):
            return call

        def say(command, **words):
            if command != "get":
                if Dying.left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                Dying.left -= 1
            return call(command, **words)

        return say

real, pyroute2.IPRoute = pyroute2.IPRoute, Dying
Netlink().create_bridge(sys.argv[1], alias="vmhost:shop", mtu=1400, address="10.9.0.1/24")
"""


@pytest.fixture
def socket(lab: InLab) -> Iterator[IPRoute]:
    """Netlink for the test itself; links that the test has made are removed afterwards."""
    with IPRoute() as opened:
        before = {link["index"] for link in opened.get_links()}
        yield opened
        for link in opened.get_links():
            if link["index"] not in before and opened.link_lookup(index=link["index"]):
                opened.link("del", index=link["index"])


def find(name: str) -> ObservedLink | None:
    return next((link for link in Netlink().links() if link.name == name), None)


def index_of(socket: IPRoute, name: str) -> int:
    return int(socket.link_lookup(ifname=name)[0])


def test_the_address_of_a_bridge_stays_when_guests_come(socket: IPRoute) -> None:
    Netlink().create_bridge("br-mac", alias=ALIAS, mtu=1500, address="")
    bridge = find("br-mac")
    assert bridge is not None
    socket.link("add", ifname="low0", kind="veth", peer="low1")
    socket.link("set", index=index_of(socket, "low0"), address="02:00:00:00:00:01", master=bridge.index, state="up")
    after = find("br-mac")
    assert after is not None
    assert after.mac == bridge.mac


@pytest.mark.parametrize(
    ("address", "setting", "value"),
    [("", "disable_ipv6", "1"), ("10.9.0.1/24", "disable_ipv6", "1"), ("fd00:9::1/64", "accept_ra", "0")],
)
@pytest.mark.usefixtures("socket")
def test_guests_cannot_configure_the_host(address: str, setting: str, value: str) -> None:
    Netlink().create_bridge("br-ra", alias=ALIAS, mtu=1500, address=address)
    assert Path(f"/proc/sys/net/ipv6/conf/br-ra/{setting}").read_text().strip() == value


@pytest.mark.usefixtures("socket")
@pytest.mark.parametrize("messages", range(6))
def test_a_bridge_that_has_its_name_is_complete_whenever_we_are_killed(messages: int) -> None:
    done = run([sys.executable, "-c", KILLED, "br-kill", str(messages)], timeout=20, check=False, cwd=TOP)
    assert done.code == (-signal.SIGKILL if messages < 5 else 0)
    found = find("br-kill")
    assert found is None or (found.alias, found.mtu, found.addresses) == (ALIAS, 1400, ("10.9.0.1/24",))
    left = find(passing_name("br-kill"))
    assert (found is None and left is None) == (messages == 0)
    # Whatever is done next, nothing of the first attempt stays.
    if found is None and messages % 2:
        Netlink().create_bridge("br-kill", alias=ALIAS, mtu=1500, address="")
    elif found is None:
        with pytest.raises(Absent):
            Netlink().delete_bridge("br-kill", alias=ALIAS)
    assert find(passing_name("br-kill")) is None


def test_what_only_looks_abandoned_stays(socket: IPRoute) -> None:
    passing = passing_name("br-foreign")
    socket.link("add", ifname=passing, kind="veth", peer="br-peer")
    with pytest.raises(Absent):
        Netlink().delete_bridge("br-foreign", alias=ALIAS)
    assert find(passing) is not None


@pytest.mark.usefixtures("socket")
@pytest.mark.parametrize(("mtu", "address"), [(10, ""), (1500, "10.9.0.1/99"), (1500, "nonsense")])
def test_a_failure_leaves_no_link(mtu: int, address: str) -> None:
    before = Netlink().links()
    with pytest.raises((DriverError, ValueError)):
        Netlink().create_bridge("br-bad", alias=ALIAS, mtu=mtu, address=address)
    assert Netlink().links() == before


def test_neighbours_that_answered_once(socket: IPRoute) -> None:
    Netlink().create_bridge("br-arp", alias=ALIAS, mtu=1500, address="10.9.0.1/24")
    index = index_of(socket, "br-arp")
    for number, state in enumerate(("reachable", "stale", "permanent", "failed", "incomplete", "noarp"), 2):
        known = {} if state in ("failed", "incomplete") else {"lladdr": f"52:54:00:00:00:0{number}"}
        socket.neigh("add", dst=f"10.9.0.{number}", ifindex=index, state=state, **known)
    found = {neighbour for neighbour in Netlink().neighbours() if neighbour.link == "br-arp"}
    assert found == {Neighbour(f"10.9.0.{n}", f"52:54:00:00:00:0{n}", "br-arp") for n in (2, 3, 4)}


@pytest.mark.usefixtures("socket")
def test_it_works_inside_a_running_event_loop() -> None:
    async def inside() -> list[str]:
        Netlink().create_bridge("br-loop", alias=ALIAS, mtu=1500, address="")
        with pytest.raises(AlreadyThere):
            Netlink().create_bridge("br-loop", alias=ALIAS, mtu=1500, address="")
        return [link.name for link in Netlink().links()]

    assert "br-loop" in asyncio.run(inside())


@pytest.mark.usefixtures("lab")
def test_another_thread_is_used_only_when_needed() -> None:
    async def inside() -> int:
        return Netlink()._call(lambda _: get_ident(), "")

    assert Netlink()._call(lambda _: get_ident(), "") == get_ident()
    assert asyncio.run(inside()) != get_ident()


def test_an_ordinary_user_may_look_and_is_told_what_changing_takes(lab: InLab) -> None:
    assert lab.name
    script = (
        "from vmhost.drivers.netlink import Netlink\n"
        "from vmhost.model.errors import PermissionDenied\n"
        "assert Netlink().links()\n"
        "try: Netlink().create_bridge('br-user', alias='vmhost:shop', mtu=1500, address='')\n"
        "except PermissionDenied as error: print(error.subject, error.hint)\n"
    )
    words = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-c", script]
    assert run(words, timeout=20, cwd=TOP).text.startswith("br-user sudo ")


@pytest.mark.parametrize(
    ("code", "kind", "retryable"),
    [
        (errno.EPERM, PermissionDenied, False),
        (errno.EEXIST, AlreadyThere, False),
        (errno.ENODEV, Absent, False),
        (errno.EBUSY, DriverError, True),
        (errno.EINVAL, DriverError, False),
    ],
)
def test_errors_by_kind(code: int, kind: type, retryable: bool) -> None:
    found = netlink._translate(code, os.strerror(code), "br0")
    assert type(found) is kind
    assert (found.subject, found.retryable, bool(found.hint)) == ("br0", retryable, True)


def test_the_library_is_loaded_by_the_first_call_only() -> None:
    script = "import sys, vmhost.drivers.netlink as n; n.Netlink(); print('pyroute2' in sys.modules)"
    assert run([sys.executable, "-c", script], timeout=20, cwd=TOP).text == "False\n"
