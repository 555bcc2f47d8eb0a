"""One full backup of a guest that runs, restored in place and compared byte by byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.backup.writing import Paused, held, held_by_point, point_directory
from tests.labfixture import InLab
from tests.reliability.scene import told, vmhost
from vmhost.drivers.command import run

pytestmark = pytest.mark.backup


def test_a_full_backup_is_restored_and_equals_its_instant(
    small: Paused, repository: str, tmp_path: Path, lab: InLab
) -> None:
    small.write("root", 65, 1 << 20, 8 << 20)
    small.write("data1", 66, 4096, 1 << 20)
    instant = small.hashes()
    where = ("--repository", repository)

    done = vmhost("backup", "run", "small", *where)
    assert done.code == 0, told(done)
    assert "full, because it is the first one" in told(done)
    small.write("root", 67, 0, 4 << 20)  # what comes later is not in the point

    point = vmhost("backup", "list", "small", *where, "-o", "name").text.strip()
    assert held_by_point(repository, point, small, tmp_path) == instant
    run(["sha256sum", "--check", "--strict", "SHA256SUMS"], timeout=30, cwd=point_directory(repository, point))
    assert vmhost("backup", "verify", "small", *where).code == 0

    # no job, no scratch file and no half point is left
    small.assert_left_alone()
    assert [path.name for path in Path(small.files["root"]).parent.glob("*vmhost-*")] == []
    assert list(Path(repository).rglob(".new-*")) == []

    refused = vmhost("backup", "restore", "small", "--in-place", "--yes", *where)
    assert refused.code == 4
    assert "--allow-stop" in told(refused)
    lab.virsh("destroy", "small")
    before = {disk: held(Path(path), tmp_path) for disk, path in small.files.items()}
    assert before != instant
    restored = vmhost("backup", "restore", "small", "--in-place", "--yes", *where)
    assert restored.code == 0, told(restored)
    assert {disk: held(Path(path), tmp_path) for disk, path in small.files.items()} == instant

    # what the disks were is kept until it is given up
    kept = {disk: next(Path(path).parent.glob(f"{Path(path).name}.before-*")) for disk, path in small.files.items()}
    assert {disk: held(path, tmp_path) for disk, path in kept.items()} == before
    again = vmhost("backup", "restore", "small", "--in-place", "--yes", *where)
    assert again.code == 4
    assert "backup confirm small" in told(again)
    assert vmhost("backup", "confirm", "small", "--yes").code == 0
    assert not any(path.exists() for path in kept.values())
    assert vmhost("backup", "confirm", "small", "--yes").code == 3
    assert lab.virsh("checkpoint-list", "small", "--name").text.strip() == ""

    with (point_directory(repository, point) / "root.qcow2").open("r+b") as file:
        file.seek(-1, 2)
        (last,) = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last ^ 1]))
    flipped = vmhost("backup", "verify", "small", *where)
    assert flipped.code == 12, told(flipped)
    assert f"{point}/root.qcow2" in flipped.text


def test_a_point_becomes_a_guest_of_its_own(small: Paused, repository: str, tmp_path: Path, lab: InLab) -> None:
    small.write("root", 71, 1 << 20, 1 << 20)
    small.write("data1", 72, 0, 1 << 20)
    instant = small.hashes()
    where = ("--repository", repository)
    assert vmhost("backup", "run", "small", *where).code == 0
    small.write("data1", 73, 0, 1 << 20)
    assert vmhost("backup", "run", "small", *where).code == 0
    first = vmhost("backup", "list", "small", *where, "-o", "name").text.split()[0]
    taken = vmhost("backup", "restore", "small", "--as", "small", "--yes", *where)
    assert taken.code == 4, told(taken)
    made = vmhost("backup", "restore", "small", "--as", "copy", "--point", first, "--yes", *where)
    assert made.code == 0, told(made)
    try:
        assert lab.virsh("domuuid", "copy").text != lab.virsh("domuuid", "small").text
        lines = lab.virsh("domblklist", "copy", "--details").text.splitlines()
        files = [Path(line.split()[3]) for line in lines if line.split()[3].endswith(".qcow2")]
        assert {held(path, tmp_path) for path in files} == set(instant.values())
        lab.virsh("start", "--paused", "copy")
    finally:
        vmhost("guest", "delete", "copy", "--power-off", "--disks", "--yes")
