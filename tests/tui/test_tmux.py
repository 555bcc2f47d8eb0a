"""A real session in a real terminal: keys go in, screens are captured, and the shell is as it was afterwards."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.tui.tmux import VMHOST, Tmux

pytestmark = [pytest.mark.tui, pytest.mark.timeout(120)]


def test_a_session_from_start_to_end(tmux: Tmux) -> None:
    tmux.keys(f"{VMHOST} tui --demo", "Enter")
    tmux.shows("15 guests, 10 running", r"▸  build-01", r"\? help  q quit")
    tmux.keys("/", "web", "Enter")
    tmux.shows(r"▸  web-01")
    assert "db-01" not in tmux.screen
    tmux.keys("Enter")
    tmux.shows("10.20.0.11", "host key")
    tmux.keys("9")
    tmux.shows("login:")
    tmux.keys("S")
    tmux.shows(r"\$ vmhost guest stop web-01", "nothing is done yet")
    tmux.keys("y")
    tmux.shows("shut down web-01: done")
    tmux.keys("Escape")
    tmux.shows("9 Console")
    time.sleep(0.6)  # an escape right after another is taken for one key by terminals
    tmux.keys("Escape")
    tmux.shows("○ shut off", "9 running")
    tmux.keys("n")
    tmux.shows("new guest", "letters, digits")
    tmux.keys("web-09", "Enter")
    tmux.shows("vmhost guest create web-09", "nothing is done yet")
    tmux.keys("y")
    tmux.shows("new guest web-09: done")
    tmux.keys("q")
    tmux.shows("shell>$")
    tmux.keys("echo $?; stty -a | grep -c ' echo '", "Enter")
    tmux.shows(r"\n0\n1\nshell>")


@pytest.mark.parametrize("tmux", [(40, 10)], indirect=True)
def test_a_small_terminal_says_so_and_quits(tmux: Tmux) -> None:
    tmux.keys(f"{VMHOST} tui --demo", "Enter")
    tmux.shows("too small: 40x10", "it needs 60x15")
    tmux.keys("q")
    tmux.shows("shell>$")


def test_ctrl_c_and_a_resize(tmux: Tmux) -> None:
    tmux.keys(f"{VMHOST} tui --demo --theme ansi", "Enter")
    tmux.shows("15 guests")
    tmux.run("resize-window", "-x", "50", "-y", "12")
    tmux.shows("too small: 50x12")
    tmux.run("resize-window", "-x", "120", "-y", "40")
    tmux.shows(r"▸  build-01", "VLAN")
    tmux.keys("C-c")
    tmux.shows("shell>$")


def test_no_terminal_is_an_error_and_no_other_command_loads_the_toolkit(tmp_path: Path) -> None:
    done = subprocess.run(
        [VMHOST, "tui", "--demo"], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    assert done.returncode == 2
    assert "needs a terminal" in done.stderr
    assert "try: vmhost guest list" in done.stderr
    code = (
        "import sys; from vmhost.cli.main import run; run(['-c', 'fake:demo', 'guest', 'list']); run(['tui', '--help'])"
    )
    text = f"{code}; print([name for name in sys.modules if name.startswith('textual')])"
    listed = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert listed.stdout.splitlines()[-1] == "[]"
