"""A guest that runs is restored in its own place: stopped, its disks replaced, and started on them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.backup.writing import Paused, capacity, held, held_by_point
from tests.labfixture import InLab
from tests.reliability.scene import told, vmhost
from vmhost.drivers.command import run

pytestmark = pytest.mark.backup

BELOW = 9
"""What every byte of a file is that libvirt was made to note below the guest's first disk."""


def note_a_file_below(small: Paused, lab: InLab, scratch: Path) -> None:
    """Let the guest's definition, not the QEMU that runs, say that its first disk lies on a file, as snapshots do."""
    disk = Path(small.files["root"])
    old = disk.with_name(f"{disk.name}.old")
    run(["qemu-img", "create", "-q", "-f", "qcow2", str(old), str(capacity(disk))], timeout=30)
    run(["qemu-io", "-f", "qcow2", "-c", f"write -P {BELOW} 0 {capacity(old)}", str(old)], timeout=30)
    source = f"<source file='{disk}'/>"
    text = lab.virsh("dumpxml", "--inactive", "small").text
    assert text.count(source) == 1
    below = f"<backingStore type='file'><format type='qcow2'/><source file='{old}'/><backingStore/></backingStore>"
    definition = scratch / "small.xml"
    definition.write_text(text.replace(source, source + below))
    lab.virsh("define", str(definition))
    assert str(old) in lab.virsh("dumpxml", "--inactive", "small").text


def test_a_guest_that_runs_is_restored_in_its_place(small: Paused, repository: str, tmp_path: Path, lab: InLab) -> None:
    small.write("root", 65, 1 << 20, 1 << 20)
    small.write("data1", 66, 0, 1 << 20)
    instant = small.hashes()
    where = ("--repository", repository)
    done = vmhost("backup", "run", "small", *where)
    assert done.code == 0, told(done)
    small.write("root", 67, 0, 8 << 20)
    small.flush()
    later = small.hashes()
    note_a_file_below(small, lab, tmp_path)
    before = small.pid()

    done = vmhost("backup", "restore", "small", "--in-place", "--power-off", "--yes", *where)
    assert done.code == 0, told(done)
    assert lab.virsh("domstate", "small").text.strip() == "running"
    assert small.pid() != before

    # what the guest sees by now, read through QEMU that runs: a full copy
    done = vmhost("backup", "run", "small", *where)
    assert done.code == 0, told(done)
    assert "full, because its checkpoint is gone" in told(done)
    point = vmhost("backup", "list", "small", *where, "-o", "name").text.split()[-1]
    assert held_by_point(repository, point, small, tmp_path) == instant

    lab.virsh("destroy", "small")
    assert {disk: held(Path(path), tmp_path) for disk, path in small.files.items()} == instant
    kept = {disk: next(Path(path).parent.glob(f"{Path(path).name}.before-*")) for disk, path in small.files.items()}
    assert {disk: held(path, tmp_path) for disk, path in kept.items()} == later
