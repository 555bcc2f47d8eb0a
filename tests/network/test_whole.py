"""A whole Debian guest in a VLAN where the host has no address: it is awaited, and used, through an access port."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.labfixture import InLab
from tests.reliability.scene import told, vmhost
from vmhost.drivers.netlink import Netlink
from vmhost.model.vlans import port_vlans

pytestmark = [pytest.mark.uml, pytest.mark.full, pytest.mark.timeout(1800)]

SITE = """
apiVersion: vmhost/v1
name: whole
bridges: {br-whole: {mode: vlan-aware}}
networks:
  prod: {bridge: br-whole, vlan: 100, subnet: 10.40.0.0/24, reach: port, reach_address: 10.40.0.250}
guests:
  whole-01:
    image: debian-12
    memory: 512M
    disks: [{size: 4G}]
    nics: [{network: prod, address: 10.40.0.11, spoofing: refused}]
    ready: {by: ssh, timeout: 25m}
"""


@pytest.fixture
def file(lab: InLab, tmp_path: Path) -> Iterator[str]:
    path = tmp_path / "whole.yaml"
    path.write_text(SITE)
    yield str(path)
    vmhost("guest", "delete", "whole-01", "--power-off", "--disks", "--yes", timeout=180)


def test_it_is_awaited_and_used_through_the_access_port(file: str) -> None:
    done = vmhost("apply", file, "--yes", timeout=1700)
    assert done.code == 0, told(done)
    assert "whole-01: SSH answers" in told(done)
    assert "whole-01: cloud-init: done" in told(done)
    links = Netlink().links()
    assert [link.vlans for link in links if link.name.startswith("vh") and link.kind == "tun"] == [port_vlans(100)]
    assert not [address for link in links for address in link.addresses if address.startswith("10.40.")]
    done = vmhost("guest", "exec", "whole-01", "--", "sh", "-c", "echo $SSH_CONNECTION", timeout=120)
    assert done.code == 0, told(done)
    assert "10.40.0.250" in done.text
    assert "10.40.0.11" in done.text
    assert vmhost("drift", file).code == 0
    rows = json.loads(vmhost("guest", "list", "-o", "json").text)["data"]
    assert [row["state"] for row in rows if row["name"] == "whole-01"] == ["running"]
