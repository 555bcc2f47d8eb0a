"""Locks as QEMU takes them on its images."""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

import pytest

from vmhost.drivers.imagelock import is_open


@pytest.mark.parametrize("byte", [100, 201])
def test_whoever_holds_one_of_its_locks_has_the_image_open(tmp_path: Path, byte: int) -> None:
    image = tmp_path / "disk.qcow2"
    image.write_bytes(b"QFI\xfb")
    assert not is_open(str(image))
    handle = os.open(image, os.O_RDWR)
    try:
        lock = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, byte, 1, 0)
        fcntl.fcntl(handle, fcntl.F_OFD_SETLK, lock)
        assert is_open(str(image))
    finally:
        os.close(handle)
    assert not is_open(str(image))


def test_what_cannot_be_an_image_of_anybody_is_not_open(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    assert not any(is_open(str(tmp_path / name)) for name in ("nothing", "link", "pipe"))
