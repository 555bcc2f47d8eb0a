"""Compressed files of points: only what is theirs, at once or not at all, and read by qemu-img alone."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.repository.test_repository import SIZE, Shelf, shelf, silent  # noqa: F401 - a fixture
from vmhost.drivers.command import run
from vmhost.drivers.repository import copying, places
from vmhost.model.errors import DamagedData, DriverError, NoCapacity
from vmhost.model.points import PointRef

CLUSTER = 1 << 16


@pytest.fixture
def packed(shelf: Shelf) -> Shelf:  # noqa: F811 - the fixture
    """Three points on each other; only the middle one is not compressed."""
    shelf.take("one", 1, compression="zstd")
    shelf.take("two", 2, "one", fill=66)
    shelf.take("three", 3, "two", fill=67, compression="zstd")
    return shelf


def clusters(path: Path) -> list[str]:
    """What each cluster of a file is, by itself: ``data``, ``zero``, or empty where it lies on another file."""
    found = json.loads(run(["qemu-img", "map", "--output=json", str(path)], timeout=30).text)
    kinds = []
    for entry in found:
        kind = "zero" if entry["zero"] else "data"
        kinds += [kind if entry["depth"] == 0 else ""] * (entry["length"] // CLUSTER)
    return kinds


def test_what_is_packed_holds_its_own_only_and_says_the_same(packed: Shelf) -> None:
    point = packed.port.points(packed.path)[-1]
    file = packed.place("three") / "root.qcow2"
    assert clusters(file) == ["", "data", *[""] * (SIZE // CLUSTER - 2)]
    said = json.loads(run(["qemu-img", "info", "--output=json", str(file)], timeout=30).text)
    assert said["format-specific"]["data"]["compression-type"] == "zstd"
    assert said["backing-filename"] == "../two/root.qcow2"
    assert file.stat().st_mode & 0o777 == 0o600
    assert packed.port.verify(point.ref, silent) == ()
    run(["qemu-img", "convert", "-O", "raw", str(file), "back.raw"], timeout=30, cwd=packed.directory)
    wanted = bytearray(b"A" * SIZE)
    wanted[CLUSTER : 2 * CLUSTER] = b"C" * CLUSTER
    assert (packed.directory / "back.raw").read_bytes() == wanted


def test_zeros_that_hide_what_lies_below_stay(packed: Shelf) -> None:
    """What a guest has wiped or discarded since the last point."""
    new = packed.new("four", 4, "three")
    packed.port.begin(new)
    file = places.begun(new.point.ref) / "root.qcow2"
    for command in (f"write -z 0 {CLUSTER}", f"write -P 0 {CLUSTER} {CLUSTER}", f"write -P 7 {SIZE - CLUSTER} 4k"):
        run(["qemu-io", "-f", "qcow2", "-c", command, file.name], timeout=30, cwd=file.parent)
    packed.port.pack(new.point.ref, file.name, "zstd", silent, rate=1 << 30)
    packed.port.publish(new.point.ref, {}, silent)
    content = bytearray(b"A" * SIZE)
    content[: 2 * CLUSTER] = bytes(2 * CLUSTER)
    content[SIZE - CLUSTER : SIZE - CLUSTER + 4096] = b"\7" * 4096
    packed.port.restore(packed.ref("four"), "root.qcow2", str(packed.directory / "back"), "", silent)
    run(["qemu-img", "convert", "-O", "raw", "back", "back.raw"], timeout=30, cwd=packed.directory)
    assert (packed.directory / "back.raw").read_bytes() == content


def test_what_cannot_be_packed_stays_as_it_was_written(packed: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    new = packed.new("four", 4, "three")
    packed.port.begin(new)
    file = places.begun(new.point.ref) / "root.qcow2"
    before = file.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise DriverError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(copying, "convert", full)
        with pytest.raises(DriverError, match="no room"):
            packed.port.pack(new.point.ref, file.name, "zstd", silent)
    assert file.read_bytes() == before
    assert not [path for path in file.parent.iterdir() if path.name.endswith(".packed")], "all that lies here is hashed"
    below = packed.place("three") / "root.qcow2"
    run(["qemu-img", "rebase", "-u", "-b", "../one/root.qcow2", "-F", "qcow2", str(below)], timeout=30)
    with pytest.raises(DamagedData, match="lies on"):
        packed.port.pack(new.point.ref, file.name, "zstd", silent)
    packed.port.discard(new.point.ref)
    there = {path.name for path in places.points(new.point.ref).iterdir() if path.is_dir()}
    assert there == {"one", "two", "three"}


def test_the_room_of_a_restore_is_what_the_disk_takes_unpacked(packed: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    target = packed.directory / "back"

    def restore(ref: PointRef, free: int) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=free, f_frsize=1))
            packed.port.restore(ref, "root.qcow2", str(target), "", silent)

    assert packed.port.points(packed.path)[0].size < SIZE // 2
    with pytest.raises(NoCapacity):
        restore(packed.ref("one"), SIZE // 2)
    assert not target.exists()
    restore(packed.ref("one"), SIZE + (1 << 20))
    assert target.stat().st_blocks * 512 < SIZE + (1 << 20)
