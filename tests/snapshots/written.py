"""A guest whose disks are written from outside, and what they must hold: every byte, at every point."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.labfixture import InLab
from vmhost.drivers.command import run
from vmhost.ops.host import Host
from vmhost.ops.sites import parse_site
from vmhost.render.parse.snapshots import parse_snapshots

SIZE = 8 << 20
BLOCK = 64 << 10
BLOCKS = SIZE // BLOCK
DISKS = ("root", "data1")
SITE = """
{apiVersion: vmhost/v1, name: points, guests: {%s: {image: tiny, memory: 64M, firmware: %s,
 disks: [{size: 8M}, {size: 8M}], ready: {by: none}}}}
"""

Image = Mapping[str, bytes]


@dataclass
class Written:
    """A guest, what its disks hold now, and what they held at each of its snapshots."""

    host: Host
    lab: InLab
    name: str
    firmware: str = "bios"
    now: dict[str, bytearray] = field(default_factory=lambda: {disk: bytearray(SIZE) for disk in DISKS})
    then: dict[str, Image] = field(default_factory=dict)

    def create(self) -> None:
        """Make it and start it; its vCPU stands still, so that nobody but us writes."""
        self.host.apply(self.host.plan(parse_site(SITE % (self.name, self.firmware))))
        self.pause()

    def pause(self) -> None:
        """Let its vCPU stand still."""
        self.lab.virsh("suspend", self.name)

    @property
    def running(self) -> bool:
        """Whether QEMU is there."""
        return self.host.guest(self.name).domain.active

    def sources(self) -> dict[str, str]:
        """Return the file of each disk."""
        facts = self.host.guest(self.name).domain.facts
        return {disk.alias.removeprefix("ua-disk-"): disk.source for disk in facts.disks if not disk.readonly}

    def write(self, disk: str, block: int, pattern: int) -> None:
        """Write one block of a disk, as its guest would, and wait until that is durable."""
        self.monitor(disk, f"write -P {pattern} {block * BLOCK} {BLOCK}")
        self.now[disk][block * BLOCK : (block + 1) * BLOCK] = bytes([pattern]) * BLOCK

    def monitor(self, disk: str, *commands: str) -> None:
        """Let QEMU, or qemu-io if the guest does not run, do something with a disk."""
        for command in (*commands, "flush"):
            if self.running:
                device = f"/machine/peripheral/ua-disk-{disk}/virtio-backend"
                words = ("qemu-monitor-command", self.name, "--hmp", f'qemu-io -d {device} "{command}"')
                said = self.lab.virsh(*words).text
            else:
                said = run(("qemu-io", "-f", "qcow2", "-c", command, self.sources()[disk]), timeout=30).text
            assert "rror" not in said, said

    def snapshots(self) -> dict[str, dict[str, str]]:
        """Return the files of each snapshot's disks."""
        domain = self.host.guest(self.name).domain
        pools = {pool.name: pool.path for pool in self.host.observe().pools}
        return {
            item.name: {kept.disk: f"{pools[kept.pool]}/{kept.volume}" for kept in item.disks}
            for item in parse_snapshots(domain.raw.xml).items
            if not item.merging
        }

    def keep(self, name: str) -> None:
        """Remember what the disks hold as what a snapshot must hold."""
        self.then[name] = {disk: bytes(data) for disk, data in self.now.items()}

    def check(self, where: str = "") -> None:
        """Compare every byte of now and of all snapshots; and no file is there that nobody knows."""
        if self.running:
            for disk in DISKS:
                self.monitor(disk)
        kept = self.snapshots()
        assert set(kept) == set(self.then), where
        sources = self.sources()
        assert contents(sources) == {disk: bytes(data) for disk, data in self.now.items()}, f"{where}: now"
        for name, files in kept.items():
            assert contents(files) == self.then[name], f"{where}: {name}"
        known = {path for files in (sources, *kept.values()) for path in files.values()}
        there = {v.path for pool in self.host.observe().pools for v in pool.volumes if v.format == "qcow2"}
        assert there == known, where
        for path in known:
            run(("qemu-img", "check", "-q", "-U", path), timeout=30)


def contents(files: Mapping[str, str]) -> Image:
    """Return what disks hold, through all that they lie on."""
    found = {}
    for disk, path in files.items():
        with tempfile.TemporaryDirectory() as directory:
            raw = Path(directory) / "raw"
            run(("qemu-img", "convert", "-U", "-f", "qcow2", "-O", "raw", path, str(raw)), timeout=30)
            found[disk] = raw.read_bytes()
    return found
