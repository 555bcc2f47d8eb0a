"""Empty overlays that are written without qemu-img: they are what it would have made."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from vmhost.drivers.command import run
from vmhost.drivers.diskfiles import LocalDiskFiles
from vmhost.drivers.images import qcow2
from vmhost.drivers.images.inspection import inspect
from vmhost.model.errors import DriverError

MIB = 1 << 20


def files() -> LocalDiskFiles:
    return LocalDiskFiles(lambda: True)


def told(path: Path) -> dict[str, object]:
    said = json.loads(run(("qemu-img", "info", "--output=json", str(path)), timeout=60).stdout)
    return {key: value for key, value in said.items() if key not in ("filename", "actual-size")}


@pytest.mark.parametrize("size", [512, 64 * MIB, 512 * MIB + 512, 5 << 40])
def test_it_is_as_qemu_img_makes_it(tmp_path: Path, size: int) -> None:
    base, ours, theirs = (tmp_path / name for name in ("base.qcow2", "ours.qcow2", "theirs.qcow2"))
    create = ("qemu-img", "create", "-q", "-f", "qcow2")
    run((*create, str(base), str(size)), timeout=60)
    run((*create, "-b", str(base), "-F", "qcow2", str(theirs)), timeout=60)
    files().make_overlay(str(ours), str(base), size)
    assert told(ours) == told(theirs)
    assert inspect(ours) == replace(inspect(theirs), file_size=ours.stat().st_size)
    assert ours.stat().st_mode & 0o777 == 0o600
    run(("qemu-img", "check", "-q", str(ours)), timeout=60)
    run(("qemu-io", "-f", "qcow2", "-c", f"write -P 7 {size - 512} 512", str(ours)), timeout=60)
    run(("qemu-img", "check", "-q", str(ours)), timeout=60)
    run(("qemu-io", "-r", "-f", "qcow2", "-c", f"read -P 7 {size - 512} 512", str(ours)), timeout=60)


@pytest.mark.parametrize(("size", "name"), [(0, "/a"), (513, "/a"), (1 << 62, "/a"), (512, ""), (512, "/" * 1024)])
def test_one_that_cannot_be_is_refused(size: int, name: str) -> None:
    with pytest.raises(qcow2.Malformed):
        list(qcow2.empty(size, name))


def test_one_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    base, ours = tmp_path / "base.qcow2", tmp_path / "ours.qcow2"
    base.write_bytes(bytes(MIB))
    with pytest.raises(DriverError, match="not qcow2"):
        files().make_overlay(str(ours), str(base), 512)
    run(("qemu-img", "create", "-q", "-f", "qcow2", str(base), "512"), timeout=60)
    for size in (0, 513):
        with pytest.raises(DriverError, match="no overlay can be"):
            files().make_overlay(str(ours), str(base), size)
    assert not ours.exists()
