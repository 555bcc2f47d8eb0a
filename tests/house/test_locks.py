"""The locks hold exactly what pyproject.toml asks for: one version each, with hashes, from no named address."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

EXTRAS = {"runtime": (), "dev": ("dev", "metrics"), "docs": ("docs",)}
PYTHONS = ("3.11.2", "3.12.0", "3.13.5")


def _pins(lock: Path) -> list[tuple[Requirement, list[str]]]:
    """Return every pin with its hashes; anything else in the file is an error."""
    pins = []
    for block in lock.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        text, *hashes = re.split(r"\s+--hash=", block.strip())
        pins.append((Requirement(text), hashes))
    return pins


def _versions(lock: Path, python: str) -> dict[str, Version]:
    environment = {"python_full_version": python, "python_version": python.rpartition(".")[0], "sys_platform": "linux"}
    found: dict[str, Version] = {}
    for pin, _ in _pins(lock):
        if pin.marker and not pin.marker.evaluate(environment):
            continue
        name = canonicalize_name(pin.name)
        assert name not in found, f"{lock.name}: {name} twice on Python {python}"
        found[name] = Version(str(pin.specifier).removeprefix("=="))
    return found


@pytest.fixture
def project(root: Path) -> dict[str, Any]:
    """Return the table [project] of pyproject.toml."""
    found: dict[str, Any] = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return found


@pytest.mark.parametrize("name", ["build", *EXTRAS])
def test_every_pin_is_exact_and_hashed(root: Path, name: str) -> None:
    pins = _pins(root / "requirements" / f"{name}.txt")
    assert pins
    for pin, hashes in pins:
        assert re.fullmatch(r"==[0-9][0-9a-z.]*", str(pin.specifier)), pin
        assert pin.url is None
        assert hashes, f"{pin} has no hash"
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", one) for one in hashes), pin


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("name", list(EXTRAS))
def test_what_is_asked_for_is_locked(root: Path, project: dict[str, Any], name: str, python: str) -> None:
    wanted = list(project["dependencies"])
    for extra in EXTRAS[name]:
        wanted += project["optional-dependencies"][extra]
    versions = _versions(root / "requirements" / f"{name}.txt", python)
    for requirement in map(Requirement, wanted):
        version = versions.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement} is not in {name}.txt: run scripts/lock"
        assert version in requirement.specifier, f"{requirement}, but {name}.txt has {version}: run scripts/lock"


@pytest.mark.parametrize("python", PYTHONS)
def test_locks_agree(root: Path, python: str) -> None:
    dev = _versions(root / "requirements" / "dev.txt", python)
    for name in ("build", "runtime", "docs"):
        other = _versions(root / "requirements" / f"{name}.txt", python)
        assert {key: version for key, version in other.items() if dev.get(key, version) != version} == {}


def test_an_address_is_noticed(tmp_path: Path) -> None:
    lock = tmp_path / "bad.txt"
    lock.write_text("--index-url https://example.org/simple\n", encoding="utf-8")
    with pytest.raises(ValueError, match="--index-url"):
        _pins(lock)
