"""Tests that need a hypervisor run in a lab, however pytest was called.

When tests marked ``lab``, ``guest`` or ``backup`` are selected and this process is in no lab, the same command line
runs in a fresh one; its result is the result, and the lab is gone afterwards. Nothing happens for other tests, inside a
lab (``vmhost lab exec NAME -- pytest ...``), or with ``--no-lab``.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, combinations
from types import FrameType

import pytest
from _pytest.mark.expression import Expression

from vmhost import lab
from vmhost.drivers import command
from vmhost.lab.store import start_time
from vmhost.model.errors import VmhostError

NEEDS = frozenset({"lab", "guest", "backup"})
OTHERS = frozenset({"serial", "uml", "tui"})
PREFIX = "tests-"
LAST_WORDS = 60.0
"""Seconds that an interrupted run has for its report."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-lab", action="store_true", help="run tests that need a hypervisor right here")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """Run the command line in a lab, if it selects tests that need one; None: go on here."""
    if lab.inside() or config.option.no_lab or not _runs_tests(config) or not _selects_lab_tests(config):
        return None
    try:
        with _own_lab() as name:
            return lab.execute(name, _pytest(config), grace=LAST_WORDS)
    except KeyboardInterrupt:
        return pytest.ExitCode.INTERRUPTED
    except VmhostError as error:
        raise pytest.UsageError(f"the tests need a lab: {error}\n  try: {error.hint}") from error


def needs_lab(expression: str) -> bool | None:
    """Whether all (True) or none (False) of the tests that a marker expression selects need a lab; None: it depends."""
    names = sorted(NEEDS | OTHERS)
    every = chain.from_iterable(combinations(names, count) for count in range(len(names) + 1))
    compiled = Expression.compile(expression or "not nothing")
    chosen = [marks for marks in every if compiled.evaluate(lambda name, marks=marks, **_: name in marks)]
    needing = [marks for marks in chosen if NEEDS.intersection(marks)]
    if not needing:
        return False
    return True if len(needing) == len(chosen) else None


def _runs_tests(config: pytest.Config) -> bool:
    shows = ("collectonly", "help", "version", "markers", "showfixtures", "show_fixtures_per_test", "cacheshow")
    return not any(getattr(config.option, name, False) for name in shows)


def _selects_lab_tests(config: pytest.Config) -> bool:
    expression = config.option.markexpr.strip()
    answer = needs_lab(expression)
    if answer is not None:
        return answer
    # The tests have to be looked at; another process does it, so that this one stays as it is.
    needing = " or ".join(sorted(NEEDS))
    both = f"({expression}) and ({needing})" if expression else needing
    alone = ["-n", "0"] if config.pluginmanager.hasplugin("xdist") else []
    look = [*_pytest(config), *alone, "--collect-only", "--quiet", "--no-lab", "-m", both]
    return command.run(look, timeout=120, cwd=config.invocation_params.dir, check=False).code == 0


def _pytest(config: pytest.Config) -> list[str]:
    return [sys.executable, "-P", "-m", "pytest", *map(str, config.invocation_params.args)]


@contextmanager
def _own_lab() -> Iterator[str]:
    """A lab for as long as the block takes, also if it is ended by SIGTERM."""
    _sweep()
    name = f"{PREFIX}{os.getpid()}-{start_time(os.getpid())}"
    before = signal.signal(signal.SIGTERM, _leave)
    try:
        lab.up(name)
        try:
            yield name
        finally:
            lab.down(name)
    finally:
        signal.signal(signal.SIGTERM, before)


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _sweep() -> None:
    """End labs of test runs that were killed before they could."""
    for found in lab.labs():
        pid, _, started = found.name.removeprefix(PREFIX).partition("-")
        if found.name.startswith(PREFIX) and pid.isdigit() and str(start_time(int(pid))) != started:
            lab.down(found.name)
