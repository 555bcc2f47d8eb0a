"""Where the process of the command line begins and ends: a listing should cost little more than what it imports."""

from __future__ import annotations

import gc
import sys

PATIENCE = 20_000
"""New objects between two looks for garbage; imports make thousands that all stay (Python's own: 700)."""


def main() -> None:
    """Run the command line and end the process with its exit code."""
    gc.set_threshold(PATIENCE)
    from vmhost.cli.main import run

    code = run(sys.argv[1:])
    gc.freeze()  # what is alive ends with the process: there is nothing to look through
    sys.exit(code)
