"""From the site to the wire on a real kernel: what somebody changed by hand is found by verify and by doctor."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.labfixture import InLab
from tests.network.test_apply import BRIDGES, NETWORKS, NICS
from tests.reliability.scene import site_file, vmhost
from vmhost.drivers.command import run
from vmhost.ops.host import Host
from vmhost.ops.sites import load_site

pytestmark = [pytest.mark.uml, pytest.mark.timeout(240)]


@contextmanager
def changed(*commands: str) -> Iterator[None]:
    """Change the network by hand; every other command takes it back."""
    for command in commands[::2]:
        run(command.split(), timeout=20)
    try:
        yield
    finally:
        for command in reversed(commands[1::2]):
            run(command.split(), timeout=20)


def test_what_was_changed_by_hand_is_named(host: Host, lab: InLab, tmp_path: Path) -> None:
    file = site_file(tmp_path, "vlans", "web", bridges=BRIDGES, networks=NETWORKS % 100, nics=NICS)
    site = load_site(file)
    host.apply(host.plan(site))
    tap = next(link.name for link in host.observe().links if link.master == "br-site" and link.name.endswith("-0"))

    def told() -> list[str]:
        return [str(item) for item in host.verify_network(site)]

    def findings() -> dict[str, str]:
        found = [item for item in host.doctor(only="network") if item.severity in ("warning", "error")]
        # The port that hears every VLAN for other tests carries those, too, that a site before us could choose from.
        return {item.id: item.mend for item in found if item.id != "vlan-foreign" or "ear" not in item.title}

    assert told() == []
    assert findings() == {}

    with changed(f"bridge vlan add dev {tap} vid 200", f"bridge vlan del dev {tap} vid 200"):
        assert told() == ["kernel: web: nics.prod.port.vlans is PVID 100, tagged 200, should be PVID 100"]
        assert set(findings()) == {"port-vlans"}
        done = vmhost("net", "verify", str(file), "-o", "json")
        assert (done.code, [item["place"] for item in json.loads(done.text)["data"]]) == (7, ["kernel"])

    with changed(f"ip link set {tap} nomaster", f"ip link set {tap} master br-site"):
        assert told() == ["kernel: web: nics.prod.port.bridge is nothing, should be br-site"]
        assert set(findings()) == {"port-moved"}
    assert told() == ["kernel: web: nics.prod.port.vlans is no VLAN, should be PVID 100"]
    host.apply(host.plan(site))
    assert told() == []

    with changed("ip link add bond-up type bond", "ip link del bond-up"):
        run(["ip", "link", "set", "bond-up", "master", "br-site"], timeout=20)
        assert told()[0] == "uplink: bond-up: vlans is no VLAN, should be 100,200,300-310"
        assert findings()["uplink-down"] == "ip link set bond-up up"
        mend = host.verify_network(site)[0].mend
        for command in mend.split("; "):
            run(command.split(), timeout=20)
        assert told() == ["uplink: bond-up: state is down, should be up"]
    assert told() == []

    with changed("ip link add vh-a type veth peer name vh-b", "ip link del vh-a"):
        for name in ("vh-a", "vh-b"):
            run(["ip", "link", "set", name, "master", "br-site", "mtu", "1400", "up"], timeout=20)
        found = findings()
        assert (found["loop"], found["mtu"]) == ("ip link set vh-b nomaster", "ip link set vh-a mtu 1500")

    with changed("ip tuntap add tap-x mode tap", "ip link del tap-x"):
        run(["ip", "link", "set", "tap-x", "master", "br-site"], timeout=20)
        assert findings() == {"foreign-tap": "ip link set tap-x nomaster"}

    setting = "ip link set br-site type bridge nf_call_iptables"
    with changed(f"{setting} 1", f"{setting} 0"):
        if (found := findings()) or Path("/sys/class/net/br-site/bridge/nf_call_iptables").exists():
            assert found == {"bridge-nf-call": f"{setting} 0"}
    assert told() == []


def test_this_kernel_can_do_all_that_vlans_take(lab: InLab) -> None:
    from vmhost.drivers.netlink import Netlink

    kernel = Netlink().kernel()
    assert (kernel.vlan_filtering, kernel.vlan_links) == (True, True)
