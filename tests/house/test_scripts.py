"""The scripts behind make: they parse, they explain themselves, and they refuse cleanly."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SHELL = (".ci/run", "scripts/demo", "scripts/lock", "scripts/packages", "scripts/setup")


def _run(*command: str, cwd: Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ}
    if path:
        environment["PATH"] = f"{path}{os.pathsep}{environment['PATH']}"
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )


@pytest.mark.parametrize("name", SHELL)
def test_shell_scripts_parse_and_stop_at_errors(root: Path, name: str) -> None:
    assert os.access(root / name, os.X_OK)
    assert _run("sh", "-n", name, cwd=root).returncode == 0
    text = (root / name).read_text(encoding="utf-8")
    assert text.startswith("#!/bin/sh\n")
    assert "\nset -eu\n" in text


def test_continuous_integration_runs_make_test(root: Path) -> None:
    assert "make --no-print-directory test" in (root / ".ci" / "run").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["scripts/setup", "scripts/packages"])
def test_wrong_usage_prints_the_usage(root: Path, name: str) -> None:
    done = _run(name, "everything", cwd=root)
    assert done.returncode == 2
    assert f"{name} " in done.stderr
    assert done.stdout == ""


def test_packages_are_known_and_never_cloud_init(root: Path) -> None:
    run = _run("scripts/packages", "list", "run", cwd=root).stdout.split()
    test = _run("scripts/packages", "list", "test", cwd=root).stdout.split()
    assert {"libvirt-daemon", "qemu-system-x86", "mmdebstrap"} <= set(run) < set(test)
    assert len(test) == len(set(test))
    assert not [name for name in test if name.startswith("cloud-init")]
    assert _run("scripts/packages", "missing", "test", cwd=root).stdout == ""


@pytest.fixture
def bare(root: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Return a copy of the set-up, and a folder of programs that play a bare machine and a user without rights."""
    tree = tmp_path / "tree"
    shutil.copytree(root / "scripts", tree / "scripts")
    shutil.copytree(root / "requirements", tree / "requirements")
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, body in {"dpkg-query": "echo installed make", "id": "echo 1000", "sudo": "exit 1"}.items():
        (programs / name).write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
        (programs / name).chmod(0o755)
    return tree, programs


def test_without_rights_the_one_line_to_run_is_printed(bare: tuple[Path, Path]) -> None:
    tree, programs = bare
    done = _run("scripts/setup", "run", cwd=tree, path=programs)
    assert done.returncode == 5
    assert done.stderr.splitlines() == [
        f"setup: this needs root once; run:  su -c '{tree}/scripts/packages install run'"
    ]
    assert not (tree / ".venv").exists()


def test_packages_are_not_installed_without_root(bare: tuple[Path, Path]) -> None:
    tree, programs = bare
    done = _run("scripts/packages", "install", "run", cwd=tree, path=programs)
    assert done.returncode == 5
    assert "needs root" in done.stderr


def test_only_what_is_missing_is_missing(bare: tuple[Path, Path]) -> None:
    tree, programs = bare
    wanted = _run("scripts/packages", "list", "run", cwd=tree).stdout.split()
    missing = _run("scripts/packages", "missing", "run", cwd=tree, path=programs).stdout.split()
    assert missing == sorted(set(wanted) - {"make"})
