"""What a file says it is: the marks by which QEMU would recognise an image.

QEMU reads a file's format from its content unless it is told one, and a guest may write any content into a raw disk. So
everything that QEMU would recognise has to be recognised here first (CVE-2024-32498, CVE-2026-24708 and their kin).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

HEAD: Final = 0x8800
"""Bytes from the start of a file that the marks need: up to the volume descriptor of ISO 9660."""

TAIL: Final = 512
"""Bytes from its end: fixed VHD and DMG have a footer instead of a header."""


@dataclass(frozen=True, slots=True)
class Mark:
    """``magic`` at ``offset`` (negative: from the end of the file) means ``format``."""

    format: str
    offset: int
    magic: bytes


FORMATS: Final = (
    Mark("qcow2", 0, b"QFI\xfb"),
    Mark("qed", 0, b"QED\0"),
    Mark("vmdk", 0, b"KDMV"),
    Mark("vmdk", 0, b"VMDK"),
    Mark("vmdk", 0, b"COWD"),
    Mark("vmdk", 0, b"# Disk DescriptorFile"),
    Mark("vdi", 0x40, b"\x7f\x10\xda\xbe"),
    Mark("vhd", 0, b"conectix"),
    Mark("vhd", -512, b"conectix"),
    Mark("vhdx", 0, b"vhdxfile"),
    Mark("luks", 0, b"LUKS\xba\xbe"),
    Mark("parallels", 0, b"WithoutFreeSpace"),
    Mark("parallels", 0, b"WithouFreSpacExt"),
    Mark("bochs", 0, b"Bochs Virtual HD Image"),
    Mark("cloop", 0, b"#!/bin/sh\n#V2.0 Format\n"),
    Mark("dmg", -512, b"koly"),
)
"""The formats of QEMU's block drivers that it recognises by content (``bdrv_probe`` in QEMU's ``block/``)."""

COMPRESSED: Final = (
    Mark("gzip", 0, b"\x1f\x8b"),
    Mark("xz", 0, b"\xfd7zXZ\0"),
    Mark("zstd", 0, b"\x28\xb5\x2f\xfd"),
    Mark("bzip2", 0, b"BZh"),
    Mark("zip", 0, b"PK\x03\x04"),
)
"""Wrappings that images are distributed in; QEMU reads none of them."""

LAYOUTS: Final = (
    Mark("gpt", 512, b"EFI PART"),
    Mark("iso9660", 0x8001, b"CD001"),
    Mark("mbr", 510, b"\x55\xaa"),
)
"""What a raw disk may hold; the first that is found names it, since a GPT has a protective MBR, too."""


def found(marks: tuple[Mark, ...], head: bytes, tail: bytes) -> tuple[str, ...]:
    """Return the formats whose marks stand in a file, in the order of ``marks`` and each once.

    :param head: its first :data:`HEAD` bytes, or all of it when it is shorter.
    :param tail: its last :data:`TAIL` bytes, or all of it.
    """
    names: dict[str, None] = {}
    for mark in marks:
        part, start = (head, mark.offset) if mark.offset >= 0 else (tail, max(0, len(tail) + mark.offset))
        if part[start : start + len(mark.magic)] == mark.magic:
            names[mark.format] = None
    return tuple(names)
