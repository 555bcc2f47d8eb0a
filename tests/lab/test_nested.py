"""Labs inside of labs; and labs of an ordinary user, who is made in a lab, where there is room for one."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.conftest import TOP
from vmhost import lab
from vmhost.drivers import command
from vmhost.drivers.command import Completed

pytestmark = pytest.mark.timeout(240)

NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="makes another user, for which it has to be root")

USER = "lab-user"
PREPARE = f"""
useradd --no-create-home --home-dir "$1" --shell /bin/sh {USER}
mount -t tmpfs -o mode=755 tmpfs /dev/net
mknod --mode 666 /dev/net/tun c 10 200
mount -t tmpfs -o mode=755 tmpfs /dev/shm
"""

TRY = """
import os, sys, time
from pathlib import Path
from vmhost import lab
from vmhost.drivers.command import run

assert os.getuid() != 0
up = lab.up("mine", bridge=True)
assert up.user and up.directory.is_relative_to(Path.home()), up
says = lambda script: lab.run_inside("mine", ["sh", "-ec", script], timeout=100).text
print(says(f"virsh define {sys.argv[1]}; virsh start tiny; id -u; ip -o link show master br-lab; virsh domstate tiny"))
assert "SeaBIOS" not in Path("/proc/self/mountinfo").read_text()
deadline = time.monotonic() + 60
while "SeaBIOS" not in says("cat /var/log/libvirt/tiny.log"):
    assert time.monotonic() < deadline
    time.sleep(0.1)
says("touch /var/lib/vmhost/of-another; chown 1000:1000 /var/lib/vmhost/of-another")
lab.restart_libvirtd("mine")
assert says("virsh domstate tiny").strip() == "running"
assert [(found.name, found.status) for found in lab.labs()] == [("mine", "ready")]
lab.down("mine")
assert lab.labs() == ()
assert not list(up.directory.parent.glob("*"))
assert "qemu-system" not in run(["ps", "ax", "-o", "comm="], timeout=9).text
print("all well")
"""


@pytest.fixture
def home() -> Iterator[Path]:
    """A home that other users may enter."""
    with tempfile.TemporaryDirectory() as path:
        Path(path).chmod(0o755)
        yield Path(path)


@pytest.mark.serial
def test_lab_in_a_lab(lab_root, vmhost):
    """Also with equal names, in equal places."""
    lab.up("box")
    inner = lambda *words: lab.run_inside("box", [*vmhost, "lab", *words], timeout=100)  # noqa: E731 - used thrice
    inner("up", "box")
    assert inner("list", "-o", "name").text == "box\n"
    inside = "cat /run/vmhost-lab; ls /sys/class/net; ls -A /var/lib/vmhost-lab; virsh list --name"
    assert inner("exec", "box", "--", "sh", "-ec", inside).text.split() == ["box", "lo"]
    assert [found.name for found in lab.labs()] == ["box"]
    inner("down", "box")
    assert lab.run_inside("box", ["virsh", "uri"], timeout=60).code == 0
    assert "libvirtd" in lab.run_inside("box", ["ps", "ax"], timeout=60).text


@pytest.mark.serial
def test_outer_lab_takes_the_inner_one_along(lab_root, vmhost, trace):
    seen = trace(lab.up("box"))
    lab.run_inside("box", [*vmhost, "lab", "up", "inner"], timeout=100)
    lab.down("box")
    assert seen.left() == []


def as_user(name: str, home: Path, *argv: str) -> Completed:
    enter = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--inh-caps=-all", "--"]
    clean = ["env", "--ignore-environment", f"HOME={home}", "PATH=/usr/bin:/bin", f"PYTHONPATH={TOP}"]
    return lab.run_inside(name, [*enter, *clean, f"--chdir={home}", *argv], timeout=150, check=False)


@NEEDS_ROOT
@pytest.mark.serial
def test_lab_of_an_ordinary_user(lab_root, home, guest, tmp_path):
    lab.up("outer")
    lab.run_inside("outer", ["sh", "-ec", PREPARE, "sh", str(home)], timeout=60)
    shutil.copy(guest("tiny"), home / "tiny.xml")
    text = (home / "tiny.xml").read_text()
    # Limits of the CPU are control groups, which a user's lab has not.
    lines = [line for line in text.splitlines() if "cputune" not in line]
    (home / "tiny.xml").write_text("\n".join(lines))
    lab.run_inside("outer", ["chown", "-R", f"{USER}:{USER}", str(home)], timeout=60)
    done = as_user("outer", home, sys.executable, "-c", TRY, str(home / "tiny.xml"))
    assert done.stderr.decode() == ""
    assert done.text.endswith("all well\n")
    assert "tap-tiny" in done.text


@NEEDS_ROOT
@pytest.mark.serial
@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        ("sed -i /^lab-user:/d /etc/subuid", "subordinate ids"),
        ("chmod 600 /dev/net/tun", "/dev/net/tun: not open to users"),
    ],
)
def test_user_who_cannot_have_a_lab_is_told_why(lab_root, home, spoil, told):
    lab.up("outer")
    lab.run_inside("outer", ["sh", "-ec", PREPARE + spoil, "sh", str(home)], timeout=60)
    lab.run_inside("outer", ["chown", "-R", f"{USER}:{USER}", str(home)], timeout=60)
    script = "from vmhost.cli.entry import main; main()"
    done = as_user("outer", home, sys.executable, "-c", script, "lab", "up")
    assert done.code == 5
    assert told in done.stderr.decode()
    assert "try: sudo" in done.stderr.decode()
    assert list(home.iterdir()) == []


@pytest.mark.lab
def test_tests_that_are_marked_run_in_a_lab(lab, other_lab):
    """The fixtures of tests/labfixture.py, at their work."""
    assert lab.virsh("uri").text.strip() == lab.uri
    before = Path("/run/libvirtd.pid").read_text()
    lab.restart_libvirtd(kill=True)
    assert Path("/run/libvirtd.pid").read_text() != before
    assert os.environ["VMHOST_LAB"] == lab.name
    done = command.run([sys.executable, "-c", "from vmhost.cli.entry import main; main()", "lab", "list", "-o", "name"],
                       timeout=60)  # fmt: skip
    assert done.text == f"{other_lab}\n"
