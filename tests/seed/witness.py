"""Real cloud-init as a witness: its packages, unpacked into a cache of the user's own and never installed.

The dependencies come from the machine's own Debian release, cloud-init itself from any release that the machine's
mirror holds. What is run there only reads what it is given: ``schema``, ``devel net-convert``, and the code that merges
user-data.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock

from vmhost.drivers.command import Completed, run

LIBRARIES = """
attr chardet charset-normalizer certifi configobj debconf idna jinja2 json-pointer jsonpatch jsonschema markupsafe
netifaces oauthlib pyrsistent requests serial six urllib3 yaml
"""
MAIN = "import sys; from cloudinit.cmd.main import main; sys.argv[0] = 'cloud-init'; sys.exit(main())"
PYTHON = "/usr/bin/python3"
PACKAGES = "usr/lib/python3/dist-packages"


@dataclass(frozen=True)
class CloudInit:
    """An unpacked cloud-init."""

    root: Path
    dependencies: Path

    def run(self, *argv: str, check: bool = True) -> Completed:
        """Run the command line of cloud-init."""
        return self._python(MAIN, *argv, check=check)

    def call(self, code: str, data: Any) -> Any:
        """Run Python code that finds ``data`` in ``given`` and leaves its answer in ``answer``; both travel as JSON."""
        program = f"import json, sys; given = json.load(sys.stdin)\n{code}\njson.dump(answer, sys.stdout)"
        return json.loads(self._python(program, stdin=json.dumps(data).encode()).stdout)

    def _python(self, code: str, *argv: str, stdin: bytes | None = None, check: bool = True) -> Completed:
        path = f"{self.root / PACKAGES}:{self.dependencies / PACKAGES}"
        env = {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONNOUSERSITE": "1"}
        return run([PYTHON, "-S", "-c", code, *argv], timeout=60, input=stdin, env=env, check=check)


@cache
def cloud_init(release: str) -> CloudInit:
    """Return the cloud-init of a Debian release (``bookworm``), unpacked on first use."""
    cache_dir = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vmhost-tests" / "cloud-init"
    cache_dir.mkdir(parents=True, exist_ok=True)
    with FileLock(cache_dir / "lock"):
        return CloudInit(
            _unpacked(cache_dir / release, ["cloud-init"], release),
            _unpacked(cache_dir / "dependencies", [f"python3-{name}" for name in LIBRARIES.split()]),
        )


def _unpacked(target: Path, packages: list[str], release: str = "") -> Path:
    if not (target / "complete").exists():
        target.mkdir(exist_ok=True)
        options = _private_apt(target, release) if release else ["-o", "APT::Sandbox::User="]
        run(["apt-get", *options, "-o", "Acquire::Retries=5", "download", *packages], timeout=120, cwd=target)
        for package in target.glob("*.deb"):
            run(["dpkg-deb", "-x", str(package), str(target)], timeout=60)
            package.unlink()
        (target / "complete").touch()
    return target


def _private_apt(target: Path, release: str) -> list[str]:
    """Return the options for apt with lists of its own, which know one release of the machine's mirror."""
    wanted = ["Created-By: Packages", "Origin: Debian", "Label: Debian"]
    mirror = run(["apt-get", "indextargets", "--format", "$(SITE)", *wanted], timeout=30).text.split()[0]
    keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
    (target / "apt" / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    (target / "apt" / "sources").mkdir(exist_ok=True)
    (target / "apt" / "sources" / "one.list").write_text(f"deb [signed-by={keyring}] {mirror} {release} main\n")
    pairs = {
        "Dir::Etc::sourcelist": "/dev/null",
        "Dir::Etc::sourceparts": str(target / "apt" / "sources"),
        "Dir::State::lists": str(target / "apt" / "lists"),
        "Dir::State::status": "/dev/null",
        "Dir::Cache": str(target / "apt"),
        "APT::Sandbox::User": "",
    }
    options = [word for key, value in pairs.items() for word in ("-o", f"{key}={value}")]
    # A list that cannot be had is only a warning otherwise (apt.conf(5), APT::Update::Error-Mode).
    strict = ("-o", "APT::Update::Error-Mode=any", "-o", "Acquire::Retries=5")
    run(["apt-get", *options, *strict, "update"], timeout=180)
    return options
