"""An ordinary user: the system's hypervisor says no, the user's own does everything."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.labfixture import InLab
from vmhost.drivers.command import run

pytestmark = pytest.mark.lab

TOP = Path(__file__).parents[2]
NOBODY = 65534

LIVES = """
import json, os, stat, sys
from pathlib import Path
from vmhost.drivers.libvirt import connect
from vmhost.model.errors import PermissionDenied

told = {}
try:
    connect("qemu:///system")
except PermissionDenied as error:
    told["system"] = [error.subject, error.hint]
home = Path(os.environ["HOME"])
uuid = "5f0c3a5e-0000-4000-8000-000000000001"
with connect() as hypervisor:
    host = hypervisor.host()
    told["host"] = [host.uri, host.local, host.privileged]
    events = []
    hypervisor.subscribe(lambda event: events.append(event.kind))
    hypervisor.create_pool("disks", str(home / "disks"))
    hypervisor.create_volume("disks", "<volume><name>seed</name><capacity>4096</capacity>"
                             "<target><format type='raw'/></target></volume>")
    hypervisor.upload_volume("disks", "seed", b"secret")
    seed = home / "disks" / "seed"
    told["seed"] = [seed.read_bytes()[:6].decode(), stat.S_IMODE(seed.stat().st_mode), seed.stat().st_uid]
    hypervisor.define(f"<domain type='qemu'><name>own</name><uuid>{uuid}</uuid><memory unit='MiB'>32</memory>"
                      "<os><type>hvm</type></os><devices><disk type='file' device='disk'>"
                      f"<driver name='qemu' type='raw'/><source file='{seed}'/><target dev='vda' bus='virtio'/>"
                      "</disk></devices></domain>")
    hypervisor.start(uuid)
    told["state"] = hypervisor.domain(uuid).state
    hypervisor.power_off(uuid)
    hypervisor.undefine(uuid)
    hypervisor.delete_volume("disks", "seed")
    hypervisor.delete_pool("disks")
    told["left"] = [list(hypervisor.domains()), list(hypervisor.pools()), (home / "disks").exists()]
print(json.dumps(told))
"""


@pytest.fixture
def home() -> Iterator[Path]:
    """A home of a user without any privilege, where this user's libvirtd lives as long as the test."""
    path = Path(tempfile.mkdtemp(prefix="vmhost-user-", dir="/tmp"))
    os.chown(path, NOBODY, NOBODY)
    try:
        yield path
        os.kill(int((path / "run" / "libvirt" / "libvirtd.pid").read_text()), signal.SIGTERM)
    finally:
        shutil.rmtree(path, ignore_errors=True)


def test_a_user_without_privileges(lab: InLab, home: Path) -> None:
    (home / "run").mkdir(mode=0o700)
    os.chown(home / "run", NOBODY, NOBODY)
    words = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    places = {"HOME": str(home), "XDG_RUNTIME_DIR": str(home / "run")}
    done = run([*words, sys.executable, "-c", LIVES], timeout=60, cwd=TOP, env=places)
    assert done.stderr == b""
    assert json.loads(done.text) == {
        "system": ["qemu:///system", "sudo vmhost --connect qemu:///system host doctor"],
        "host": ["qemu:///session", True, False],
        "seed": ["secret", 0o600, NOBODY],
        "state": "running",
        "left": [[], [], False],
    }
    assert "own" not in lab.virsh("list", "--all", "--name").text
