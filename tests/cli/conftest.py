from __future__ import annotations

import io
from pathlib import Path

import pytest

from tests.cli.session import Terminal


@pytest.fixture
def terminal(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Return a shell without a terminal, in a directory of its own, on a demonstration host that is kept in a file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VMHOST_FAKE_STATE", str(tmp_path / "host.json"))
    monkeypatch.setenv("SUDO_USER", "ann")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))
    return Terminal(capfd, tmp_path)
