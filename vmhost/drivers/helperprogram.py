"""The command lines of programs that no person types (:mod:`vmhost.helpers`)."""

from __future__ import annotations

import os
import sys
import threading
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Final

from vmhost.drivers.command import run, spawn
from vmhost.drivers.netunit import has_systemd
from vmhost.model.errors import DriverError

ANSWER: Final = 5.0
"""Seconds that systemd has to say whether it starts a program."""


def helper_program(module: str, *words: str) -> list[str]:
    """Return the command line of a helper of this installation; it reads nothing of the environment of Python."""
    code = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); "
        f"from vmhost.helpers.{module} import main; sys.exit(main(sys.argv[1:]))"
    )
    return [sys.executable, "-I", "-c", code, str(Path(__file__).parents[2]), *words]


def start_beside_us(program: list[str], unit: str, description: str) -> None:
    """Start a program that outlives us, and our control group where systemd has put us into one and lets us out.

    :param unit: how the name of its unit begins. :raises DriverError: it cannot be started at all.
    """
    if has_systemd() and os.geteuid() == 0 and _starts_in_systemd(program, unit, description):
        return
    child = spawn(program)
    threading.Thread(target=child.reap, name=f"reap-{child.pid}", daemon=True).start()


def _starts_in_systemd(program: list[str], unit: str, description: str) -> bool:
    """Whether systemd starts a program as a unit of its own; it may be missing, busy or out of reach."""
    how = ("--quiet", "--collect", "--no-block", f"--unit={unit}-{uuid.uuid4().hex}", f"--description={description}")
    with suppress(DriverError):
        run(["systemd-run", *how, "--", *program], timeout=ANSWER)
        return True
    return False
