"""A site with VLANs, from its file to tagged ports and back to nothing, on real libvirt and a real kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.labfixture import InLab
from tests.reliability.scene import ALL, site_file
from vmhost.drivers.command import run
from vmhost.drivers.hook import LibvirtHook
from vmhost.drivers.netlink import Netlink
from vmhost.model.spec import Site
from vmhost.model.vlans import PortVlans, port_vlans
from vmhost.ops.host import Host
from vmhost.ops.sites import load_site

pytestmark = pytest.mark.uml

BRIDGES = "{br-site: {mode: vlan-aware}}"
NETWORKS = """
  prod: {bridge: br-site, vlan: %d, subnet: 10.20.0.0/24, reach: agent}
  test: {bridge: br-site, vlan: 200, subnet: 10.20.0.0/24, reach: agent}"""
NICS = "[{network: prod}, {network: test, tagged: 300-310}]"


GUARDED = """
  prod: {bridge: br-site, vlan: auto, range: 400-499, subnet: 10.20.0.0/24, reach: agent, isolated: %s, spoofing: %s}
  test: {bridge: br-site, vlan: 200, reach: agent, bandwidth: {inbound: %s, outbound: 8Mbit}}"""


def test_isolation_guards_and_limits_come_change_and_go(host: Host, lab: InLab, tmp_path: Path) -> None:
    def site(*words: str) -> Site:
        nics = "[{network: prod, address: 10.20.0.9}, {network: test, spoofing: refused}]"
        return load_site(site_file(tmp_path, "guards", "web", bridges=BRIDGES, networks=GUARDED % words, nics=nics))

    def seen() -> tuple[list[str], list[str], list[tuple[int, int]]]:
        observed = host.observe()
        facts = observed.domains[0].facts
        isolated = [link.name[-2:] for link in observed.links if link.isolated]
        return isolated, [one.port[-2:] for one in observed.guards], [(nic.inbound, nic.outbound) for nic in facts.nics]

    first = site("true", "refused", "16Mbit")
    host.apply(host.plan(first))
    assert seen() == (["-0"], ["-0", "-1"], [(0, 0), (1954, 977)])
    assert (host.plan(first).empty, host.drift(first)) == (True, ())
    assert [row.vid for row in host.vlans.list()] == [200, 400]

    second = site("false", "allowed", "4Mbit")
    host.apply(host.plan(second))
    assert seen() == ([], ["-1"], [(0, 0), (489, 977)])
    assert "inbound.average: 489" in lab.virsh("domiftune", "web", host.observe().domains[0].facts.nics[1].tap).text
    host.apply(host.plan(first))
    lab.virsh("destroy", "web")
    assert host.observe().guards == ()
    lab.virsh("start", "web", timeout=90)
    assert seen() == (["-0"], ["-0", "-1"], [(0, 0), (1954, 977)])

    # What somebody else does is seen and put right.
    tap = host.observe().domains[0].facts.nics[0].tap
    run(["nft", "flush", "chain", "bridge", "vmhost", tap], timeout=20)
    run(["ip", "link", "set", tap, "type", "bridge_slave", "isolated", "off"], timeout=20)
    lab.virsh("domiftune", "web", f"{tap[:-1]}1", "--inbound", "5", "--config")
    fields = [difference.field for difference in host.drift(first)]
    assert fields == ["nics.prod.port.isolated", "nics.prod.port.guard", "nics.test.bandwidth.inbound"]
    host.apply(host.plan(first))
    assert (seen(), host.drift(first)) == ((["-0"], ["-0", "-1"], [(0, 0), (1954, 977)]), ())

    host.apply(host.plan_delete(["web"], ALL))
    assert host.observe().guards == ()
    assert "vmhost" not in run(["nft", "list", "tables"], timeout=20).text
    assert [row.state for row in host.vlans.list()] == ["resting"]


def _ports() -> dict[str, PortVlans]:
    return {link.name[-2:]: link.vlans for link in Netlink().links() if link.master == "br-site"}


def test_a_site_with_vlans_comes_changes_and_goes(host: Host, lab: InLab, tmp_path: Path) -> None:
    site = load_site(site_file(tmp_path, "vlans", "web", bridges=BRIDGES, networks=NETWORKS % 100, nics=NICS))
    host.apply(host.plan(site))
    assert _ports() == {"-0": port_vlans(100), "-1": port_vlans(200, range(300, 311))}
    assert host.plan(site).empty
    assert host.drift(site) == ()
    findings = {finding.id: finding.severity for finding in host.doctor(only="network")}
    assert (findings["hook"], findings["port-vlans"]) == ("ok", "ok")

    moved = load_site(site_file(tmp_path, "vlans", "web", bridges=BRIDGES, networks=NETWORKS % 101, nics=NICS))
    host.apply(host.plan(moved))
    assert _ports()["-0"] == port_vlans(101)
    lab.virsh("destroy", "web")
    lab.virsh("start", "web", timeout=90)
    assert _ports() == {"-0": port_vlans(101), "-1": port_vlans(200, range(300, 311))}
    assert host.drift(moved) == ()

    host.apply(host.nics.plan_attach(moved, "web", network="test", id="more", address="none"))
    assert _ports() == {"-0": port_vlans(101), "-1": port_vlans(200, range(300, 311)), "-2": port_vlans(200)}
    host.apply(host.plan_delete(["web"], ALL))
    assert not LibvirtHook().state().installed
    assert "br-site" not in {link.name for link in Netlink().links()}
