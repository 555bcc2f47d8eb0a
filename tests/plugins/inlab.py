"""Tests that need a hypervisor run in a lab, however pytest was called.

When tests marked ``lab``, ``guest`` or ``backup`` are selected and this process is in no lab, the same command line
runs in a fresh one; its result is the result, and the lab is gone afterwards. Nothing happens for other tests, inside a
lab (``vmhost lab exec NAME -- pytest ...``), or with ``--no-lab``.

Tests marked ``uml`` run in a lab with a kernel of its own; what else is selected runs before them, as it would alone.
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
UML = frozenset({"uml"})
OTHERS = frozenset({"serial", "uml", "tui"})
SMALL_GUEST = "VMHOST_SMALL_GUEST"
"""Where tests in a lab with a kernel of its own find the small guest (scripts/small-guest)."""
PREFIX = "tests-"
LAST_WORDS = 60.0
"""Seconds that an interrupted run has for its report."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-lab", action="store_true", help="run tests that need a hypervisor right here")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """Run the command line in a lab, if it selects tests that need one; None: go on here."""
    if lab.inside() or config.option.no_lab or not _runs_tests(config):
        return None
    try:
        if _selects(config, UML):
            return _with_own_kernel(config)
        if not _selects(config, NEEDS):
            return None
        with _own_lab() as name:
            return lab.execute(name, _pytest(config), grace=LAST_WORDS)
    except KeyboardInterrupt:
        return pytest.ExitCode.INTERRUPTED
    except VmhostError as error:
        raise pytest.UsageError(f"the tests need a lab: {error}\n  try: {error.hint}") from error


def _with_own_kernel(config: pytest.Config) -> int:
    """Run what needs no kernel of its own, then the rest; the exit code is the first one that is bad."""
    rest = _only(config, "not uml")
    first = 0
    if _finds_tests(config, rest):
        first = command.foreground([*_pytest(config), "-m", rest], grace=LAST_WORDS)
        if first in (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.USAGE_ERROR):
            return first
    guest = command.run([str(config.rootpath / "scripts/small-guest")], timeout=600).text.strip()
    with _own_lab(lab.Kernel.UML) as name:
        line = [*_pytest(config), *_in_one_process(config), "-m", _only(config, "uml")]
        second = lab.execute(name, line, env={SMALL_GUEST: guest}, grace=LAST_WORDS)
    return first or second


def needs_lab(expression: str, needs: frozenset[str] = NEEDS) -> bool | None:
    """Whether all (True) or none (False) of the tests that a marker expression selects need a lab; None: it depends."""
    names = sorted(NEEDS | OTHERS)
    every = chain.from_iterable(combinations(names, count) for count in range(len(names) + 1))
    compiled = Expression.compile(expression or "not nothing")
    chosen = [marks for marks in every if compiled.evaluate(lambda name, marks=marks, **_: name in marks)]
    needing = [marks for marks in chosen if needs.intersection(marks)]
    if not needing:
        return False
    return True if len(needing) == len(chosen) else None


def _runs_tests(config: pytest.Config) -> bool:
    shows = ("collectonly", "help", "version", "markers", "showfixtures", "show_fixtures_per_test", "cacheshow")
    return not any(getattr(config.option, name, False) for name in shows)


def _selects(config: pytest.Config, needs: frozenset[str]) -> bool:
    answer = needs_lab(config.option.markexpr.strip(), needs)
    if answer is not None:
        return answer
    return _finds_tests(config, _only(config, " or ".join(sorted(needs))))


def _only(config: pytest.Config, wanted: str) -> str:
    """The marker expression of this run, narrowed."""
    expression = config.option.markexpr.strip()
    return f"({expression}) and ({wanted})" if expression else wanted


def _finds_tests(config: pytest.Config, expression: str) -> bool:
    """Whether there are such tests. Another process looks, so that this one stays as it is."""
    look = [*_pytest(config), *_in_one_process(config), "--collect-only", "--quiet", "--no-lab", "-m", expression]
    return command.run(look, timeout=120, cwd=config.invocation_params.dir, check=False).code == 0


def _in_one_process(config: pytest.Config) -> list[str]:
    return ["-n", "0"] if config.pluginmanager.hasplugin("xdist") else []


def _pytest(config: pytest.Config) -> list[str]:
    return [sys.executable, "-P", "-m", "pytest", *map(str, config.invocation_params.args)]


@contextmanager
def _own_lab(kernel: lab.Kernel = lab.Kernel.HOST) -> Iterator[str]:
    """A lab for as long as the block takes, also if it is ended by SIGTERM."""
    _sweep()
    name = f"{PREFIX}{os.getpid()}-{start_time(os.getpid())}"
    before = signal.signal(signal.SIGTERM, _leave)
    try:
        lab.up(name, kernel=kernel)
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
