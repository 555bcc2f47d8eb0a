"""The version stands in one place, and everybody reads it there."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

import pytest


@pytest.fixture
def version(root: Path) -> str:
    """Return what vmhost/__init__.py says, without importing it."""
    text = (root / "vmhost" / "__init__.py").read_text(encoding="utf-8")
    (found,) = re.findall(r"^__version__ = \"([0-9.]+)\"$", text, re.MULTILINE)
    return str(found)


def _copies(folder: Path, version: str) -> list[str]:
    pattern = re.compile(rf"^\s*(__)?version(__)?\s*=\s*[\"']|(?<![\d.]){re.escape(version)}(?![\d.])")
    return [
        f"{path.relative_to(folder)}:{number}"
        for path in sorted(folder.rglob("*"))
        if path.suffix in {".py", ".toml", ".cfg"}
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]


def test_the_version_stands_in_one_place(root: Path, version: str, tmp_path: Path) -> None:
    assert [place.rpartition(":")[0] for place in _copies(root / "vmhost", version)] == ["__init__.py"]
    (tmp_path / "pyproject.toml").write_text((root / "pyproject.toml").read_text(encoding="utf-8"), encoding="utf-8")
    assert _copies(tmp_path, version) == []


def test_a_copy_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(
        '__version__ = "7"\naddress = "10.1.2.30"\nagent = "vmhost/1.2.3"\n', encoding="utf-8"
    )
    (tmp_path / "b.toml").write_text('version = "1"\ndynamic = ["version"]\n', encoding="utf-8")
    assert _copies(tmp_path, "1.2.3") == ["a.py:1", "a.py:3", "b.toml:1"]


def test_what_is_installed_says_the_same(version: str) -> None:
    assert importlib.metadata.version("vmhost") == version


def test_the_changelog_knows_it(root: Path, version: str) -> None:
    headings = re.findall(r"^## (.+)$", (root / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings
    assert headings[0].split(" ")[0] == version
