"""The hypervisors that one suite of tests runs over, and what each of them cannot do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from uuid import uuid4

import pytest

from vmhost.drivers.diskfiles import LocalDiskFiles
from vmhost.drivers.libvirt import LibvirtHypervisor, connect
from vmhost.model.errors import Absent, DriverError
from vmhost.model.observed import RawDomain
from vmhost.ports import DiskFiles, Hypervisor, Kernel, Links

CANNOT = {
    "fake": frozenset[str](),
    # Calls that libvirt's test driver (9.0) does not have; each is asserted to raise a DriverError and change nothing.
    "test": frozenset(
        {"upload_volume", "resize_volume", "resize_disk", "agent", "plug_nic", "limit", "snapshot_disks", "commit_disk"}
        | {"limit disks", "plug_memory"}
    ),
    "libvirt": frozenset[str](),
}
LACKS = {
    # Behind calls that it has, the test driver makes no files, asks no guest and reports no guests' capabilities.
    "fake": frozenset({"files"}),
    "test": frozenset({"domain capabilities", "files", "guests that decide", "counters", "locks on images"}),
    "libvirt": frozenset[str](),
}


@dataclass
class Backend:
    """One hypervisor under test.

    ``outside`` defines a domain or pool as another tool would; ``save`` saves a running domain's memory as another tool
    would.
    """

    name: str
    hypervisor: Hypervisor
    domain_type: str
    directory: Path
    save: Callable[[str], None]
    uuids: list[str] = field(default_factory=list)
    pools: list[str] = field(default_factory=list)
    kernel: Kernel | None = None
    files: DiskFiles | None = None

    def lacks(self, what: str) -> bool:
        return what in LACKS[self.name]

    @contextmanager
    def can(self, call: str) -> Iterator[bool]:
        """Run the block; where the backend has no such call, it must raise a ``DriverError``."""
        if call not in CANNOT[self.name]:
            yield True
            return
        with pytest.raises(DriverError):
            yield False

    def new_uuid(self) -> str:
        uuid = str(uuid4())
        self.uuids.append(uuid)
        return uuid

    def domain_xml(self, name: str, uuid: str, *, devices: str = "", metadata: str = "", memory: int = 32) -> str:
        """A guest without disks, unless ``devices`` has some; memory in MiB."""
        return f"""\
<domain type='{self.domain_type}'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <metadata>{metadata}</metadata>
  <memory unit='MiB'>{memory}</memory>
  <vcpu>1</vcpu>
  <os><type>hvm</type></os>
  <features><acpi/></features>
  <devices>{devices}</devices>
</domain>"""

    def defined(self, prefix: str = "guest", **parts: str) -> RawDomain:
        """Define a new guest of a name of its own and return it."""
        uuid = self.new_uuid()
        self.hypervisor.define(self.domain_xml(f"{prefix}-{uuid[:8]}", uuid, **parts))
        return self.hypervisor.domain(uuid)

    def pool(self) -> str:
        """Create a new pool and return its name."""
        name = f"pool-{uuid4().hex[:8]}"
        self.pools.append(name)
        self.hypervisor.create_pool(name, str(self.directory / name))
        return name

    def volumes(self, pool: str) -> dict[str, str]:
        """The XML of a pool's volumes by name."""
        from xml.etree.ElementTree import fromstring

        found = next(raw for raw in self.hypervisor.pools() if raw.name == pool)
        return {str(fromstring(xml).findtext("name")): xml for xml in found.volumes}

    def clean(self) -> None:
        """Take away everything that a test has made."""
        for uuid in self.uuids:
            for remove in (self.hypervisor.power_off, self.hypervisor.undefine):
                try:
                    remove(uuid)
                except Absent:
                    continue
        left = {raw.name for raw in self.hypervisor.pools()} if self.pools else set()
        for pool in self.pools:
            if pool in left:
                for volume in self.volumes(pool):
                    self.hypervisor.delete_volume(pool, volume)
                self.hypervisor.delete_pool(pool)


def volume_xml(name: str, capacity: int, *, format: str = "qcow2", backing: str = "") -> str:  # noqa: A002
    """A volume; ``backing`` is the path of a qcow2 image below it."""
    below = f"<backingStore><path>{backing}</path><format type='qcow2'/></backingStore>" if backing else ""
    return f"""\
<volume>
  <name>{name}</name>
  <capacity unit='bytes'>{capacity}</capacity>
  <target><format type='{format}'/></target>
  {below}
</volume>"""


def metadata_xml(site: str, *, prefix: bool = True) -> str:
    """Our metadata element, with its namespace as a prefix or as the default."""
    uri = "https://vmhost.dev/xmlns/guest"
    if prefix:
        return f'<vmhost:guest xmlns:vmhost="{uri}" version="1"><vmhost:site>{site}</vmhost:site></vmhost:guest>'
    return f'<guest xmlns="{uri}" version="1"><site>{site}</site></guest>'


def eventually(condition: Callable[[], object], seconds: float = 30.0) -> bool:
    """Whether a condition becomes true in time; for what other threads and processes do."""
    from threading import Event

    deadline = monotonic() + seconds
    while not condition():
        if monotonic() > deadline:
            return False
        Event().wait(0.01)
    return True


def test_driver(tmp_path: Path) -> Backend:
    """libvirt's test driver on a node of its own: empty, and shared with nobody."""
    node = tmp_path / "node.xml"
    node.write_text("<node><memory>8388608</memory></node>")
    hypervisor = connect(f"test://{node}")
    return Backend("test", hypervisor, "test", tmp_path, save=lambda uuid: _save(hypervisor, uuid))


def real_libvirt(directory: Path) -> Backend:
    """The libvirtd of the lab that we are in."""
    hypervisor = connect("qemu:///system")
    files = LocalDiskFiles(lambda: True)
    return Backend("libvirt", hypervisor, "qemu", directory, save=lambda uuid: _save(hypervisor, uuid), files=files)


def _save(hypervisor: LibvirtHypervisor, uuid: str) -> None:
    hypervisor._connection.handle.lookupByUUIDString(uuid).managedSave(0)


__all__ = ["Backend", "Links", "eventually", "metadata_xml", "real_libvirt", "test_driver", "volume_xml"]
