"""Where the tree stands, and vmhost as a user installs it."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the top of the tree."""
    return Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def tree(root: Path) -> tuple[Path, ...]:
    """Return every text file that belongs to the project: known to git, or new and not ignored."""
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        check=True,
    )
    paths = (root / name.decode() for name in listed.stdout.split(b"\0") if name)
    return tuple(sorted(path for path in paths if path.is_file() and b"\0" not in path.read_bytes()[:8192]))


def _must(*command: str, cwd: Path) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"


@pytest.fixture(scope="session")
def installed_python(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the interpreter of an empty environment into which only vmhost's wheel was installed.

    The environment sees the dependencies of this one, but not the tree: what the wheel lacks is missing.
    """
    work = tmp_path_factory.mktemp("wheel")
    _must(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(work), cwd=root)
    (wheel,) = work.glob("*.whl")
    home = work / "venv"
    _must(sys.executable, "-m", "venv", "--without-pip", str(home), cwd=work)
    python = home / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index")
    _must(*pip, str(wheel), cwd=work)
    # A path file names this environment's packages; the path files in there, which lead to the tree, are not followed.
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    beside = home / "lib" / version / "site-packages" / "dependencies.pth"
    beside.write_text(f"{sysconfig.get_path('purelib')}\n", encoding="utf-8")
    return python
