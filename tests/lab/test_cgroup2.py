"""A lab on a kernel with cgroup version 2 only, mounted as systemd does (``nsdelegate``): User-Mode Linux has one."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.conftest import TOP
from vmhost.drivers import command

INIT = """\
#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
exec >{here}/log 2>&1
set -e
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t tmpfs tmpfs /run
mkdir -p /dev/shm /dev/pts /dev/net
mount -t tmpfs tmpfs /dev/shm; mount -t devpts devpts /dev/pts; mknod /dev/net/tun c 10 200
mkdir -p /run/kernel/lib/modules; mount --bind /usr/lib/uml/modules /run/kernel/lib/modules
for module in bridge veth tun; do modprobe --dirname /run/kernel $module; done
mount -t cgroup2 -o nsdelegate none /sys/fs/cgroup
export VMHOST_LAB_DIR=/run/labs HOME=/run/home PYTHONPATH={top} PYTHONDONTWRITEBYTECODE=1
{python} {here}/try.py || echo "exit code $?"
halt -f -p >/dev/null 2>&1
"""

TRY = """\
from pathlib import Path
from vmhost import lab
from vmhost.lab import cgroups

up = lab.up("two", bridge=True)
def sh(script, input=None):
    return lab.run_inside("two", ["sh", "-ec", script], timeout=100, input=input).text.split()

sh("virsh define /dev/stdin", Path("{here}/tiny.xml").read_bytes())
sh("virsh start --paused tiny")
print("quota", sh("cat /sys/fs/cgroup/machine/*tiny*/vcpu0/cpu.max"))
print("memory", sh("cat /sys/fs/cgroup/machine/*tiny*/memory.max"))
print("own", sh("cat /proc/self/cgroup"))
lab.restart_libvirtd("two", kill=True)
print("after", sh("virsh domstate tiny; virsh destroy tiny >&2; virsh start --paused tiny >&2; virsh domstate tiny"))
print("before", len(cgroups.left(up.directory)))
lab.down("two")
print("left", cgroups.left(up.directory), lab.labs())
"""


@pytest.fixture
def here() -> Iterator[Path]:
    """A directory that is on disk on both sides."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as path:
        yield Path(path)


@pytest.mark.uml
@pytest.mark.timeout(240)
def test_lab_on_cgroup_version_2(here, guest):
    text = Path(guest("tiny")).read_text()
    limit = "<memtune><hard_limit unit='MiB'>400</hard_limit></memtune>"
    (here / "tiny.xml").write_text(text.replace("<vcpu>", f"{limit}<vcpu>").replace("/var/log/libvirt", "/run"))
    (here / "try.py").write_text(TRY.format(here=here))
    (here / "init").write_text(INIT.format(here=here, top=TOP, python=sys.executable))
    (here / "init").chmod(0o755)
    shutil.copy("/dev/null", here / "log")
    machine = ["mem=1G", "rootfstype=hostfs", "root=/dev/root", "rootflags=/", "rw", "con=null", "con0=null,fd:1"]
    command.run(["linux.uml", *machine, f"init={here}/init"], timeout=200, check=False)
    told = (here / "log").read_text().splitlines()
    assert told == [
        "quota ['20000', '100000']",
        f"memory ['{400 << 20}']",
        "own ['0::/own']",
        "after ['paused', 'paused']",
        "before 1",
        "left () ()",
    ]
