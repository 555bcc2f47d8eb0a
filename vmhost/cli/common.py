"""What several nouns share: the host, consent, and the printing of events."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from vmhost.cli import diagnostics
from vmhost.model.errors import UsageError
from vmhost.model.text import sanitize

if TYPE_CHECKING:
    from vmhost.model.events import Event
    from vmhost.ops.host import Host


ENDING = (signal.SIGINT, signal.SIGTERM)
"""What asks us to end: a person at the terminal, and whoever manages processes (systemd, timeout(1), a shutdown)."""


@contextmanager
def open_host(ctx: click.Context) -> Iterator[Host]:
    """Yield the host of ``-c``, and say so when an interrupted operation waits."""
    from vmhost.ops.host import Host

    with Host(ctx.find_root().obj) as host:
        if host.interrupted():
            diagnostics.say("vmhost: an operation was interrupted; vmhost recover settles it")
        yield host


def yes_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--yes``."""
    return click.option("--yes", is_flag=True, help="Do it without asking.")(function)


def dry_run_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--dry-run``."""
    return click.option("--dry-run", is_flag=True, help="Show the plan and end.")(function)


def named_point(_ctx: click.Context, _option: click.Parameter, value: str | None) -> str:
    """Return the point that an option names, empty without the option.

    :raises UsageError: it names none, as a variable of a script that is empty does.
    """
    if value is not None and not value.strip():
        raise UsageError("names no point", subject="--point", hint="--point latest")
    return value or ""


def consent(yes: bool, question: str) -> bool:
    """Return whether the person agrees.

    :raises UsageError: there is no terminal to ask at, and ``--yes`` was not given.
    """
    if yes:
        return True
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError("there is no terminal to ask at; nothing was done", hint="add --yes")
    return click.confirm(question, err=True)


def tell(event: Event) -> None:
    """Write an event as a line of talk."""
    line = _line(event)
    if line:
        diagnostics.say(sanitize(line))


def _line(event: Event) -> str:
    from vmhost.model.events import Notice, Progress, StepDone, StepFailed, StepStarted, Undone, Waiting

    match event:
        case StepStarted():
            return ""
        case StepDone(number, total, _, why, seconds):
            return f"[{number:2}/{total}] {why}  ({seconds:.1f} s)"
        case StepFailed(number, total, _, why, error):
            return f"[{number:2}/{total}] {why}: FAILED: {error}"
        case Undone(_, why, error):
            return f"undone: {why}" if not error else f"NOT undone: {why}: {error}"
        case Waiting(subject, seen):
            return f"        {subject}: {seen}"
        case Progress(subject, text, done, total, _):
            share = f"{100 * done / total:3.0f} %  " if total else ""
            return f"{subject}: {share}{text}"
        case Notice(subject, text):
            return f"{subject}: {text}"


def settle(host: Host) -> None:
    """Settle what was interrupted before something else is planned: a plan must not rest on half an operation."""
    if host.interrupted():
        host.recover(on_event=tell)


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether Ctrl-C or SIGTERM came: the step under way ends, then everything is undone.

    A second one ends at once, as Python does by itself; the journal then serves ``vmhost recover``. A signal that our
    parent has us ignore (nohup, a shell's ``&``) stays ignored.
    """
    asked = False

    def ask(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        diagnostics.say_from_signal("vmhost: ending as soon as this step allows; Ctrl-C again to leave at once")
        for number in before:
            signal.signal(number, signal.default_int_handler)

    heard = [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, ask) for number in heard}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
