"""vmhost job: long operations of all processes, running and past."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from vmhost.cli import diagnostics
from vmhost.cli.common import open_host
from vmhost.cli.output import DOCUMENTS, emit, format_option, names, show
from vmhost.model.text import sanitize

if TYPE_CHECKING:
    from vmhost.model.outcome import JobRecord

COLUMNS = ("ID", "STATE", "OPERATION", "USER", "STARTED", "SECONDS", "PROGRESS")


@click.group()
def job() -> None:
    """List, show and cancel long operations."""


@job.command("list")
@click.option(
    "--limit", default=20, show_default=True, type=click.IntRange(1, 1000), help="How many, the newest first."
)
@format_option
@click.pass_context
def list_(ctx: click.Context, limit: int, output: str) -> None:
    """List operations, the newest first."""
    with open_host(ctx) as host:
        now = host.ledger.clock.now()
        show(output, "JobList", host.jobs(limit=limit), COLUMNS, lambda item: _cells(item, now), lambda item: item.id)


def _cells(item: JobRecord, now: float) -> tuple[str, ...]:
    seconds = f"{(item.ended or now) - item.started:.1f}"
    share = f"{100 * item.done / item.total:.0f} % " if item.total and item.state == "running" else ""
    if share and item.rate:
        share += f"at {100 * item.rate / item.total:.2g} % a second: "
    started = datetime.fromtimestamp(item.started, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return (item.id, item.state, item.kind, item.user, started, seconds, share + (item.error or item.progress)[:80])


@job.command("show")
@click.argument("id")
@format_option
@click.pass_context
def show_(ctx: click.Context, id: str, output: str) -> None:  # noqa: A002 - what it is
    """Show an operation with its log."""
    from vmhost.ops.jobs import find_job

    with open_host(ctx) as host:
        history, now = host.ledger.history, host.ledger.clock.now()
        record = find_job(history, id)
        lines = history.lines(record.id)
    if output in DOCUMENTS:
        emit(output, "Job", {"job": record, "log": lines})
        return
    if output == "name":
        names([record.id])
        return
    for name, cell in zip(COLUMNS, _cells(record, now), strict=True):
        sys.stdout.write(f"{name.lower() + ':':<11}{sanitize(cell)}\n")
    if record.error:
        sys.stdout.write(f"error:     {sanitize(record.error)}\n")
    for line in lines:
        sys.stdout.write(f"  {sanitize(line)}\n")


@job.command()
@click.argument("id")
@click.pass_context
def cancel(ctx: click.Context, id: str) -> None:  # noqa: A002 - what it is
    """Ask a running operation to end: it ends its current step, undoes, and says so."""
    from vmhost.ops.jobs import cancel_job

    with open_host(ctx) as host:
        record = cancel_job(host.ledger.history, id)
    diagnostics.say(f"{record.id}: asked to end")
