"""A guest that boots nothing and runs paused, for benchmarks of what becomes of its disk; QEMU's monitor writes it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import libvirt
import libvirt_qemu
from lxml import etree

from tests.reliability.image import tiny_image
from vmhost.drivers.libvirt.loop import loop
from vmhost.model.permit import Permit
from vmhost.ops.host import Host, connect
from vmhost.ops.sites import parse_site

MIB = 1 << 20
PIECE = 64 * MIB
"""How much one command of the monitor writes: it holds a buffer of that size."""

SITE = """
apiVersion: vmhost/v1
name: bench
guests:
  {name}:
    image: tiny
    memory: 64M
    disks: [{{size: {size}M}}]
    state: stopped
    ready: {{by: none}}
"""


@dataclass(frozen=True)
class Bench:
    """The host, a connection of the benchmark's own, and the guest, whose disk is ``disk``."""

    host: Host
    connection: libvirt.virConnect
    name: str
    disk: Path
    scratch: Path

    @property
    def domain(self) -> libvirt.virDomain:
        """The guest as libvirt knows it."""
        return self.connection.lookupByName(self.name)

    def write(self, pattern: int, offset: int, length: int) -> None:
        """Let the guest's disk hold bytes of one value, as if the guest had written them."""
        for start in range(offset, offset + length, PIECE):
            count = min(PIECE, offset + length - start)
            command = f'qemu-io -d ua-disk-root/virtio-backend "write -P {pattern} {start} {count}"'
            said = libvirt_qemu.qemuMonitorCommand(
                self.domain, command, libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP
            )
            if "rror" in said:
                raise RuntimeError(said)


@contextmanager
def paused(name: str, mebibytes: int) -> Iterator[Bench]:
    """Give a guest that runs no instruction, whose disk is full of data."""
    with TemporaryDirectory(prefix="vmhost-bench-", dir="/var/tmp") as scratch, connect() as host:
        loop.start()  # a connection gives events only if it is opened after that
        connection = libvirt.open(None)
        with tiny_image(Path(scratch), "tiny"):
            host.apply(host.plan(parse_site(SITE.format(name=name, size=mebibytes))))
            try:
                domain = connection.lookupByName(name)
                domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
                source = etree.fromstring(domain.XMLDesc(0)).find("devices/disk[@device='disk']/source")
                assert source is not None
                disk = Path(str(source.get("file")))
                bench = Bench(host, connection, name, disk, Path(scratch))
                bench.write(1, 0, mebibytes * MIB)
                yield bench
            finally:
                host.apply(host.plan_delete([name], Permit(power_off=True, disks=True)))
                for left in disk.parent.glob(f"{disk.name}*"):
                    left.unlink()
