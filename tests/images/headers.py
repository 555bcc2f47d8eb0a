"""qcow2 headers written by hand, field by field (QEMU's docs/interop/qcow2.txt), for files that no tool would write."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path

CLUSTER_BITS = 16


@dataclass
class Header:
    """A sound, empty version 3 file of 1 GiB; change a field to break it."""

    magic: bytes = b"QFI\xfb"
    version: int = 3
    backing_offset: int = 0
    backing_length: int = 0
    cluster_bits: int = CLUSTER_BITS
    size: int = 1 << 30
    crypt: int = 0
    l1_entries: int = 2
    l1_offset: int = 3 << CLUSTER_BITS
    refcount_offset: int = 1 << CLUSTER_BITS
    refcount_clusters: int = 1
    snapshots: int = 0
    snapshots_offset: int = 0
    incompatible: int = 0
    compatible: int = 0
    autoclear: int = 0
    refcount_order: int = 4
    length: int = 112
    compression: int = 0
    extensions: list[tuple[int, bytes]] = field(default_factory=list)
    backing_name: bytes = b""
    l1: tuple[int, ...] = (0, 0)
    file_size: int = 4 << CLUSTER_BITS

    def packed(self) -> bytes:
        """The first cluster."""
        plain = struct.pack(
            ">4sIQIIQIIQQIIQ",
            self.magic,
            self.version,
            self.backing_offset,
            self.backing_length,
            self.cluster_bits,
            self.size,
            self.crypt,
            self.l1_entries,
            self.l1_offset,
            self.refcount_offset,
            self.refcount_clusters,
            self.snapshots,
            self.snapshots_offset,
        )
        if self.version >= 3:
            plain += struct.pack(
                ">QQQII", self.incompatible, self.compatible, self.autoclear, self.refcount_order, self.length
            )
            plain = plain.ljust(min(self.length, 1 << 16), b"\0")
            if self.length > 104:
                plain = plain[:104] + bytes([self.compression]) + plain[105:]
        for kind, data in self.extensions:
            plain += struct.pack(">II", kind, len(data)) + data.ljust((len(data) + 7) & ~7, b"\0")
        return plain + bytes(8)

    def write(self, path: Path) -> Path:
        with path.open("wb") as file:
            file.write(self.packed())
            if self.backing_name:
                file.seek(self.backing_offset)
                file.write(self.backing_name)
            if 4096 <= self.l1_offset < self.file_size:
                file.seek(self.l1_offset)
                file.write(b"".join(struct.pack(">Q", entry) for entry in self.l1))
            file.truncate(self.file_size)
        return path
