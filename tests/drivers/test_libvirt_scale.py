"""A thousand domains and a thousand volumes, read in bulk: in this process, through a daemon, and on QEMU's driver."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from tests.contract.backends import metadata_xml, volume_xml
from tests.labfixture import InLab
from vmhost.drivers.libvirt import LibvirtHypervisor, connect

pytestmark = pytest.mark.serial

COUNT = 1000
LIMIT = 3.0  # seconds for one read of everything; a quarter of a second on two quiet cores
DOMAIN = """\
<domain type='{kind}'>
  <name>scale-{number}</name>
  <uuid>{uuid}</uuid>
  <metadata>{metadata}</metadata>
  <memory unit='MiB'>64</memory>
  <vcpu>2</vcpu>
  <os><type>hvm</type></os>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/><source file='/nonexistent/{number}.qcow2'/><target dev='vda' bus='virtio'/>
    </disk>
    <interface type='bridge'><source bridge='br0'/><model type='virtio'/></interface>
    <console type='pty'/>
  </devices>
</domain>"""


def fill(hypervisor: LibvirtHypervisor, kind: str) -> list[str]:
    """Define the domains as fast as libvirt takes them: without validating each."""
    uuids = [str(UUID(int=(0xBEEF << 64) + number)) for number in range(COUNT)]
    handle = hypervisor._connection.handle
    for number, uuid in enumerate(uuids):
        handle.defineXML(DOMAIN.format(kind=kind, number=number, uuid=uuid, metadata=metadata_xml("scale")))
    return uuids


def read(hypervisor: LibvirtHypervisor, what: str) -> None:
    """Read everything three times; print and check the fastest."""
    domains = pools = 1e9
    for _ in range(3):
        began = time.perf_counter()
        found = hypervisor.domains()
        between = time.perf_counter()
        stored = hypervisor.pools()
        domains = min(domains, between - began)
        pools = min(pools, time.perf_counter() - between)
        assert len([raw for raw in found if raw.name.startswith("scale-")]) == COUNT
    volumes = sum(len(pool.volumes) for pool in stored)
    print(f"\n{what}: {COUNT} domains {domains * 1e3:.0f} ms, {volumes} volumes {pools * 1e3:.0f} ms")
    assert domains + pools < LIMIT


def test_in_this_process(tmp_path: Path) -> None:
    (tmp_path / "node.xml").write_text("<node><memory>8388608</memory></node>")
    with connect(f"test://{tmp_path}/node.xml") as hypervisor:
        fill(hypervisor, "test")
        hypervisor.create_pool("scale", str(tmp_path / "pool"))
        for number in range(COUNT):
            hypervisor.create_volume("scale", volume_xml(f"v{number}", 1 << 20))
        read(hypervisor, "test driver")


@pytest.fixture(params=["test+unix:///default?socket=/run/libvirt/libvirt-sock", "qemu:///system"])
def daemon(request: pytest.FixtureRequest, lab: InLab) -> Iterator[LibvirtHypervisor]:
    assert lab.name
    with connect(request.param) as hypervisor:
        uuids: list[str] = []
        try:
            uuids = fill(hypervisor, "test" if request.param.startswith("test") else "qemu")
            yield hypervisor
        finally:
            for uuid in uuids:
                hypervisor.undefine(uuid)


@pytest.mark.lab
def test_through_a_daemon(daemon: LibvirtHypervisor, tmp_path: Path) -> None:
    what = daemon.host().uri.partition(":")[0]
    (tmp_path / "pool").mkdir()
    for number in range(COUNT):
        (tmp_path / "pool" / f"v{number}").write_bytes(b"")
    daemon.create_pool("scale", str(tmp_path / "pool"))
    try:
        read(daemon, what)
    finally:
        for volume in (tmp_path / "pool").iterdir():
            volume.unlink()
        daemon.pools()
        daemon.delete_pool("scale")
