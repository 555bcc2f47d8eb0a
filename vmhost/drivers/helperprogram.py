"""The command lines of programs that no person types (:mod:`vmhost.helpers`)."""

from __future__ import annotations

import sys
from pathlib import Path

from vmhost.drivers.netunit import has_systemd


def helper_program(module: str, *words: str) -> list[str]:
    """Return the command line of a helper of this installation; it reads nothing of the environment of Python."""
    code = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); "
        f"from vmhost.helpers.{module} import main; sys.exit(main(sys.argv[1:]))"
    )
    return [sys.executable, "-I", "-c", code, str(Path(__file__).parents[2]), *words]


def beside_us(program: list[str], unit: str, description: str) -> list[str]:
    """Return the command line by which a program outlives our control group, where systemd has put us into one."""
    if not has_systemd():
        return program
    return [
        "systemd-run",
        "--quiet",
        "--collect",
        "--no-block",
        f"--unit={unit}",
        f"--description={description}",
        "--",
        *program,
    ]
