"""Uplinks, the host's own place in VLANs, and changes that are taken back, on a real kernel."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import one_of
from tests.labfixture import InLab
from tests.network.wire import SITE, UPLINK, dump, ip, reaches, site_file, until, wire
from vmhost.drivers.command import run
from vmhost.drivers.netlink import Netlink
from vmhost.model.observed import ObservedLink
from vmhost.model.vlans import parse_vids, port_vlans
from vmhost.ops.host import Host, connect
from vmhost.ops.sites import load_site, parse_site

pytestmark = [pytest.mark.uml, pytest.mark.timeout(240)]

EMPTY = "apiVersion: vmhost/v1\nname: wired\n"
KEPT = Path("/var/lib/vmhost/state/network.json")

KILLED = """
import os, signal, sys
from vmhost.ops.host import Host
from vmhost.ops.sites import load_site
from vmhost.testing import FaultPlan, FaultyPorts
place, number = sys.argv[2], int(sys.argv[3])
def only(port, method):
    return method in ("carry_out", "await_confirmation")
plan = FaultPlan(number, place, kill=lambda: os.kill(os.getpid(), signal.SIGKILL), only=only)
host = Host(ports=FaultyPorts(Host().ports, plan).ports)
host.apply(host.plan_network(load_site(sys.argv[1]), confirm=int(sys.argv[4])))
"""


@pytest.fixture
def host(lab: InLab) -> Iterator[Host]:
    with wire(), connect() as opened:
        yield opened
        opened.recover()
        if _open(opened):
            opened.apply(opened.plan_confirmation())
        opened.apply(opened.plan_network(parse_site(EMPTY), confirm=600, prune=_left(opened)))
        if _open(opened):
            opened.apply(opened.plan_confirmation())


def _left(host: Host) -> list[str]:
    return [bridge.name for bridge in host.network() if bridge.site == "wired"]


def _open(host: Host) -> bool:
    change = host.network_change()
    return change is not None and change.open


def _link(name: str) -> ObservedLink:
    return next(link for link in Netlink().links() if link.name == name)


def test_an_uplink_with_the_hosts_address_becomes_a_port(host: Host, tmp_path: Path) -> None:
    foreign = _foreign()
    site = load_site(site_file(tmp_path))
    host.apply(host.plan_network(site, confirm=600))

    assert _link(UPLINK).master == "br-up"
    assert _link(UPLINK).vlans == port_vlans(10, [100, 200])
    bridge = _link("br-up")
    assert (bridge.vlans, bridge.mtu, bridge.ipv6) == (port_vlans(0, [10, 100]), 1400, False)
    assert (_link("br-up.10").addresses, _link("br-up.100").addresses) == (("192.0.2.5/24",), ("10.20.0.1/24",))
    assert "default via 192.0.2.1 dev br-up.10" in ip("route")
    until(lambda: reaches("192.0.2.1"))
    until(lambda: reaches("10.20.0.9"))
    assert _foreign() == foreign

    assert _open(host)
    with pytest.raises(Exception, match="waits for its confirmation"):
        host.plan_network(site)
    host.apply(host.plan_confirmation())
    assert host.network_change() is None
    assert host.plan_network(site).empty
    assert host.drift(site) == ()
    assert KEPT.exists()
    ports = {port.name: (port.role, port.pvid) for bridge in host.network() for port in bridge.ports}
    assert ports[UPLINK] == ("uplink", 10)

    _prune_of_one_network(host, tmp_path)
    _made_anew_at_boot()


def _prune_of_one_network(host: Host, directory: Path) -> None:
    """What a network needed goes with it; the rest stays."""
    text = "".join(line for line in SITE.splitlines(keepends=True) if not line.startswith(("  prod:", "  spare:")))
    site = load_site(site_file(directory, text.replace("mtu: 1400", "mtu: 1500, ipv6: true")))
    assert {item.field for item in host.drift(site)} == {"mtu", "uplink.vlans", "vlans", "address", "routes"}
    host.apply(host.plan_network(site, confirm=600))
    host.apply(host.plan_confirmation())
    assert _link(UPLINK).vlans == port_vlans(10)
    assert (_link("br-up").vlans, _link("br-up").mtu, _link("br-up").ipv6) == (port_vlans(0, [10]), 1500, True)
    assert "br-up.100" not in {link.name for link in Netlink().links()}
    assert host.plan_network(site).empty


def _made_anew_at_boot() -> None:
    """What the unit starts makes the network out of nothing; a second time it changes nothing."""
    from vmhost.drivers.netkeeper import helper

    before = _made()
    ip("link", "delete", "br-up")
    assert _made() != before
    run(helper("boot", str(KEPT)), timeout=60)
    assert _made() == before
    run(helper("boot", str(KEPT)), timeout=60)
    assert _made() == before


def _made() -> Any:
    """What is there of the network, without what every bridge draws anew: its MAC, and what follows from it."""
    links = [
        (link.name, link.master, link.alias, link.mtu, link.up, link.vlans, link.ipv6, link.parent, link.vid)
        for link in Netlink().links()
    ]
    held = [(link.name, one.address) for link in Netlink().links() for one in link.held if one.lasting]
    return sorted(links, key=str), sorted(held), Netlink().routes()


def _until_as(before: Any) -> None:
    """The kernel tells its last changes a moment later: carrier, duplicate address detection."""
    with suppress(AssertionError):
        until(lambda: dump() == before, 10)
    assert dump() == before


def _foreign() -> list[Any]:
    return [
        [entry for entry in entries if entry.get("ifname") in ("dum0", "foreign0", "lo")] for entries in dump().values()
    ]


def test_a_change_that_nobody_confirms_is_taken_back(host: Host, tmp_path: Path) -> None:
    before = dump()
    path = site_file(tmp_path)
    done = run(
        [str(Path(sys.executable).with_name("vmhost")), "net", "apply", str(path), "--confirm", "5", "--yes"],
        timeout=90,
    )
    assert _link(UPLINK).master == "br-up"  # one look: five seconds are few for a whole dump on a busy machine
    assert b"vmhost net confirm" in done.stderr
    until(lambda: not _open(host))
    _until_as(before)
    change = host.network_change()
    assert change is not None
    assert (change.state, change.failures) == ("restored", ())
    with pytest.raises(Exception, match="too late"):
        host.plan_confirmation()


@pytest.mark.parametrize(("place", "number"), one_of("uplinks", ("after", 0), ("before", 8), ("after", 9)))
def test_kill_9_leaves_the_former_network(host: Host, tmp_path: Path, place: str, number: int) -> None:
    before = dump()
    words = [sys.executable, "-c", KILLED, str(site_file(tmp_path)), place, str(number), "5"]
    assert run(words, timeout=120, check=False).code == -9
    until(lambda: not _open(host))
    _until_as(before)
    host.recover()
    _until_as(before)
    assert not host.interrupted()


def test_a_bond_and_a_trunk(host: Host, tmp_path: Path) -> None:
    ip("link", "add", "bond7", "type", "bond", "mode", "active-backup")
    ip("link", "add", "dum7", "type", "dummy")
    ip("link", "set", "dum7", "master", "bond7")
    try:
        text = SITE.replace("up0", "dum7")
        with pytest.raises(Exception, match="name bond7 instead"):
            host.plan_network(load_site(site_file(tmp_path, text)))
        plain = SITE[: SITE.index("networks:")].replace("up0", "bond7").replace("native: 10, ", "")
        networks = "".join(f"  n{vid}: {{bridge: br-up, vlan: {vid}, reach: agent}}\n" for vid in (5, 6, 7, 4094))
        host.apply(host.plan_network(load_site(site_file(tmp_path, f"{plain}networks:\n{networks}")), confirm=600))
        host.apply(host.plan_confirmation())
        assert _link("bond7").vlans == port_vlans(0, parse_vids("5-7,4094"))
        assert _link("bond7").up
        assert _link("dum7").master == "bond7"
    finally:
        host.apply(host.plan_network(parse_site(EMPTY), confirm=600, prune=["br-up"]))
        host.apply(host.plan_confirmation())
        ip("link", "delete", "bond7")
        ip("link", "delete", "dum7")
    assert not host.ports.keeper.state().kept
