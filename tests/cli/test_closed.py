"""Directories that are closed to whoever types: a sentence, a command and exit code 5, whatever is asked for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from vmhost.cli import diagnostics
from vmhost.cli.main import run

SITE = """\
apiVersion: vmhost/v1
name: shop
guests: {web-01: {image: debian-12, memory: 512M, disks: [{size: 4G}]}}
"""
NOWHERE = "qemu+unix:///system?socket=/nonexistent/libvirt-sock"
SIMULATED = "test:///default"


@pytest.fixture
def closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that nobody may enter: for root, the kernel would make an exception."""
    place = tmp_path / "closed"

    def guarded(real: Any) -> Any:
        def call(path: Any, *arguments: Any, **named: Any) -> Any:
            if isinstance(path, str | os.PathLike) and os.fspath(path).startswith(str(place)):
                raise PermissionError(13, "Permission denied", os.fspath(path))
            return real(path, *arguments, **named)

        return call

    for name in ("stat", "lstat", "listdir", "scandir", "mkdir", "open", "access"):
        monkeypatch.setattr(os, name, guarded(getattr(os, name)))
    for what in ("STATE", "CONFIG", "RUNTIME", "IMAGES"):
        monkeypatch.setenv(f"VMHOST_{what}_DIR", str(tmp_path / "open" / what))
    (tmp_path / "site.yaml").write_text(SITE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return place / "within"


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("IMAGES", ("-c", SIMULATED, "image", "list")),
        ("IMAGES", ("-c", NOWHERE, "image", "build", "debian-12")),
        ("IMAGES", ("-c", NOWHERE, "image", "verify", "debian-12")),
        ("IMAGES", ("-c", SIMULATED, "plan", "site.yaml")),
        ("IMAGES", ("-c", SIMULATED, "host", "doctor")),
        ("CONFIG", ("-c", SIMULATED, "plan", "site.yaml")),
        ("STATE", ("-c", SIMULATED, "job", "list")),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value[2:4]),
)
def test_a_closed_directory(
    what: str, words: tuple[str, ...], closed: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(f"VMHOST_{what}_DIR", str(closed))
    assert run(list(words)) == diagnostics.UNREACHABLE
    out, told = capfd.readouterr()
    first, second = told.splitlines()[-2:]
    assert first.startswith(f"vmhost: {closed}")
    assert first.endswith(": permission denied")
    assert second.startswith("  try: ls -ld ")
    assert out == ""


def test_a_history_that_cannot_be_written_is_told_once(
    closed: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("VMHOST_STATE_DIR", str(closed))
    monkeypatch.setenv("VMHOST_IMAGES_DIR", str(closed / "images"))
    assert run(["-c", NOWHERE, "image", "build", "debian-12"]) == diagnostics.UNREACHABLE
    assert caplog.text.count("job history: ") == 1


def test_an_unforeseen_place_that_is_closed(capfd: pytest.CaptureFixture[str]) -> None:
    assert diagnostics.denied(PermissionError(13, "Permission denied", "/some where")) == diagnostics.UNREACHABLE
    told = capfd.readouterr().err
    assert told == "vmhost: /some where: permission denied\n  try: ls -ld '/some where' /\n"
