"""An ordinary user, without any rights on the host, gets a guest on QEMU's user network and enters it by SSH."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.guest.conftest import ROOT, VMHOST
from tests.labfixture import InLab
from vmhost.drivers.command import Completed, run

pytestmark = [pytest.mark.guest, pytest.mark.timeout(900)]

NOBODY = 65534
SITE = ROOT / "examples" / "ordinary-user.yaml"
Typed = Callable[..., Completed]


@pytest.fixture
def as_user(lab: InLab, image: str) -> Iterator[Typed]:
    """Run the command line as a user of no groups, with a home and a session libvirtd of its own."""
    del lab, image
    home = Path(tempfile.mkdtemp(prefix="vmhost-user-", dir="/tmp"))
    (home / "run").mkdir()
    for path in (home, home / "run"):
        os.chown(path, NOBODY, NOBODY)
        path.chmod(0o700)
    words = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", VMHOST, "-c", "qemu:///session")
    places = {
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(home / "run"),
        "VMHOST_IMAGES_DIR": "/var/lib/vmhost/images",
    }

    def typed(*arguments: str, check: bool = True, timeout: float = 60) -> Completed:
        return run((*words, *arguments), timeout=timeout, check=check, env=places, cwd=ROOT)

    try:
        yield typed
        os.kill(int((home / "run" / "libvirt" / "libvirtd.pid").read_text()), signal.SIGTERM)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def test_a_guest_of_ones_own(as_user: Typed) -> None:
    applied = as_user("apply", str(SITE), "--yes", timeout=800)
    assert "scratch: cloud-init done" in applied.stderr.decode()
    assert as_user("guest", "exec", "scratch", "--", "id", "-un").text.strip() == "vmhost"
    assert "127.0.0.1:22" in as_user("guest", "list").text
    assert as_user("drift", str(SITE)).code == 0
    as_user("guest", "delete", "scratch", "--power-off", "--disks", "--yes", timeout=120)
    assert "scratch" not in as_user("guest", "list").text
