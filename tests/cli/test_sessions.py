"""Golden sessions: every command's stdout, stderr and exit code, one after the other on one host.

``VMHOST_UPDATE_GOLDEN=1 pytest tests/cli`` writes them anew.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.cli.session import Terminal

SESSIONS = Path(__file__).parent / "sessions"
NAMES = sorted(path.stem for path in SESSIONS.glob("*.txt"))


@pytest.mark.parametrize("name", NAMES)
def test_the_session_goes_as_agreed(name: str, terminal: Terminal) -> None:
    path = SESSIONS / f"{name}.txt"
    agreed = path.read_text(encoding="utf-8")
    now = terminal.replay(agreed)
    if os.environ.get("VMHOST_UPDATE_GOLDEN") == "1":
        path.write_text(now, encoding="utf-8")
        return
    assert now == agreed, f"{path}; VMHOST_UPDATE_GOLDEN=1 writes it anew"
