"""plugins/inlab.py: which runs go to a lab, and that they come back, however they end."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.lab.conftest import TOP
from tests.plugins.inlab import needs_lab
from vmhost import lab
from vmhost.drivers import command

TESTS = """
import os, time
from pathlib import Path
import pytest

def where(name):
    (Path(__file__).parent / name).write_text(os.environ.get("VMHOST_LAB", "outside"))

def test_plain():
    where("plain")

@pytest.mark.lab
def test_lab(lab):
    where("lab")
    assert lab.virsh("uri").text.strip() == "qemu:///system"

@pytest.mark.guest
def test_guest():
    where("guest")
    assert "FAIL" not in os.environ

@pytest.mark.backup
def test_backup():
    where("backup")
    if "HANG" in os.environ:
        time.sleep(50)
"""


pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize(
    ("expression", "answer"),
    [
        ("", None),
        ("lab", True),
        ("guest or backup", True),
        ("lab and not (guest or uml or backup or tui)", True),
        ("not (serial or lab or guest or uml or backup or tui)", False),
        ("serial and not (lab or guest or uml or backup or tui)", False),
        ("not lab", None),
        ("uml", None),
        ("not (lab or guest or backup)", False),
    ],
)
def test_what_a_marker_expression_needs(expression, answer):
    assert needs_lab(expression) is answer


@pytest.fixture
def suite(tmp_path, lab_root) -> list[str]:
    """A command line of pytest over four small tests."""
    (tmp_path / "suite").mkdir()
    (tmp_path / "suite" / "test_it.py").write_text(TESTS)
    (tmp_path / "suite" / "pytest.ini").write_text(
        "[pytest]\nmarkers =\n lab: x\n guest: x\n backup: x\naddopts = -p tests.plugins.inlab -p tests.labfixture\n"
    )
    return [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(tmp_path / "suite")]


def places(tmp_path: Path) -> dict[str, str]:
    files = [path for path in (tmp_path / "suite").iterdir() if path.is_file() and "." not in path.name]
    return {path.name: "lab" if path.read_text().startswith("tests-") else path.read_text() for path in files}


@pytest.mark.serial
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], {"plain": "lab", "lab": "lab", "guest": "lab", "backup": "lab"}),
        (["-m", "lab"], {"lab": "lab"}),
        (["-m", "guest or backup", "-n", "2"], {"guest": "lab", "backup": "lab"}),
        (["-n", "2"], {"plain": "lab", "lab": "lab", "guest": "lab", "backup": "lab"}),
        (["-m", "not (lab or guest or backup)"], {"plain": "outside"}),
        (["-k", "plain"], {"plain": "outside"}),
        (["-k", "plain", "-n", "2"], {"plain": "outside"}),
        (["-k", "guest or plain", "--no-lab"], {"plain": "outside", "guest": "outside"}),
        (["-m", "not lab", "-k", "guest"], {"guest": "lab"}),
    ],
)
def test_which_tests_run_where(suite, tmp_path, options, expected):
    done = command.run([*suite, *options], timeout=200, check=False, cwd=TOP)
    assert done.code == 0, done.text
    assert f"{len(expected)} passed" in done.text
    assert places(tmp_path) == expected
    assert lab.labs() == ()


@pytest.mark.serial
def test_two_labs_share_full_guests_and_backups(suite, tmp_path):
    assert command.run([*suite, "-m", "guest or backup"], timeout=200, cwd=TOP).code == 0
    names = [(tmp_path / "suite" / name).read_text() for name in ("guest", "backup")]
    assert len(set(names)) == 2
    assert lab.labs() == ()


@pytest.mark.serial
def test_failure_is_handed_on(suite, monkeypatch):
    monkeypatch.setenv("FAIL", "1")
    done = command.run([*suite, "-m", "lab or guest"], timeout=200, check=False, cwd=TOP)
    assert done.code == 1
    assert "1 failed, 1 passed" in done.text
    assert lab.labs() == ()


@pytest.mark.serial
def test_nothing_is_brought_up_for_a_listing(suite, lab_root):
    done = command.run([*suite, "--collect-only", "-q"], timeout=200, check=False, cwd=TOP)
    assert "test_lab" in done.text
    assert not lab_root.exists()


@pytest.mark.serial
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 2), (signal.SIGTERM, 128 + 15)])
def test_interrupted_run_takes_its_lab_down(suite, tmp_path, monkeypatch, number, code):
    monkeypatch.setenv("HANG", "1")
    with command.spawn([*suite, "-m", "backup"], cwd=TOP, log=tmp_path / "log") as child:
        wait_for(tmp_path / "suite" / "backup")
        # Ctrl-C goes to all of a terminal's process group, a service manager's SIGTERM to the first process.
        if number == signal.SIGINT:
            os.killpg(child.pid, number)
        else:
            os.kill(child.pid, number)
        assert child.wait(100) == code, (tmp_path / "log").read_text()
    assert lab.labs() == ()


@pytest.mark.serial
def test_killed_run_is_swept_up_by_the_next(suite, tmp_path, monkeypatch):
    monkeypatch.setenv("HANG", "1")
    with command.spawn([*suite, "-m", "backup"], cwd=TOP) as child:
        wait_for(tmp_path / "suite" / "backup")
        os.kill(child.pid, signal.SIGKILL)
        child.wait(30)
    (left,) = lab.labs()
    assert left.status == "ready"
    monkeypatch.delenv("HANG")
    assert command.run([*suite, "-m", "lab"], timeout=200, cwd=TOP).code == 0
    assert lab.labs() == ()


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 100
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
