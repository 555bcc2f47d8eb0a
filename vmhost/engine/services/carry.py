"""Carrying out a guest's plan: operation by operation; what was done is undone from the end when one fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vmhost.engine.services.line import Lines
from vmhost.model.errors import ApplyError, Cancelled, DriverError, VmhostError
from vmhost.model.events import Event, StepDone, StepFailed, StepStarted, Undone
from vmhost.model.guestops import GuestOp, GuestPlan, PutFile
from vmhost.model.shell import CommandResult
from vmhost.model.text import sanitize
from vmhost.ports import Clock
from vmhost.render.guestcommands import CHECK_FAILED, command_of

LAST_WORDS = 600
"""Characters that are told of what a failed command said."""


def carry_out(
    plan: GuestPlan,
    lines: Lines,
    clock: Clock,
    *,
    settle: Callable[[Sequence[GuestOp]], Sequence[GuestOp]],
    on_event: Callable[[Event], None],
    cancelled: Callable[[], bool],
) -> None:
    """Do all steps of a plan.

    :param settle: from the operations that were begun to what is done last of all when the plan fails.
    :raises ApplyError: a step failed; what was done is undone, ``leftovers`` names what could not be.
    :raises Cancelled: the person gave up; everything is undone.
    """
    total = len(plan.steps)
    subject = f"{plan.guest}: {plan.service}"
    for number, step in enumerate(plan.steps, 1):
        on_event(StepStarted(number, total, plan.guest, f"{subject}: {step.why}"))
        began = clock.monotonic()
        error = _try(plan.guest, step.do, lines, cancelled)
        if error is not None:
            on_event(StepFailed(number, total, plan.guest, f"{subject}: {step.why}", error.message))
            leftovers = _undo(plan, _begun(step.do, error, number), lines, settle, on_event)
            if isinstance(error, Cancelled) and not leftovers:
                raise error
            raise ApplyError(
                f"{plan.service}: {step.why}: {error.message}",
                subject=plan.guest,
                hint=error.hint or f"vmhost service status {plan.service}",
                done=[item.why for item in plan.steps[: number - 1]],
                undone=[item.why for item in plan.steps[: number - 1]] if not leftovers else (),
                leftovers=leftovers,
            ) from error
        on_event(StepDone(number, total, plan.guest, f"{subject}: {step.why}", clock.monotonic() - began))


class _Said(DriverError):
    """The guest itself said that an operation failed; after any other error nobody knows what became of it."""


def _try(guest: str, op: GuestOp, lines: Lines, cancelled: Callable[[], bool]) -> VmhostError | None:
    if cancelled():
        return Cancelled("cancelled", subject=guest, hint="vmhost job list")
    try:
        do(guest, op, lines)
    except VmhostError as error:
        return error
    return None


def _begun(op: GuestOp, error: VmhostError, number: int) -> int:
    """Return how many steps have to be undone when one fails: that one, too, unless it surely changed nothing.

    A file is put in place as a whole or not at all; everything else may have been done in part.
    """
    untouched = isinstance(error, Cancelled) or (isinstance(error, _Said) and isinstance(op, PutFile))
    return number - 1 if untouched else number


def do(guest: str, op: GuestOp, lines: Lines) -> None:
    """Do one operation. :raises DriverError: it failed; with the guest's own words."""
    command = command_of(op)
    result = lines.run(guest, command)
    if result.exit_code not in command.good:
        raise _Said(_failure(op, result), subject=guest, hint=f"vmhost guest ssh {guest}")


def _failure(op: GuestOp, result: CommandResult) -> str:
    """Return why an operation failed; what a command said of a secret file is not repeated."""
    how = f"ended with {result.exit_code}" if result.exit_code is not None else f"ended by signal {result.signal}"
    said = " / ".join(sanitize(line) for line in result.stderr.decode("utf-8", "replace").split("\n") if line.strip())
    if isinstance(op, PutFile):
        if op.secret:
            said = "its words are not shown, since the file is secret"
        if result.exit_code == CHECK_FAILED and op.check:
            return f"the check of {op.path} failed, the old file stays: {said[-LAST_WORDS:]}"
        return f"{op.path} was not written, what was there stays: {said[-LAST_WORDS:] or how}"
    return f"{said[-LAST_WORDS:] or 'it said nothing'} ({how})"


def _undo(
    plan: GuestPlan,
    count: int,
    lines: Lines,
    settle: Callable[[Sequence[GuestOp]], Sequence[GuestOp]],
    on_event: Callable[[Event], None],
) -> list[str]:
    """Undo that many steps from the end; return what could not be undone."""
    leftovers: list[str] = []
    begun = plan.steps[:count]
    for step in reversed(begun):
        leftovers += _all(plan, step.undo, f"{plan.service}: {step.why}", lines, on_event)
    last = settle([step.do for step in begun])
    return leftovers + _all(plan, last, f"{plan.service}: its unit is as before", lines, on_event)


def _all(
    plan: GuestPlan,
    ops: Sequence[GuestOp],
    why: str,
    lines: Lines,
    on_event: Callable[[Event], None],
) -> list[str]:
    for op in ops:
        try:
            do(plan.guest, op, lines)
        except VmhostError as error:
            on_event(Undone(plan.guest, why, error.message))
            return [f"{why}: {command_of(op)}"]
    if ops:
        on_event(Undone(plan.guest, why))
    return []
