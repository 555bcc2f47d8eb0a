"""Long operations of all processes as rows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from vmhost.model.outcome import JobRecord
from vmhost.tui.rows.cells import Cell, Column, Line, Signs, Tone, cell, span

COLUMNS: Final = (
    Column("state", "STATE", 13),
    Column("kind", "OPERATION", 20, grows=1, widest=30),
    Column("subject", "ON", 16, rank=3),
    Column("started", "STARTED", 20, rank=4),
    Column("took", "TOOK", 5, rank=1, right=True),
    Column("left", "LEFT", 5, rank=5, right=True),
    Column("user", "USER", 8, rank=6),
    Column("text", "PROGRESS", 20, rank=2, grows=2, widest=120),
)
_TONES: Final = {
    "running": ("running", Tone.LIVELY),
    "done": ("mark", Tone.GOOD),
    "failed": ("crashed", Tone.BAD),
    "cancelled": ("off", Tone.WARN),
    "interrupted": ("warning", Tone.BAD),
}


def job_cells(job: JobRecord, now: float, columns: Sequence[Column], signs: Signs) -> tuple[Cell, ...]:
    """Return the cells of a job; ``now`` in seconds since the epoch."""
    return tuple(_job_cell(job, now, column.id, signs) for column in columns)


def _job_cell(job: JobRecord, now: float, column: str, signs: Signs) -> Cell:
    match column:
        case "state":
            sign, tone = _TONES[job.state]
            return Cell(f"{getattr(signs, sign)} {job.state}", tone)
        case "kind":
            return cell(job.kind)
        case "subject":
            return cell(job.subject)
        case "started":
            return Cell(datetime.fromtimestamp(job.started, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
        case "took":
            return Cell(span((job.ended or now) - job.started))
        case "left":
            return Cell(_left(job))
        case "user":
            return cell(job.user)
        case _:
            done = f"{100 * job.done / job.total:.0f}% " if job.total and job.state == "running" else ""
            return cell(done + (job.error or job.progress), Tone.BAD if job.error else Tone.DIM)


def _left(job: JobRecord) -> str:
    if job.state != "running" or not job.rate or not job.total:
        return "-"
    return span((job.total - job.done) / job.rate)


def log_lines(job: JobRecord, lines: Sequence[str]) -> list[Line]:
    """Return the log of a job, headed by what it is."""
    head = Line(f"{job.id}  {job.kind}  {job.state}", Tone.LIVELY)
    error = [Line(line, Tone.BAD) for line in job.error.splitlines()]
    return [head, *(Line(line) for line in lines), *error]
