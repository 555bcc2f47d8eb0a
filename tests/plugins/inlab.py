"""Tests that need a hypervisor run in a lab, however pytest was called.

When tests marked ``lab``, ``guest`` or ``backup`` are selected and this process is in no lab, the same command line
runs in a fresh one; its result is the result, and the lab is gone afterwards. Nothing happens for other tests, inside a
lab (``vmhost lab exec NAME -- pytest ...``), or with ``--no-lab``.

Tests marked ``uml`` run in a lab with a kernel of its own; what else is selected runs before them, as it would alone.

Where the machine has more than one CPU, two labs share the tests marked ``uml``, ``guest`` or ``backup``
(pytest-xdist). Tests of one file stay together, and so do those of one ``xdist_group``, which share what takes long to
come up; those marked ``backup`` share nothing, and are handed out singly.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain, combinations
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from _pytest.mark.expression import Expression

from vmhost import lab
from vmhost.drivers import command
from vmhost.lab.store import start_time
from vmhost.model.errors import VmhostError

NEEDS = frozenset({"lab", "guest", "backup"})
UML = frozenset({"uml"})
SHARED = frozenset({"guest", "backup"})
OTHERS = frozenset({"serial", "uml", "tui"})
SMALL_GUEST = "VMHOST_SMALL_GUEST"
"""Where tests in a lab with a kernel of its own find the small guest (scripts/small-guest)."""
GROUPS = "VMHOST_TEST_GROUPS"
"""Where it is written which tests stay together."""

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
        return _in_labs(config, lab.Kernel.HOST, config.option.markexpr.strip())
    except KeyboardInterrupt:
        return pytest.ExitCode.INTERRUPTED
    except VmhostError as error:
        raise pytest.UsageError(f"the tests need a lab: {error}\n  try: {error.hint}") from error


def _with_own_kernel(config: pytest.Config) -> int:
    """Run what needs no kernel of its own, then the rest; the exit code is the first one that is bad."""
    rest = _only(config, "not uml")
    first = 0
    if needs_lab(config.option.markexpr.strip(), UML) is None and _finds_tests(config, rest):
        first = command.foreground([*_pytest(config), "-m", rest], grace=LAST_WORDS)
        if first in (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.USAGE_ERROR):
            return first
    guest = command.run([str(config.rootpath / "scripts/small-guest")], timeout=600).text.strip()
    os.environ[SMALL_GUEST] = guest
    second = _in_labs(config, lab.Kernel.UML, _only(config, "uml"), _in_one_process(config))
    return first or second


def _in_labs(config: pytest.Config, kernel: lab.Kernel, expression: str, alone: Sequence[str] = ()) -> int:
    """Run what a marker expression selects in two labs, if they can share it; else in one, with options ``alone``."""
    line, chosen = _pytest(config), ["-m", expression]
    with tempfile.TemporaryDirectory() as place:
        groups = Path(place) / "groups.json"
        os.environ[GROUPS] = str(groups)
        if not _can_share(config, expression):
            del os.environ[GROUPS]
            with _own_labs(kernel) as (name,):
                return lab.execute(name, [*line, *alone, *chosen], grace=LAST_WORDS)
        if config.args_source is pytest.Config.ArgsSource.TESTPATHS:  # that is quicker than to look at all files
            line += sorted({str(config.rootpath / test.partition("::")[0]) for test in _groups()})
        with _own_labs(kernel, 2) as names:
            places = [word for name in names for word in ("--tx", f"popen//python={shlex.join(_python_in(name))}")]
            return command.foreground([*line, "--no-lab", "--dist", "load", *places, *chosen], grace=LAST_WORDS)


def _can_share(config: pytest.Config, expression: str) -> bool:
    """Whether two labs may share the tests: nothing was said of processes, and there is more than one group of them."""
    if (os.cpu_count() or 1) < 2 or not config.pluginmanager.hasplugin("xdist") or config.option.usepdb:
        return False
    if config.option.numprocesses is not None or config.option.tx or not needs_lab(expression, UML | SHARED):
        return False
    return _finds_tests(config, expression) and len(set(_groups().values())) > 1


def pytest_collection_finish(session: pytest.Session) -> None:
    """Write down which tests belong together, for whoever hands them out: that process does not see their marks."""
    if session.config.option.collectonly and (place := os.environ.get(GROUPS)):
        Path(place).write_text(json.dumps({item.nodeid: _group(item) for item in session.items}))


def _group(item: pytest.Item) -> str:
    """What a test belongs to: an ``xdist_group``, itself, or its file."""
    if mark := item.get_closest_marker("xdist_group"):
        return str(mark.args[0])
    return item.nodeid if item.get_closest_marker("backup") else item.nodeid.partition("::")[0]


def _groups() -> dict[str, str]:
    return dict(json.loads(Path(os.environ[GROUPS]).read_text()))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Hand out the tests of a group together, the largest group first. (xdist's own way is lost on pytest 9.2.)"""
    if GROUPS not in os.environ:
        return None
    from xdist.scheduler import LoadScopeScheduling

    groups = _groups()

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return groups[nodeid]

    return Scheduling(config, log)


def _python_in(name: str) -> list[str]:
    """The Python of a lab, for whoever runs it as if it were here."""
    return [str(Path(sys.executable).with_name("vmhost")), "lab", "exec", name, "--", sys.executable, "-P"]


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
def _own_labs(kernel: lab.Kernel = lab.Kernel.HOST, count: int = 1) -> Iterator[list[str]]:
    """Labs for as long as the block takes, also if it is ended by SIGTERM."""
    _sweep()
    names = [f"{PREFIX}{os.getpid()}-{start_time(os.getpid())}-{number}" for number in range(count)]
    before = signal.signal(signal.SIGTERM, _leave)
    try:
        if count == 1:
            lab.up(names[0], kernel=kernel)
        else:
            with ThreadPoolExecutor(count) as pool:
                list(pool.map(lambda name: lab.up(name, kernel=kernel), names))
        yield names
    finally:
        for found in lab.labs():
            if found.name in names:
                lab.down(found.name)
        signal.signal(signal.SIGTERM, before)


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _sweep() -> None:
    """End labs of test runs that were killed before they could."""
    for found in lab.labs():
        pid, _, rest = found.name.removeprefix(PREFIX).partition("-")
        if found.name.startswith(PREFIX) and pid.isdigit() and str(start_time(int(pid))) != rest.partition("-")[0]:
            lab.down(found.name)
