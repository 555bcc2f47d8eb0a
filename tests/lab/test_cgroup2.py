"""A lab on a kernel with cgroup version 2 only, mounted as systemd does (``nsdelegate``)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from vmhost import lab
from vmhost.drivers import command
from vmhost.lab import cgroups
from vmhost.lab.store import Lab

NAME = "two"


@pytest.fixture
def nested(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """A lab inside of the lab whose kernel this is."""
    assert lab.inside()
    command.run(["mount", "-o", "remount,nsdelegate", "/sys/fs/cgroup"], timeout=20)
    monkeypatch.setenv("VMHOST_LAB_DIR", "/run/labs")
    yield lab.up(NAME, bridge=True)
    if lab.labs():
        lab.down(NAME)


def _told(script: str, text: bytes | None = None) -> list[str]:
    return lab.run_inside(NAME, ["sh", "-ec", script], timeout=100, input=text).text.split()


@pytest.mark.uml
@pytest.mark.timeout(240)
def test_lab_on_cgroup_version_2(nested: Lab, guest) -> None:
    limit = "<memtune><hard_limit unit='MiB'>400</hard_limit></memtune>"
    text = Path(guest("tiny")).read_text().replace("<vcpu>", f"{limit}<vcpu>")
    _told("virsh define /dev/stdin", text.encode())
    _told("virsh start --paused tiny")
    assert _told("cat /sys/fs/cgroup/machine/*tiny*/vcpu0/cpu.max") == ["20000", "100000"]
    assert _told("cat /sys/fs/cgroup/machine/*tiny*/memory.max") == [str(400 << 20)]
    assert _told("cat /proc/self/cgroup") == ["0::/own"]
    lab.restart_libvirtd(NAME, kill=True)
    again = "virsh domstate tiny; virsh destroy tiny >&2; virsh start --paused tiny >&2; virsh domstate tiny"
    assert _told(again) == ["paused", "paused"]
    assert len(cgroups.left(nested.directory)) == 1
    lab.down(NAME)
    assert cgroups.left(nested.directory) == ()
    assert lab.labs() == ()
