"""Who may import whom: the contracts of pyproject.toml hold, and each of them can break."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

LINT = Path(sys.executable).with_name("lint-imports")

# One forbidden line for each contract: the file that gets it, the line, the contract that has to notice.
BREACHES = (
    ("model/units.py", "import vmhost.plan", "model"),
    ("model/steps.py", "import pydantic", "model-pydantic"),
    ("render/domain.py", "import vmhost.ports", "render"),
    ("plan/guest.py", "import vmhost.drivers.command", "plan"),
    ("plan/links.py", "import time", "pure"),
    ("ports.py", "import vmhost.render", "ports"),
    ("netports.py", "import vmhost.drivers.net", "ports"),
    ("snapports.py", "import vmhost.drivers.net", "ports"),
    ("backupports.py", "import vmhost.drivers.net", "ports"),
    ("drivers/net.py", "import vmhost.plan", "drivers"),
    ("engine/apply.py", "import vmhost.drivers.command", "engine"),
    ("lab/up.py", "import vmhost.drivers.net", "lab"),
    ("ops/host.py", "import vmhost.cli", "ops"),
    ("helpers/hook.py", "import vmhost.render.domain", "helpers"),
    ("helpers/thaw.py", "import vmhost.model.spec.guest", "helpers-pydantic"),
    ("cli/main.py", "import vmhost.engine.apply", "cli"),
    ("tui/app.py", "import vmhost.cli.main", "tui"),
    ("testing/fake.py", "import vmhost.drivers.net", "testing"),
    ("ops/sites.py", "def late():\n    import libvirt", "foreign"),
    ("drivers/files.py", "from subprocess import run", "programs"),
    ("testing/host.py", "import click", "click"),
    ("cli/guest.py", "import textual.app", "textual"),
)

# What the table allows must not be noticed.
ALLOWED = (
    ("model/spec/guest.py", "import pydantic"),
    ("drivers/command.py", "import subprocess\nimport vmhost.ports"),
    ("lab/down.py", "import vmhost.drivers.command"),
    ("helpers/confirm.py", "import vmhost.render.parse.domain, vmhost.drivers.net"),
    ("testing/world.py", "import vmhost.render.parse.domain, vmhost.ports"),
    ("ops/plans.py", "import vmhost.drivers.net, vmhost.engine.apply, vmhost.lab.up, vmhost.testing.fake"),
    ("cli/table.py", "import vmhost.ops.plans, vmhost.model, click"),
    ("tui/rows.py", "import vmhost.ops.plans, textual"),
)

# Beyond the standard library: the table's last words for each room.
LIBRARIES = {
    "model": {"pydantic", "pydantic_core"},
    "render": {"jinja2", "lxml", "jsonschema", "markupsafe", "referencing"},
    "plan": {"pydantic"},  # what is wrong with a spec that was put together from defaults and profiles
    "ports.py": set(),
    "netports.py": set(),
    "snapports.py": set(),
    "backupports.py": set(),
    "drivers": {
        *{"libvirt", "libvirt_qemu", "libvirtaio", "pyroute2", "paramiko", "pycdlib", "requests", "inotify_simple"},
        *{"stamina", "filelock", "cryptography", "platformdirs", "lxml"},
    },
    "engine": {"pydantic"},  # journals are read back into typed steps
    "lab": set(),
    "ops": {
        "pydantic",
        "pydantic_core",
        "pydantic_settings",
        "ruamel",
        "platformdirs",
        "structlog",
        "prometheus_client",
    },
    "helpers": set(),
    "cli": {"click", "rich", "structlog", "ruamel"},
    "tui": {"textual", "rich", "structlog"},
    "testing": {"lxml", "cryptography"},
    "data": set(),
    "__init__.py": set(),
}


def _lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(LINT), "--config", "pyproject.toml", "--no-cache"]
    environment = {**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "200"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def _contracts(root: Path) -> list[dict[str, str]]:
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    contracts: list[dict[str, str]] = settings["tool"]["importlinter"]["contracts"]
    return contracts


def _write(house: Path, name: str, text: str) -> None:
    path = house / "vmhost" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    for folder in (path.parent, *path.parent.parents):
        if folder == house:
            break
        (folder / "__init__.py").touch()
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{text}\n")


@pytest.fixture
def house(root: Path, tmp_path: Path) -> Path:
    """Return a small house with all the rooms, in which every arrow of the table is used."""
    (tmp_path / "pyproject.toml").write_text((root / "pyproject.toml").read_text(encoding="utf-8"), encoding="utf-8")
    for room in ("cli", "data", "drivers", "engine", "helpers", "lab", "model", "ops", "plan", "testing", "tui"):
        _write(tmp_path, f"{room}/__init__.py", "")
    _write(tmp_path, "render/parse/domain.py", "import vmhost.model")
    for name, line in ALLOWED:
        _write(tmp_path, name, line)
    for name, _, _ in BREACHES:
        _write(tmp_path, name, "")
    return tmp_path


def test_the_contracts_hold(root: Path) -> None:
    done = _lint(root)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_table_allows_what_it_allows(house: Path) -> None:
    done = _lint(house)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_contract_can_break(house: Path, root: Path) -> None:
    for name, line, _ in BREACHES:
        _write(house, name, line)
    done = _lint(house)
    assert done.returncode == 1, done.stdout + done.stderr
    names = {contract["id"]: contract["name"] for contract in _contracts(root)}
    assert {contract for _, _, contract in BREACHES} == set(names)
    assert {key for key, name in names.items() if f"{name} KEPT" in done.stdout} == set()


def _roots(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


def _strangers(package: Path) -> list[str]:
    found = []
    for path in sorted(package.rglob("*.py")):
        room = path.relative_to(package).parts[0]
        known = LIBRARIES.get(room, set()) | sys.stdlib_module_names | {"vmhost"}
        found += [f"{path.relative_to(package)}: {name}" for name in _roots(path) if name not in known]
    return found


def test_rooms_use_only_their_libraries(root: Path) -> None:
    assert _strangers(root / "vmhost") == []


def test_a_strange_library_is_noticed(house: Path) -> None:
    _write(house, "plan/guest.py", "def late():\n    from lxml import etree")
    _write(house, "attic/box.py", "import requests")
    assert _strangers(house / "vmhost") == ["attic/box.py: requests", "plan/guest.py: lxml"]
