"""A site with VLANs, from its file to tagged ports and back to nothing, on real libvirt and a real kernel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.labfixture import InLab
from tests.reliability.image import tiny_image
from tests.reliability.scene import ALL, site_file
from vmhost.drivers.hook import LibvirtHook
from vmhost.drivers.netlink import Netlink
from vmhost.model.vlans import PortVlans, port_vlans
from vmhost.ops.host import Host, connect
from vmhost.ops.sites import load_site

pytestmark = pytest.mark.uml

BRIDGES = "{br-site: {mode: vlan-aware}}"
NETWORKS = """
  prod: {bridge: br-site, vlan: %d, subnet: 10.20.0.0/24, reach: agent}
  test: {bridge: br-site, vlan: 200, subnet: 10.20.0.0/24, reach: agent}"""
NICS = "[{network: prod}, {network: test, tagged: 300-310}]"


@pytest.fixture
def host(lab: InLab) -> Iterator[Host]:
    images = Path("/run/vmhost-images")
    images.mkdir(exist_ok=True)
    with tiny_image(images, "tiny"), connect() as opened:
        yield opened
        names = [row.name for row in opened.guests() if row.site != "tests"]  # others' tests need theirs
        if names:
            opened.apply(opened.plan_delete(names, ALL))


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

    host.apply(host.plan_delete(["web"], ALL))
    assert not LibvirtHook().state().installed
    assert "br-site" not in {link.name for link in Netlink().links()}
