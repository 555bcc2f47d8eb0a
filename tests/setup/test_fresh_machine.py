"""Setting up a machine that has nothing yet: real trees of Debian 12 and 13, made for the test and thrown away."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = [pytest.mark.serial, pytest.mark.full, pytest.mark.timeout(1500)]

ROOT = Path(__file__).resolve().parents[2]
SERVICES = ("libvirt", "virt", "ssh")


def _inside(tree: Path, command: str) -> str:
    """Run a command in the tree, in namespaces of its own; its output, or the test fails."""
    script = (
        f"set -e; mount -t proc proc {tree}/proc; mount --rbind /dev {tree}/dev;"
        f"exec chroot {tree} env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin sh -c {command!r}"
    )
    done = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(params=["bookworm", "trixie"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return a small Debian with systemd as its init, and the set-up of this tree inside."""
    tree = tmp_path / "machine"
    command = ["mmdebstrap", "--quiet", "--variant=minbase", "--include=systemd-sysv", request.param, str(tree)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    shutil.copy("/etc/resolv.conf", tree / "etc" / "resolv.conf")
    for name in ("scripts", "requirements"):
        shutil.copytree(ROOT / name, tree / "vmhost" / name)
    return tree


def test_packages_install_and_nothing_starts(machine: Path) -> None:
    said = _inside(machine, "/vmhost/scripts/packages install test; echo left: /usr/sbin/policy-rc.d*; ps -e -o comm=")
    assert "left off:" in said
    assert "left: /usr/sbin/policy-rc.d*" in said
    assert not [line for line in said.splitlines() if line.strip() in {"libvirtd", "virtlogd", "sshd", "dnsmasq"}]
    enabled = _inside(machine, "systemctl list-unit-files --state=enabled --no-legend --no-pager").split()
    assert enabled
    assert not [unit for unit in enabled if unit.startswith(SERVICES)]
    assert _inside(machine, "/vmhost/scripts/packages missing test; /vmhost/scripts/packages install test") == ""
    _inside(machine, "which libvirtd virtlogd virsh qemu-img mmdebstrap nbdcopy syslinux sshd linux.uml")
    assert (machine / "usr/share/libvirt/schemas/domain.rng").is_file()
    assert not (machine / "usr/bin/cloud-init").exists()
