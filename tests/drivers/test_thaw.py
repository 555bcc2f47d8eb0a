"""The script that thaws over SSH, run by a real shell with a stand-in for fsfreeze(8)."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from vmhost.render.parse.quiesce import HOOKS_ARGV, THAW_ARGV, TOLD

MOUNTS = r"""/dev/vda1 / ext4 rw 0 0
proc /proc proc rw 0 0
/dev/vdb1 /srv/a\040b ext4 rw 0 0
"""
FSFREEZE = """#!/bin/sh
echo "$2" >>"$SEEN"
case $2 in
    "$STUCK") echo "fsfreeze: $2: unfreeze failed: Input/output error" >&2; exit 1 ;;
    /) echo "fsfreeze: $2: unfreeze failed: Invalid argument" >&2; exit 1 ;;
esac
"""


@pytest.fixture
def thaw(tmp_path: Path) -> Path:
    """A directory with the mounts, and in ``bin`` the stand-in."""
    (tmp_path / "mounts").write_text(MOUNTS)
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "fsfreeze"
    program.write_text(FSFREEZE)
    program.chmod(0o755)
    return tmp_path


def run(place: Path, stuck: str = "-") -> subprocess.CompletedProcess[str]:
    shell, option, script = THAW_ARGV
    environment = {"PATH": f"{place}/bin", "SEEN": str(place / "seen"), "STUCK": stuck}
    text = script.replace("/proc/self/mounts", str(place / "mounts"))
    return subprocess.run([shell, option, text], env=environment, capture_output=True, text=True, check=False)


def test_every_file_system_on_a_device_is_thawed_and_one_that_is_not_frozen_is_no_failure(thaw: Path) -> None:
    done = run(thaw)
    assert (done.returncode, done.stderr) == (0, "")
    assert (thaw / "seen").read_text().splitlines() == ["/", "/srv/a b"]


def test_one_that_stays_frozen_is_a_failure_with_its_words(thaw: Path) -> None:
    done = run(thaw, stuck="/srv/a b")
    assert done.returncode == 1
    assert "Input/output error" in done.stderr


def test_a_guest_without_fsfreeze_is_not_thawed(thaw: Path) -> None:
    (thaw / "bin" / "fsfreeze").unlink()
    done = run(thaw)
    assert done.returncode == 1
    assert "there is no fsfreeze" in done.stderr


QEMUS_OWN = "#!/bin/sh\nfor each in /etc/qemu/fsfreeze-hook.d/*; do $each; done\n"


@pytest.mark.parametrize(
    ("hook", "beside", "told"),
    [
        (None, None, False),
        ("#!/bin/sh\n", None, True),
        ("#!/bin/sh\n", "", True),  # somebody's own in place of QEMU's, whose directory stays
        (QEMUS_OWN, None, False),
        (QEMUS_OWN, "", False),
        (QEMUS_OWN, "database", True),
    ],
)
def test_whether_programs_of_a_guest_are_told(tmp_path: Path, hook: str | None, beside: str | None, told: bool) -> None:
    if hook is not None:
        (tmp_path / "fsfreeze-hook").write_text(hook)
        (tmp_path / "fsfreeze-hook").chmod(0o755)
    if beside is not None:
        (tmp_path / "fsfreeze-hook.d").mkdir()
    if beside:
        (tmp_path / "fsfreeze-hook.d" / beside).touch(0o755)
    shell, option, script = HOOKS_ARGV
    done = subprocess.run([shell, option, script.replace("/etc/qemu", str(tmp_path))], capture_output=True, check=True)
    assert (done.stdout.strip() == TOLD) == told
