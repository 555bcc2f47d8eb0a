"""Small guests on a VLAN-aware bridge, and what they say when they are asked."""

from __future__ import annotations

import os
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from uuid import uuid4

import pytest

from tests.labfixture import InLab
from tests.plugins.inlab import SMALL_GUEST
from vmhost.drivers.command import run
from vmhost.drivers.netlink import Netlink
from vmhost.model.identity import GuestIdentity, GuestMetadata, NicIdentity, tap_name
from vmhost.model.vlans import PortVlans
from vmhost.render.metadata import metadata_xml

BRIDGE = "br-vlan"
READY = b"small guest: ready"
BOOT = 200.0
DISK = """\
<disk type='file'><driver name='qemu' type='qcow2'/><source file='{path}'/><target dev='vda' bus='virtio'/></disk>"""
DOMAIN = """\
<domain type='qemu'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <metadata>{metadata}</metadata>
  <memory unit='MiB'>96</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <kernel>{files}/kernel</kernel>
    <initrd>{files}/initrd</initrd>
    <cmdline>console=ttyS0 quiet mitigations=off nokaslr cryptomgr.notests {words}</cmdline>
  </os>
  <features><acpi/></features>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
    <serial type='unix'><source mode='bind' path='{console}'/></serial>
    {disk}
    <interface type='bridge'>
      <mac address='{mac}'/>
      <source bridge='{bridge}'/>
      <target dev='{tap}'/>
      <model type='virtio'/>
      <rom enabled='no'/>
    </interface>
  </devices>
</domain>
"""


@dataclass
class Guest:
    """A guest with one NIC. ``pvid`` and ``tagged`` are the VLANs of its port; ``ours`` False: a foreign guest.

    ``disk``: it has one, without which libvirt makes no snapshot.
    ``spoofing`` is ``refused`` for one whose port is guarded.
    """

    lab: InLab
    name: str
    pvid: int = 0
    tagged: str = ""
    words: str = ""
    ours: bool = True
    disk: bool = False
    address: str = ""
    isolated: bool = False
    spoofing: str = ""
    uuid: str = field(default_factory=lambda: str(uuid4()))
    _console: socket.socket | None = None

    @property
    def nic(self) -> NicIdentity:
        """What its metadata says of its NIC."""
        place = (self.tap, self.address, 0, self.pvid, self.tagged, BRIDGE)
        return NicIdentity("prod", "prod", self.mac, *place, isolated=self.isolated, spoofing=self.spoofing)

    @property
    def tap(self) -> str:
        return tap_name(self.uuid, 0)

    @property
    def mac(self) -> str:
        return f"52:54:00:{self.uuid[:2]}:{self.uuid[2:4]}:{self.uuid[4:6]}"

    @property
    def vlans(self) -> PortVlans:
        """The VLANs that its port has in the kernel."""
        return next(link.vlans for link in Netlink().links() if link.name == self.tap)

    @property
    def running(self) -> bool:
        return self.lab.virsh("domstate", self.name).text.strip() == "running"

    def define(self) -> None:
        identity = GuestIdentity(self.uuid, self.name, self.uuid, "", (self.nic,))
        metadata = metadata_xml(GuestMetadata(1, "tests", "root", "", identity, "{}"))
        xml = DOMAIN.format(
            name=self.name,
            uuid=self.uuid,
            metadata=metadata if self.ours else "",
            files=os.environ[SMALL_GUEST],
            words=self.words,
            console=self.console_path,
            bridge=BRIDGE,
            tap=self.tap,
            mac=self.mac,
            disk=self._make_disk() if self.disk else "",
        )
        path = Path(f"/run/{self.name}.xml")
        path.write_text(xml)
        self.lab.virsh("define", str(path))

    def _make_disk(self) -> str:
        path = Path(f"/run/{self.name}.qcow2")
        if not path.exists():
            run(["qemu-img", "create", "-q", "-f", "qcow2", str(path), "1M"], timeout=30)
        return DISK.format(path=path)

    @property
    def console_path(self) -> str:
        return f"/run/{self.name}.sock"

    def start(self) -> None:
        """Start it and wait until its shell is there."""
        self.begin()
        self.attend()

    def begin(self) -> None:
        """Start it; what it says while nobody is connected is lost."""
        self.lab.virsh("start", self.name, timeout=90)
        self.let_go()
        self._console = socket.socket(socket.AF_UNIX)
        self._console.connect(self.console_path)

    def attend(self) -> None:
        """Wait until its shell is there."""
        self._until(re.compile(re.escape(READY)), BOOT)

    def until_reconnected(self) -> None:
        """Wait until a libvirtd that was just started is done with this guest: one job at a time."""
        self.lab.virsh("qemu-monitor-command", self.name, "--hmp", "info status", timeout=90)

    def power_off(self) -> None:
        self.let_go()
        self.lab.virsh("destroy", self.name, timeout=90)

    def let_go(self) -> None:
        if self._console:
            self._console.close()
            self._console = None

    def run(self, command: str, timeout: float = 40.0) -> tuple[int, str]:
        """Run a command in it; its exit code and what it said."""
        assert self._console is not None
        mark = uuid4().hex
        # The two halves keep the echo of the command, if there is one, from being taken for the answer.
        self._console.sendall(f"{command} 2>&1; echo {mark[:16]}''{mark[16:]} $?\n".encode())
        found = self._until(re.compile(rb"(.*)%s ([0-9]+)\r?\n" % mark.encode(), re.DOTALL), timeout)
        return int(found[2]), found[1].decode(errors="replace")

    def reaches(self, address: str) -> bool:
        """Whether at least one of three pings is answered."""
        code, text = self.run(f"ping -c 3 -i 0.2 -W 4 {address}")
        assert "packets transmitted" in text, text
        return code == 0

    def _until(self, wanted: re.Pattern[bytes], seconds: float) -> re.Match[bytes]:
        assert self._console is not None
        deadline, said = monotonic() + seconds, b""
        while (found := wanted.search(said)) is None:
            self._console.settimeout(max(0.1, deadline - monotonic()))
            try:
                data = self._console.recv(4096)
            except TimeoutError:
                pytest.fail(f"{self.name} says nothing more for {seconds:g} s after {said[-500:]!r}")
            assert data, f"{self.name} ended: {said[-500:]!r}"
            said += data
        return found


def start_all(*guests: Guest) -> None:
    """Define and start guests at once; booting takes them much longer than starting."""
    for guest in guests:
        guest.define()
    for guest in guests:
        guest.begin()
    with ThreadPoolExecutor() as pool:
        list(pool.map(Guest.attend, guests))


def remove(*guests: Guest) -> None:
    """End guests and undefine them, whatever state they are in."""
    for guest in guests:
        guest.let_go()
        guest.lab.virsh("destroy", guest.name, check=False)
        guest.lab.virsh("undefine", guest.name, "--managed-save", "--snapshots-metadata", check=False)
        Path(f"/run/{guest.name}.qcow2").unlink(missing_ok=True)
