"""Points whose disks are compressed: smaller, and all else is as with others."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from tests.backup.test_chain import scribble
from tests.backup.test_drill import booting, left  # noqa: F401 - a fixture
from tests.backup.writing import Paused, held, held_by_point, point_directory
from tests.labfixture import InLab
from tests.reliability.scene import told, vmhost
from vmhost.drivers.command import run
from vmhost.model.points import Compression, Point
from vmhost.ops.backups import raise_failures
from vmhost.ops.host import Host

pytestmark = pytest.mark.backup

PATTERN = 16 << 20
"""Bytes of one value, which take next to nothing when they are compressed."""


def back_up(host: Host, name: str, repository: str, compression: Compression) -> Point:
    """Take a point."""
    results = host.backups.run([name], repository=repository, compression=compression)
    raise_failures(results)
    assert results[0].point is not None
    return results[0].point


def packed_as(path: Path) -> str:
    """How a file is packed, by its header."""
    said = run(["qemu-img", "info", "-U", "--output=json", str(path)], timeout=60).text
    return str(json.loads(said)["format-specific"]["data"]["compression-type"])


def test_points_are_compressed_and_nobody_has_to_know(
    small: Paused, connected: Host, repository: str, tmp_path: Path, lab: InLab
) -> None:
    chance, where = random.Random(20), ("--repository", repository)
    instants, kinds = {}, []
    for turn, compression in enumerate(("zstd", "zstd", "none", "zstd")):
        small.write("root", turn + 1, 8 << 20, PATTERN)
        scribble(small, chance)
        done = vmhost("backup", "run", "small", "--compression", compression, *where)
        assert done.code == 0, told(done)
        assert ("compressed by zstd" in told(done)) == (compression == "zstd")
        point = connected.backups.list(repository=repository)[-1]
        instants[point.id] = small.hashes()
        file = point_directory(repository, point.id) / "root.qcow2"
        assert packed_as(file) == ("zstd" if compression == "zstd" else "zlib")  # zlib: nothing is packed
        assert (file.stat().st_size < PATTERN) == (compression == "zstd")
        assert sorted(path.name for path in file.parent.glob("*.qcow2*")) == ["data1.qcow2", "root.qcow2"]
        kinds.append(point.kind)
    assert kinds == ["full", "incremental", "incremental", "incremental"]
    assert {name: held_by_point(repository, name, small, tmp_path) for name in instants} == instants
    for name in instants:
        run(["sha256sum", "--check", "--strict", "SHA256SUMS"], timeout=30, cwd=point_directory(repository, name))
    assert vmhost("backup", "verify", "small", *where).code == 0

    lab.virsh("destroy", "--graceful", "small")
    off = back_up(connected, "small", repository, "zstd")
    assert (off.kind, off.because) == ("full", "the guest is shut off")
    assert held_by_point(repository, off.id, small, tmp_path) == small.hashes()
    for name in (list(instants)[-1], off.id):
        restored = vmhost("backup", "restore", "small", "--in-place", "--point", name, "--yes", *where)
        assert restored.code == 0, told(restored)
        assert {disk: held(Path(path), tmp_path) for disk, path in small.files.items()} == instants[list(instants)[-1]]
        assert vmhost("backup", "confirm", "small", "--yes").code == 0


def test_what_is_compressed_is_drilled_and_damage_in_it_is_found(
    booting: Path,  # noqa: F811 - the fixture
    repository: str,
    lab: InLab,
    connected: Host,
) -> None:
    point = back_up(connected, "booting", repository, "zstd")
    before = left(lab, booting)
    (result,) = connected.backups.drills.run(["booting"], repository=repository)
    assert result.error is None, result.error
    assert left(lab, booting) == before
    file = point_directory(repository, point.id) / "root.qcow2"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    found = vmhost("backup", "verify", "booting", "--repository", repository)
    assert found.code == 12, told(found)
    assert f"{point.id}/root.qcow2" in found.text
