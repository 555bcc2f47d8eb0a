"""A plan as rows: every step with what it means, its undo, and what it changes in a guest's XML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Final

from vmhost.model.events import Event, Notice, Progress, StepDone, StepFailed, StepStarted, Undone, Waiting
from vmhost.model.observed import Observed
from vmhost.model.plan import Change, Plan, Planned
from vmhost.model.serviceplan import ServicePlan, ServiceStep
from vmhost.model.steps import Step
from vmhost.tui.rows.cells import Cell, Column, Line, Signs, Tone, cell
from vmhost.tui.rows.difference import TONES, difference_lines

COLUMNS: Final = (
    Column("number", "#", 3, right=True),
    Column("state", "DONE", 9, rank=1),
    Column("change", "CHANGE", 10, rank=2),
    Column("why", "STEP", 30, grows=1, widest=400),
    Column("undo", "UNDO", 26, rank=5),
)
_TONES: Final = {
    Change.LIVE: Tone.PLAIN,
    Change.NEXT_BOOT: Tone.LIVELY,
    Change.NEEDS_STOP: Tone.WARN,
    Change.REPLACE: Tone.BAD,
    Change.REMOVE: Tone.BAD,
}


class Stage(StrEnum):
    """How far a step is."""

    WAITING = ""
    AT_WORK = "at work"
    DONE = "done"
    ALREADY = "already"
    FAILED = "FAILED"
    UNDONE = "undone"
    STUCK = "NOT undone"


@dataclass(frozen=True, slots=True)
class StepRow:
    """A step on the screen: ``key`` names it, ``part`` is the number of its proposal, ``late``: it lies past the commit
    point.
    """

    key: str
    part: int
    number: int
    planned: Planned | ServiceStep
    late: bool
    stage: Stage = Stage.WAITING
    seconds: float = 0.0


def rows_of(plans: Sequence[Plan | ServicePlan]) -> tuple[StepRow, ...]:
    """Return the rows of plans that are applied one after another."""
    found: list[StepRow] = []
    for part, plan in enumerate(plans):
        after = plan.after if isinstance(plan, Plan) else ()
        for number, item in enumerate((*plan.steps, *after), 1):
            found.append(StepRow(f"{part}.{number}", part, number, item, number > len(plan.steps)))
    return tuple(found)


def after_event(rows: tuple[StepRow, ...], part: int, event: Event) -> tuple[StepRow, ...]:
    """Return the rows after an event of the proposal ``part``."""
    match event:
        case StepStarted():
            return _with(rows, part, event, Stage.AT_WORK)
        case StepDone(seconds=seconds):
            return _with(rows, part, event, Stage.DONE, seconds)
        case StepFailed():
            return _with(rows, part, event, Stage.FAILED)
        case Undone(subject, why, error):
            stage = Stage.STUCK if error else Stage.UNDONE
            whys = (why, f"{subject}: {why}")
            return tuple(
                replace(row, stage=stage)
                if row.part == part and row.planned.why in whys and row.stage not in (Stage.FAILED, Stage.WAITING)
                else row
                for row in rows
            )
        case _:
            return rows


def after_end(rows: tuple[StepRow, ...], part: int) -> tuple[StepRow, ...]:
    """Return the rows after the proposal ``part`` ended well: a step inside a guest that no event told of was not
    needed, since somebody else had done it meanwhile.
    """
    return tuple(
        replace(row, stage=Stage.ALREADY)
        if row.part == part and row.stage is Stage.WAITING and isinstance(row.planned, ServiceStep)
        else row
        for row in rows
    )


def _with(
    rows: tuple[StepRow, ...],
    part: int,
    event: StepStarted | StepDone | StepFailed,
    stage: Stage,
    seconds: float = 0.0,
) -> tuple[StepRow, ...]:
    return tuple(
        replace(row, stage=stage, seconds=seconds) if row.part == part and _is_of(event, row) else row for row in rows
    )


def _is_of(event: StepStarted | StepDone | StepFailed, row: StepRow) -> bool:
    """Whether an event is a row's: guests count their steps each for itself, but tell them in the same words."""
    if isinstance(row.planned, ServiceStep):
        return row.planned.why == event.why
    return row.number == event.number


def step_cells(row: StepRow, number: int, columns: Sequence[Column], signs: Signs) -> tuple[Cell, ...]:
    """Return the cells of a step; ``number`` counts through all proposals."""
    return tuple(_step_cell(row, number, column.id, signs) for column in columns)


def _step_cell(row: StepRow, number: int, column: str, signs: Signs) -> Cell:
    match column:
        case "number":
            return Cell(str(number), Tone.DIM)
        case "change":
            late = "*" if row.late else ""
            return Cell(f"{row.planned.change}{late}", _TONES[row.planned.change])
        case "why":
            return cell(_sentence(row))
        case "undo":
            return cell(undo_words(row), Tone.DIM)
        case _:
            return _stage(row, signs)


def _stage(row: StepRow, signs: Signs) -> Cell:
    match row.stage:
        case Stage.DONE:
            return Cell(f"{signs.mark} {row.seconds:.1f} s", Tone.GOOD)
        case Stage.FAILED | Stage.STUCK:
            return Cell(f"{signs.crashed} {row.stage}", Tone.BAD)
        case Stage.AT_WORK:
            return Cell(f"{signs.cursor} at work", Tone.LIVELY)
        case _:
            return Cell(str(row.stage), Tone.WARN)


def _sentence(row: StepRow) -> str:
    when = row.planned.when if isinstance(row.planned, ServiceStep) else ""
    return f"{when}{row.planned.why}"


def undo_words(row: StepRow) -> str:
    """Return what takes a step back, in words."""
    if isinstance(row.planned, ServiceStep):
        return row.planned.undo or "nothing to undo"
    if row.late:
        return "cannot be undone" if _acts(row.planned.do) else "nothing to undo"
    return words(row.planned.undo) if row.planned.undo else "nothing to undo"


def _acts(step: Step) -> bool:
    return step.kind != "await-guest"


def words(step: Step) -> str:
    """Return a step in few words: its kind, and what it is about."""
    names = {item.name for item in fields(step)}
    about = next((str(getattr(step, name)) for name in ("name", "path", "source") if name in names), "")
    if step.kind == "set-autostart":
        about += " on" if getattr(step, "on", False) else " off"
    return f"{step.kind.replace('-', ' ')} {about}".strip()


def harm_of(plans: Sequence[Plan | ServicePlan]) -> str:
    """Return in one sentence what plans mean for running guests, services and data, empty when they harm nobody."""
    found = dict.fromkeys(Change, 0)
    services = [plan.harm for plan in plans if isinstance(plan, ServicePlan) and plan.harm]
    for plan in plans:
        if isinstance(plan, ServicePlan):
            continue
        for name in plan.guests:
            for change in {item.change for item in (*plan.steps, *plan.after) if item.subject == name}:
                found[change] += 1
    told = (
        (Change.NEEDS_STOP, "stopped or restarted"),
        (Change.REPLACE, "made anew"),
        (Change.REMOVE, "removed"),
    )
    parts = [f"{_guests(found[change])} {text}" for change, text in told if found[change]]
    return f"{' and '.join(parts)} by this" if parts else "; ".join(services)


def _guests(count: int) -> str:
    return "1 guest is" if count == 1 else f"{count} guests are"


def step_lines(row: StepRow, observed: Observed) -> list[Line]:
    """Return everything about a step: reason, meaning, undo, and what it makes different."""
    item = row.planned
    lines = [
        Line(_sentence(row)),
        Line(f"change   {_MEANING[item.change]}", _TONES[item.change]),
        Line(f"undo     {undo_words(row)}", Tone.DIM),
    ]
    if isinstance(item, ServiceStep):
        return [*lines, Line(""), *(Line(text, TONES.get(text[:1], Tone.PLAIN)) for text in item.shown)]
    return [*lines, Line(""), *difference_lines(item, observed)]


_MEANING: Final[Mapping[Change, str]] = {
    Change.LIVE: "live: running guests go on",
    Change.NEXT_BOOT: "next boot: a running guest has it when it boots next",
    Change.NEEDS_STOP: "needs stop: the guest does not run meanwhile",
    Change.REPLACE: "replace: the guest is made anew, its disks are deleted",
    Change.REMOVE: "remove: what is removed is gone",
}


def event_line(event: Event) -> Line | None:
    """Return an event as a line of the log, or None when it says nothing new."""
    match event:
        case StepStarted():
            return None
        case StepDone(number, total, _, why, seconds):
            return Line(f"[{number:2}/{total}] {why}  ({seconds:.1f} s)")
        case StepFailed(number, total, _, why, error):
            return Line(f"[{number:2}/{total}] {why}: FAILED: {error}", Tone.BAD)
        case Undone(_, why, error):
            return Line(f"NOT undone: {why}: {error}", Tone.BAD) if error else Line(f"undone: {why}", Tone.WARN)
        case Waiting(subject, seen):
            return Line(f"        {subject}: {seen}", Tone.DIM)
        case Progress(subject, text, done, total, _):
            return Line(f"{subject}: {f'{100 * done / total:3.0f} %  ' if total else ''}{text}", Tone.DIM)
        case Notice(subject, text):
            return Line(f"{subject}: {text}", Tone.WARN)
