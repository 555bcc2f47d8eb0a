"""A disk that is written and hashed while it is read: nothing but what it holds, and no end but a whole one."""

from __future__ import annotations

import errno
import hashlib
import os
import time
from pathlib import Path

import pytest

from tests.exported import CLUSTER, exported, filled
from vmhost.drivers.command import run
from vmhost.drivers.repository import streaming
from vmhost.model.errors import Cancelled, DamagedData, DriverError

SIZE = 24 << 20
HELD = {number: number % 250 + 1 for number in (*range(40), 77, *range(100, 384, 3))}


def silent(_done: int, _total: int) -> None:
    """Nothing is told."""


def copied(source: Path, target: Path, capacity: int = SIZE, rate: int = 0, form: str = "qcow2") -> tuple[int, str]:
    target.touch(0o600)
    with exported(source, form) as place:
        return streaming.copy_export(str(place), "vda", target, capacity, silent, rate=rate, timeout=60)


@pytest.mark.parametrize("direct", [True, False])
def test_all_that_a_disk_holds_arrives_and_its_hash_is_the_file_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, direct: bool
) -> None:
    if not direct:
        monkeypatch.setattr(streaming, "takes_direct", lambda _place: False)
    source, target = filled(tmp_path, SIZE, HELD), tmp_path / "target.qcow2"
    size, digest = copied(source, target)
    assert (size, digest) == (target.stat().st_size, hashlib.sha256(target.read_bytes()).hexdigest())
    run(("qemu-img", "compare", "-f", "qcow2", "-F", "qcow2", str(source), str(target)), timeout=60)
    run(("qemu-img", "check", "-q", "-f", "qcow2", str(target)), timeout=60)
    # Header, both tables of refcounts, both of the disk's
    assert size == (len(HELD) + 5) * CLUSTER


def test_a_disk_that_ends_within_a_cluster(tmp_path: Path) -> None:
    source, target = tmp_path / "source.raw", tmp_path / "target.qcow2"
    source.write_bytes(os.urandom(5 * CLUSTER + 1536))
    size, digest = copied(source, target, 5 * CLUSTER + 1536, form="raw")
    assert digest == hashlib.sha256(target.read_bytes()).hexdigest()
    assert size == 11 * CLUSTER
    run(("qemu-img", "compare", "-f", "raw", "-F", "qcow2", str(source), str(target)), timeout=60)


def test_zeros_take_no_room(tmp_path: Path) -> None:
    source, target = tmp_path / "source.raw", tmp_path / "target.qcow2"
    source.write_bytes(b"a" * CLUSTER + bytes(SIZE - 2 * CLUSTER) + bytes(CLUSTER - 1) + b"z")
    copied(source, target, form="raw")
    assert target.stat().st_size == SIZE + 5 * CLUSTER
    assert target.stat().st_blocks * 512 <= 8 * CLUSTER
    run(("qemu-img", "compare", "-f", "raw", "-F", "qcow2", str(source), str(target)), timeout=60)


def test_an_empty_disk(tmp_path: Path) -> None:
    size, digest = copied(filled(tmp_path, SIZE, {}), tmp_path / "target.qcow2")
    assert size == 4 * CLUSTER
    assert digest == hashlib.sha256((tmp_path / "target.qcow2").read_bytes()).hexdigest()


def test_it_keeps_to_its_rate(tmp_path: Path) -> None:
    source = filled(tmp_path, SIZE, dict.fromkeys(range(64), 7))
    start = time.monotonic()
    copied(source, tmp_path / "target.qcow2", rate=4 << 20)
    assert time.monotonic() - start >= 1.0


def test_a_disk_of_another_size(tmp_path: Path) -> None:
    with pytest.raises(DamagedData, match=f"is a disk of {SIZE} bytes, should be one of {2 * SIZE}"):
        copied(filled(tmp_path, SIZE, {}), tmp_path / "target.qcow2", 2 * SIZE)


def test_who_is_told_can_end_it(tmp_path: Path) -> None:
    told = list[tuple[int, int]]()

    def tell(done: int, total: int) -> None:
        told.append((done, total))
        if done > SIZE // 4:
            raise Cancelled("enough")

    source, target = filled(tmp_path, SIZE, dict.fromkeys(range(384), 7)), tmp_path / "target.qcow2"
    target.touch(0o600)
    with exported(source) as place, pytest.raises(Cancelled):
        streaming.copy_export(str(place), "vda", target, SIZE, tell, rate=0, timeout=60)
    assert {total for _, total in told} == {SIZE}
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_a_full_disk_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.pwrite

    def full(handle: int, data: bytes, place: int) -> int:
        if place > SIZE // 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(handle, data[:CLUSTER], place)  # write(2) may take less than it is given

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(DriverError, match="cannot write: no space left"):
        copied(filled(tmp_path, SIZE, dict.fromkeys(range(384), 7)), tmp_path / "target.qcow2")


def test_it_may_not_take_for_ever(tmp_path: Path) -> None:
    source, target = filled(tmp_path, SIZE, {0: 1}), tmp_path / "target.qcow2"
    target.touch(0o600)
    with exported(source) as place, pytest.raises(DriverError, match="takes too long"):
        streaming.copy_export(str(place), "vda", target, SIZE, silent, rate=0, timeout=-1)


def test_no_link_is_written_through(tmp_path: Path) -> None:
    victim, target = tmp_path / "victim", tmp_path / "target.qcow2"
    victim.write_bytes(b"mine")
    target.symlink_to(victim)
    with exported(filled(tmp_path, SIZE, {0: 1})) as place, pytest.raises(DriverError):
        streaming.copy_export(str(place), "vda", target, SIZE, silent, rate=0, timeout=60)
    assert victim.read_bytes() == b"mine"
