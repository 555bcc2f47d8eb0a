"""Hypervisors of other machines, and simulated ones, are for looking only: changes are refused and nothing is done."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.reliability.scene import VMHOST, apply, look, remove, site_file, told, vmhost
from vmhost.cli import diagnostics
from vmhost.drivers.command import Completed, run
from vmhost.ops.host import Host

pytestmark = pytest.mark.lab

SOCKET = "/run/libvirt/libvirt-sock"
SIMULATED = ("test:///default", f"test+unix:///default?socket={SOCKET}")
SSH = """#!{python}
# In the place of ssh: whatever the machine is called, the libvirtd of this one answers.
import os, socket, sys, threading

with socket.socket(socket.AF_UNIX) as there:
    there.connect({socket!r})

    def send() -> None:
        while data := os.read(0, 65536):
            there.sendall(data)
        os._exit(0)

    threading.Thread(target=send, daemon=True).start()
    while data := there.recv(65536):
        os.write(1, data)
"""


@pytest.fixture
def elsewhere(tmp_path: Path) -> str:
    """The lab's own hypervisor as another machine's: by SSH, on a server that the URI names."""
    ssh = tmp_path / "ssh"
    ssh.write_text(SSH.format(python=sys.executable, socket=SOCKET))
    ssh.chmod(0o755)
    return f"qemu+ssh://root@other.example/system?command={ssh}&proxy=netcat"


def at(uri: str, *words: str) -> Completed:
    return run([VMHOST, "-c", uri, *words], timeout=60, check=False)


def test_another_machines_guests_are_listed(real: Host, elsewhere: str, tmp_path: Path) -> None:
    apply(real, site_file(tmp_path, "shop", "web", state="stopped"))
    rows = json.loads(at(elsewhere, "guest", "list", "-o", "json").text)["data"]
    assert [row["name"] for row in rows] == ["web"]
    assert at(elsewhere, "guest", "show", "web").code == 0
    remove(real, "web")


@pytest.mark.parametrize(
    "words",
    [
        ("guest", "start", "web"),
        ("guest", "autostart", "web"),
        ("guest", "delete", "web", "--disks", "--yes"),
        ("apply", "{site}", "--yes"),
        ("image", "delete", "spare", "--yes"),
        ("image", "build", "debian-12"),
        ("image", "pull", "debian-12"),
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_another_machines_hypervisor_is_not_changed(
    real: Host, image: Path, elsewhere: str, tmp_path: Path, words: tuple[str, ...]
) -> None:
    apply(real, site_file(tmp_path, "shop", "web", state="stopped"))
    site = site_file(tmp_path, "shop", "web", "more", state="stopped")
    before, jobs = look(real), len(real.jobs())
    done = at(elsewhere, *(word.format(site=site) for word in words))
    assert done.code == diagnostics.REFUSED, told(done)
    assert "this hypervisor is on another machine: read-only from here" in told(done)
    assert "  try: ssh " in told(done)
    assert look(real) == before
    assert len(real.jobs()) == jobs
    assert image.exists()
    remove(real, "web")


@pytest.mark.parametrize("uri", SIMULATED)
@pytest.mark.parametrize("words", [("apply", "{site}", "--yes"), ("image", "delete", "tiny", "--yes")])
def test_a_simulated_hypervisor_makes_nothing_real(
    real: Host, image: Path, tmp_path: Path, uri: str, words: tuple[str, ...]
) -> None:
    networks = "{lan: {bridge: br-simulated, subnet: 10.97.0.0/24}}"
    site = site_file(tmp_path, "shop", "web", bridges="{br-simulated: }", networks=networks, state="stopped")
    before = look(real)
    done = at(uri, *(word.format(site=site) for word in words))
    assert done.code == diagnostics.REFUSED, told(done)
    assert "a simulated hypervisor is for looking only" in told(done)
    assert look(real) == before
    assert image.exists()
    assert vmhost("image", "verify", "tiny").code == 0
