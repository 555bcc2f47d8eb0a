"""The manual's sessions go as they are written, and its Python runs.

``VMHOST_UPDATE_GOLDEN=1 pytest tests/cli`` writes the sessions anew.
"""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from tests.cli.transcript import Player, same
from tests.manual import blocks, pages
from vmhost.model.errors import SpecError
from vmhost.ops.sites import parse_site

REPLAYED = [page for page in pages() if "<!-- replay -->" in page.read_text(encoding="utf-8")]
PYTHON = [page for page in pages() if "```python" in page.read_text(encoding="utf-8")]


@pytest.fixture
def player(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Player:
    """Return a player in a directory of its own, on a demonstration host that is kept in a file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VMHOST_FAKE_STATE", str(tmp_path / "host.json"))
    monkeypatch.setenv("SUDO_USER", "ann")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))
    return Player(tmp_path)


@pytest.mark.parametrize("page", REPLAYED, ids=lambda page: page.stem)
def test_the_sessions_go_as_they_are_written(page: Path, player: Player) -> None:
    written = page.read_text(encoding="utf-8")
    now = player.page(written)
    if os.environ.get("VMHOST_UPDATE_GOLDEN") == "1":
        page.write_text(now, encoding="utf-8")
        return
    assert now == written, f"{page}; VMHOST_UPDATE_GOLDEN=1 writes it anew"


def test_pages_with_sessions_are_found() -> None:
    assert {"first-guests", "plans", "guests"} <= {page.stem for page in REPLAYED}
    assert "python" in {page.stem for page in PYTHON}


def test_a_session_that_goes_otherwise_is_found(player: Player) -> None:
    page = "<!-- replay -->\n```console\n$ vmhost guest show web-11\n{}\n$ echo $?\n3\n```\n"
    true = "vmhost: web-11: there is no such guest; did you mean web-01?\n  try: vmhost guest list"
    assert player.page(page.format(true)) == page.format(true)
    assert player.page(page.format("all is well")) == page.format(true)


def test_what_differs_from_run_to_run_is_equal() -> None:
    assert same("vmhost apply a", "[ 1/2] b: start  (3.1 s)\n[ 2/2] c\n", "[ 2/2] c\n[ 1/2] b: start  (0.2 s)\n")
    assert same("vmhost apply a", "...\n[ 2/2] c\n", "[ 1/2] b: start  (0.2 s)\n[ 2/2] c\n")
    assert same("vmhost job list", "x\n...\n", "x\n20260101T000000-abcdef  y\nz\n")
    assert same(
        "vmhost plan a",
        "a: 2 steps done in 1.0 s; x: cloud-init done; y: cloud-init done\n",
        "a: 2 steps done in 2.0 s; y: cloud-init done; x: cloud-init done\n",
    )
    assert not same("vmhost apply a", "...\n[ 2/2] d\n", "[ 1/2] b\n[ 2/2] c\n")
    assert not same("vmhost job list", "x\n...\ny\n", "x\nz\n")
    assert not same("vmhost job list", "x\n", "x\nz\n")


def test_whole_site_files_of_the_manual_are_valid() -> None:
    """The faulty one shows what a fault looks like, and its session is replayed."""
    sites = [
        (page.stem, block.text)
        for page in pages()
        for block in blocks(page.read_text(encoding="utf-8"))
        if block.language == "yaml" and block.text.startswith("apiVersion")
    ]
    assert len(sites) > 10
    faulty = []
    for name, text in sites:
        try:
            parse_site(text)
        except SpecError:
            faulty.append(name)
    assert faulty == ["site-file"]


@pytest.mark.parametrize("page", PYTHON, ids=lambda page: page.stem)
def test_the_python_of_the_manual_runs(page: Path, player: Player) -> None:
    names: dict[str, object] = {}
    for block in blocks(page.read_text(encoding="utf-8")):
        if block.mark == "file":
            (player.directory / block.value).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            exec(compile(block.text, str(page), "exec"), names)
