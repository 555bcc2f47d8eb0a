"""The disk that is put together from files: partitions, file systems, boot sectors."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest

from vmhost.drivers.command import run
from vmhost.drivers.images.disk import DiskPlan, assemble, boot_sectors, plan_for
from vmhost.drivers.images.recipe import load
from vmhost.model.errors import DamagedData

MIB, GIB = 1 << 20, 1 << 30
BOOT = bytes(510) + b"\x55\xaa"
CORE = bytes(0x1F4) + struct.pack("<QHH", 2, 100, 0x820) + bytes(60000)


@pytest.mark.parametrize(("content", "size"), [(0, 2 * GIB), (600 * MIB, 2 * GIB), (2 * GIB, 3584 * MIB)])
def test_a_disk_has_room_for_more_than_its_content(content: int, size: int) -> None:
    assert plan_for(content).size == size
    assert plan_for(content).root_sectors * 512 > content


def test_boot_sectors_lead_to_each_other() -> None:
    first, second = boot_sectors(BOOT, CORE)
    assert len(first) == 440
    assert struct.unpack_from("<Q", first, 0x5C) == (2048,)
    assert struct.unpack_from("<QHH", second, 0x1F4) == (2049, 100, 0x820)
    assert len(second) == len(CORE)


@pytest.mark.parametrize(
    ("boot", "core"),
    [(b"", CORE), (BOOT[:-1], CORE), (bytes(512), CORE), (BOOT, b""), (BOOT, bytes(512)), (BOOT, bytes(2 * MIB))],
    ids=["no boot.img", "short boot.img", "no mark", "no core.img", "empty core.img", "core.img too long"],
)
def test_what_is_not_grub_is_not_written(boot: bytes, core: bytes) -> None:
    with pytest.raises(DamagedData):
        boot_sectors(boot, core)


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk with a small system in it."""
    place = tmp_path_factory.mktemp("disk")
    tree = place / "tree"
    for name, data in {
        "boot/efi/EFI/BOOT/BOOTX64.EFI": b"loader",
        "boot/efi/EFI/debian/grub.cfg": b"configfile",
        "boot/grub/i386-pc/boot.img": BOOT,
        "boot/grub/i386-pc/core.img": CORE,
        "etc/hostname": b"localhost\n",
        "usr/bin/tool": b"#!/bin/sh\n",
    }.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(data)
    (tree / "usr/bin/tool").chmod(0o4755)
    (tree / "root").mkdir(mode=0o700)
    (tree / "lib").symlink_to("usr/lib")
    conf = place / "mke2fs.conf"
    conf.write_bytes(load("debian-12").mke2fs_conf)
    assemble(tree, place / "disk.raw", DiskPlan(512 * MIB), conf)
    return place / "disk.raw"


def test_the_partition_table_is_what_firmware_and_growpart_need(disk: Path) -> None:
    table = json.loads(run(["sfdisk", "--json", str(disk)], timeout=60).stdout)["partitiontable"]
    assert table["label"] == "gpt"
    partitions = {int(entry["node"].removeprefix(str(disk))): entry for entry in table["partitions"]}
    assert sorted(partitions) == [1, 14, 15]
    assert partitions[15]["type"] == "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
    assert partitions[14]["start"] == 2048
    assert max(partitions, key=lambda number: partitions[number]["start"]) == 1, "root must come last to be grown"
    assert run(["sfdisk", "--verify", str(disk)], timeout=60, check=False).code == 0


def test_the_boot_code_is_in_place(disk: Path) -> None:
    data = disk.open("rb").read(3 * MIB)
    assert data[510:512] == b"\x55\xaa"
    assert data[512:520] == b"EFI PART"
    assert struct.unpack_from("<Q", data, 0x5C) == (2048,)
    assert data[MIB : MIB + len(CORE)] == boot_sectors(BOOT, CORE)[1]


def test_the_efi_system_partition_holds_the_loaders_and_root_does_not(disk: Path) -> None:
    listed = run(["mdir", "-i", f"{disk}@@2M", "-/", "-b", "::"], timeout=60).text
    assert "EFI/BOOT/BOOTX64.EFI" in listed
    assert run(["mtype", "-i", f"{disk}@@2M", "::/EFI/debian/grub.cfg"], timeout=60).stdout == b"configfile"
    assert b"EFI" not in debugfs(disk, "ls -p /boot/efi")


def debugfs(disk: Path, request: str) -> bytes:
    """Ask e2fsprogs about the root file system within the disk."""
    return run(["debugfs", "-R", request, f"{disk}?offset={64 * MIB}"], timeout=60).stdout


def test_the_root_file_system_is_sound_and_keeps_owners_and_modes(disk: Path, tmp_path: Path) -> None:
    root = tmp_path / "root.ext4"
    with disk.open("rb") as source, root.open("wb") as target:
        source.seek(64 * MIB)
        while chunk := source.read(4 * MIB):
            target.write(chunk)
    run(["e2fsck", "-fn", str(root)], timeout=60)
    head = run(["dumpe2fs", "-h", str(root)], timeout=60).text
    assert "Filesystem volume name:   root" in head
    # GRUB of Debian 11 and 12 reads neither of these; mke2fs of the host would have chosen them.
    assert "orphan_file" not in head
    assert "metadata_csum_seed" not in head
    tool = debugfs(disk, "stat /usr/bin/tool").decode()
    assert "Mode:  04755" in tool.replace("Mode:   4755", "Mode:  04755")
    assert "User:     0" in tool or os.geteuid() != 0
    assert b"usr/lib" in debugfs(disk, "stat /lib")
