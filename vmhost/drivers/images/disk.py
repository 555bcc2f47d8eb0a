"""A bootable disk from a tree of files, made on files alone: no loop device, no mount.

The disk has a GPT. Partition 14 holds GRUB's second stage for BIOS, 15 is the EFI system partition, 1 the root file
system; root comes last, so that growpart can enlarge it. It is the layout of Debian's own cloud images.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vmhost.drivers.command import run
from vmhost.drivers.files import os_errors
from vmhost.drivers.images.fakeroot import as_root_of_namespace
from vmhost.model.errors import DamagedData
from vmhost.model.units import MIB

SECTOR: Final = 512
_BIOS_START: Final = 1 * MIB // SECTOR
_ESP_START: Final = 2 * MIB // SECTOR
_ROOT_START: Final = 64 * MIB // SECTOR
_BACKUP_GPT: Final = 33

# Types of partitions: UEFI specification 5.3.3 (EFI system), GRUB manual "BIOS installation", Discoverable Partitions.
_BIOS_TYPE: Final = "21686148-6449-6E6F-744E-656564454649"
_ESP_TYPE: Final = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
_LINUX_TYPE: Final = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"

# Offsets in GRUB's boot.img and in the first sector of core.img: include/grub/i386/pc/boot.h of GRUB.
_BOOT_CODE: Final = 440
_KERNEL_SECTOR: Final = 0x5C
_DRIVE_CHECK: Final = 0x66
_BLOCK_LIST: Final = SECTOR - 12


@dataclass(frozen=True, slots=True)
class DiskPlan:
    """The size of a disk in bytes, and what follows from it in sectors."""

    size: int

    @property
    def root_sectors(self) -> int:
        """How long the root partition is."""
        return self.size // SECTOR - _BACKUP_GPT - _ROOT_START

    @property
    def table(self) -> str:
        """The partition table as sfdisk(8) reads it."""
        return (
            "label: gpt\n"
            f"14: start={_BIOS_START}, size={_ESP_START - _BIOS_START}, type={_BIOS_TYPE}\n"
            f"15: start={_ESP_START}, size={_ROOT_START - _ESP_START}, type={_ESP_TYPE}\n"
            f"1: start={_ROOT_START}, size={self.root_sectors}, type={_LINUX_TYPE}\n"
        )


def plan_for(content: int) -> DiskPlan:
    """Return a disk that holds ``content`` bytes of files with room to spare: 2 GiB, or more in steps of 512 MiB."""
    step = 512 * MIB
    need = 64 * MIB + content * 16 // 10
    return DiskPlan(max(4 * step, -(-need // step) * step))


def assemble(tree: Path, disk: Path, plan: DiskPlan, mke2fs_conf: Path) -> None:
    """Write a disk that boots the system in ``tree`` by BIOS and by UEFI; ``tree`` loses its ``/boot/efi``.

    :param tree: owned as inside the guest (by root, or within the user namespace of the caller).
    :raises DamagedData: GRUB's images in the tree are not what this code knows.
    """
    with os_errors(disk, "write"), disk.open("wb") as file:
        file.truncate(plan.size)
    run(["sfdisk", "--quiet", "--no-tell-kernel", str(disk)], input=plan.table.encode(), timeout=60)
    _write_esp(tree / "boot" / "efi", disk)
    _write_boot_code(tree / "boot" / "grub" / "i386-pc", disk)
    _write_root(tree, disk, plan, mke2fs_conf)


def _write_esp(content: Path, disk: Path) -> None:
    place = f"{disk}@@{_ESP_START * SECTOR}"
    sectors = _ROOT_START - _ESP_START
    run(["mformat", "-i", place, "-T", str(sectors), "-h", "255", "-s", "63", "-v", "ESP", "::"], timeout=60)
    with os_errors(content, "read"):
        entries = sorted(str(entry) for entry in content.iterdir())
    run(["mcopy", "-i", place, "-s", *entries, "::/"], timeout=60)
    as_root_of_namespace(["rm", "-r", *entries], timeout=60)


def _write_boot_code(grub: Path, disk: Path) -> None:
    with os_errors(grub, "read"):
        boot, core = (grub / "boot.img").read_bytes(), (grub / "core.img").read_bytes()
    first, second = boot_sectors(boot, core)
    with os_errors(disk, "write"), disk.open("r+b") as file:
        file.write(first)
        file.seek(_BIOS_START * SECTOR)
        file.write(second)


def boot_sectors(boot: bytes, core: bytes) -> tuple[bytes, bytes]:
    """Return the boot code of the first sector and GRUB's second stage, each told where the next part lies.

    It is what ``grub-bios-setup`` writes for a BIOS boot partition; that program insists on a device.

    :raises DamagedData: they are not GRUB's ``boot.img`` and ``core.img``, or too long.
    """
    if len(boot) != SECTOR or boot[510:] != b"\x55\xaa" or len(core) <= SECTOR:
        raise DamagedData("are not GRUB's boot images", subject="boot.img and core.img")
    if len(core) > (_ESP_START - _BIOS_START) * SECTOR:
        raise DamagedData("is longer than its partition", subject="core.img")
    first, second = bytearray(boot[:_BOOT_CODE]), bytearray(core)
    struct.pack_into("<Q", first, _KERNEL_SECTOR, _BIOS_START)
    # Some BIOSes say that they booted from a floppy when they did not: believe in the hard disk (two NOPs).
    first[_DRIVE_CHECK : _DRIVE_CHECK + 2] = b"\x90\x90"
    struct.pack_into("<Q", second, _BLOCK_LIST, _BIOS_START + 1)
    return bytes(first), bytes(second)


def _write_root(tree: Path, disk: Path, plan: DiskPlan, mke2fs_conf: Path) -> None:
    offset, kib = _ROOT_START * SECTOR, plan.root_sectors * SECTOR // 1024
    argv = ["mke2fs", "-q", "-F", "-t", "ext4", "-L", "root", "-E", f"offset={offset}", "-d", str(tree), str(disk)]
    as_root_of_namespace([*argv, f"{kib}k"], timeout=300, env={"MKE2FS_CONFIG": str(mke2fs_conf)})
