"""Carrying out a guest's plan: operation by operation; what was done is undone from the end when one fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vmhost.engine.services.line import Lines
from vmhost.model.errors import ApplyError, Cancelled, DriverError, VmhostError
from vmhost.model.events import Event, StepDone, StepFailed, StepStarted, Undone
from vmhost.model.guestops import ActOnUnit, GuestOp, GuestPlan, PutFile
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
    settle: Sequence[GuestOp] = (),
    on_event: Callable[[Event], None],
    cancelled: Callable[[], bool],
) -> None:
    """Do all steps of a plan.

    :param settle: what is done last of all when the plan fails after a unit was touched.
    :raises ApplyError: a step failed; what was done is undone, ``leftovers`` names what could not be.
    :raises Cancelled: the person gave up; everything is undone.
    """
    total = len(plan.steps)
    subject = f"{plan.guest}: {plan.service}"
    for number, step in enumerate(plan.steps, 1):
        on_event(StepStarted(number, total, plan.guest, f"{subject}: {step.why}"))
        began = clock.monotonic()
        try:
            if cancelled():
                raise Cancelled("cancelled", subject=plan.guest, hint="vmhost job list")
            do(plan.guest, step.do, lines)
        except VmhostError as error:
            on_event(StepFailed(number, total, plan.guest, f"{subject}: {step.why}", error.message))
            leftovers = _undo(plan, number, lines, settle, on_event)
            if isinstance(error, Cancelled) and not leftovers:
                raise
            raise ApplyError(
                f"{plan.service}: {step.why}: {error.message}",
                subject=plan.guest,
                hint=error.hint or f"vmhost service status {plan.service}",
                done=[item.why for item in plan.steps[: number - 1]],
                undone=[item.why for item in plan.steps[: number - 1]] if not leftovers else (),
                leftovers=leftovers,
            ) from error
        on_event(StepDone(number, total, plan.guest, f"{subject}: {step.why}", clock.monotonic() - began))


def do(guest: str, op: GuestOp, lines: Lines) -> None:
    """Do one operation. :raises DriverError: it failed; with the guest's own words."""
    command = command_of(op)
    result = lines.run(guest, command)
    if result.exit_code != 0:
        raise DriverError(_failure(op, result), subject=guest, hint=f"vmhost guest ssh {guest}")


def _failure(op: GuestOp, result: CommandResult) -> str:
    """Return why an operation failed; what a command said of a secret file is not repeated."""
    how = f"ended with {result.exit_code}" if result.exit_code is not None else f"ended by signal {result.signal}"
    said = " / ".join(sanitize(line) for line in result.stderr.decode("utf-8", "replace").split("\n") if line.strip())
    if isinstance(op, PutFile):
        if not op.sha256:
            said = "its words are not shown, since the file is secret"
        if result.exit_code == CHECK_FAILED and op.check:
            return f"the check of {op.path} failed, the old file stays: {said[-LAST_WORDS:]}"
        return f"{op.path} was not written, what was there stays: {said[-LAST_WORDS:] or how}"
    return f"{said[-LAST_WORDS:] or 'it said nothing'} ({how})"


def _undo(
    plan: GuestPlan, failed: int, lines: Lines, settle: Sequence[GuestOp], on_event: Callable[[Event], None]
) -> list[str]:
    """Undo the steps before the failed one, and of that what may have been done; return what could not be undone."""
    leftovers: list[str] = []
    for number in range(failed, 0, -1):
        step = plan.steps[number - 1]
        # A file is put in place as a whole or not at all; everything else may have been done in part.
        if number == failed and isinstance(step.do, PutFile):
            continue
        leftovers += _all(plan, step.undo, f"{plan.service}: {step.why}", lines, on_event, fatal=number != failed)
    if any(isinstance(step.do, ActOnUnit) for step in plan.steps[:failed]):
        leftovers += _all(plan, settle, f"{plan.service}: its unit runs as before", lines, on_event, fatal=True)
    return leftovers


def _all(
    plan: GuestPlan,
    ops: Sequence[GuestOp],
    why: str,
    lines: Lines,
    on_event: Callable[[Event], None],
    *,
    fatal: bool,
) -> list[str]:
    for op in ops:
        try:
            do(plan.guest, op, lines)
        except VmhostError as error:
            if fatal:
                on_event(Undone(plan.guest, why, error.message))
                return [f"{why}: {command_of(op)}"]
            return []  # the step that failed had not been done: there is nothing to undo
    if ops:
        on_event(Undone(plan.guest, why))
    return []
