"""Whole Debian guests come back in drills: by BIOS and by UEFI, over SSH with the host key that they always had."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.guest.conftest import DEMO, Booted, vmhost
from tests.labfixture import InLab

pytestmark = [pytest.mark.guest, DEMO, pytest.mark.full, pytest.mark.timeout(1500)]


@pytest.mark.parametrize("name", ["web-01", "db-01"])
def test_a_whole_guest_comes_back_beside_itself(booted: Booted, lab: InLab, tmp_path: Path, name: str) -> None:
    del booted
    where = ("--repository", str(tmp_path / "repository"))
    vmhost("backup", "run", name, *where, timeout=300)
    before = lab.virsh("list", "--all", "--name").text, sorted(Path("/sys/class/net").iterdir())
    done = vmhost("backup", "drill", name, *where, check=False, timeout=900)
    assert done.code == 0, done.stderr.decode()
    assert "it came back" in done.text
    assert "wait for SSH with its own host key" in done.stderr.decode()
    assert (lab.virsh("list", "--all", "--name").text, sorted(Path("/sys/class/net").iterdir())) == before
    assert list(Path("/run/netns").glob("vmhost-*")) == []
    vmhost("guest", "exec", name, "--", "true")
