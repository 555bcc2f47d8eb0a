"""Labs under a directory of the test's own, and witnesses that nothing of them stays."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from vmhost import lab
from vmhost.lab import cgroups
from vmhost.lab.store import Lab

TOP = Path(lab.__file__).parents[2]
SPACES = ("mnt", "net", "pid", "cgroup")

Up = Callable[..., Lab]


@pytest.fixture
def lab_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory for labs; every lab that a test leaves there is ended."""
    root = tmp_path / "labs"
    monkeypatch.setenv("VMHOST_LAB_DIR", str(root))
    monkeypatch.setenv("VMHOST_IMAGE_CACHE", str(tmp_path / "images"))
    monkeypatch.setenv("PYTHONPATH", str(TOP))
    yield root
    for directory in sorted(root.iterdir()) if root.exists() else []:
        with suppress(Exception):
            lab.down(directory.name)


@dataclass(frozen=True)
class Trace:
    """What a lab is made of, noted while it lives."""

    lab: Lab
    spaces: frozenset[str]

    def left(self) -> list[str]:
        """What is still there: processes, mounts in any namespace, control groups, files."""
        found = [f"directory {self.lab.directory}"] if self.lab.directory.exists() else []
        found += [f"group {group}" for group in cgroups.left(self.lab.directory)]
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                for space in SPACES:
                    if str((process / "ns" / space).readlink()) in self.spaces:
                        found.append(f"process {process.name} in the lab's {space}")
                if self.lab.source in (process / "mountinfo").read_text():
                    found.append(f"mounts in the namespace of {process.name}")
        return found


@pytest.fixture
def trace() -> Callable[[Lab], Trace]:
    """Note what a lab is made of."""

    def note(found: Lab) -> Trace:
        inside = {str(Path(f"/proc/{found.pid}/ns/{space}").readlink()) for space in SPACES}
        ours = {str(Path(f"/proc/self/ns/{space}").readlink()) for space in SPACES}
        assert not inside & ours
        return Trace(found, frozenset(inside))

    return note


@pytest.fixture
def machine() -> Callable[[], dict[str, object]]:
    """Tell how the machine is, as far as a lab could have changed it."""

    def tell() -> dict[str, object]:
        gc.collect()  # files that others before us have left to it
        places = [
            "/etc/libvirt",
            "/etc/vmhost",
            "/var/lib/libvirt",
            "/var/lib/vmhost",
            "/var/log/libvirt",
            "/run/libvirt",
        ]
        files = {
            place: sorted(str(path) for path in Path(place).rglob("*")) if Path(place).exists() else None
            for place in places
        }
        mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if "vmhost-lab" in line]
        children = [
            process.name
            for process in Path("/proc").glob("[0-9]*")
            if (process / "stat").exists() and _parent(process) == os.getpid()
        ]
        return {
            "files": files,
            "mounts": mounts,
            "links": sorted(path.name for path in Path("/sys/class/net").iterdir()),
            "children": children,
            "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        }

    return tell


def _parent(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


@pytest.fixture
def vmhost() -> list[str]:
    """The command line of vmhost."""
    return [sys.executable, "-c", "from vmhost.cli.entry import main; main()"]


GUEST = """\
<domain type='qemu'>
  <name>{name}</name>
  <memory unit='MiB'>64</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type><bios useserial='yes'/></os>
  <cputune><vcpupin vcpu='0' cpuset='0'/><period>100000</period><quota>20000</quota></cputune>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <serial type='pty'><log file='/var/log/libvirt/{name}.log'/></serial>
    <interface type='bridge'><source bridge='br-lab'/><target dev='tap-{name}'/></interface>
  </devices>
</domain>
"""


@pytest.fixture
def guest(tmp_path: Path) -> Callable[[str], str]:
    """Write the domain XML of a guest without disks, whose firmware speaks on the serial console."""

    def write(name: str) -> str:
        path = tmp_path / f"{name}.xml"
        path.write_text(GUEST.format(name=name))
        return str(path)

    return write
