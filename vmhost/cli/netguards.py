"""vmhost net guards: what holds at the ports of guests, and what was dropped there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vmhost.cli.common import open_host
from vmhost.cli.output import format_option, show

if TYPE_CHECKING:
    from vmhost.ops.guards import GuardRow

COLUMNS = ("PORT", "GUEST", "GUARD", "ISOLATED", "LIMITS", "DROPPED")


@click.command()
@format_option
@click.pass_context
def guards(ctx: click.Context, output: str) -> None:
    """Show what holds at the ports of running guests: guards with what they dropped, isolation, limits."""
    with open_host(ctx) as host:
        show(output, "GuardList", host.guards(), COLUMNS, _cells, lambda row: row.port)


def _cells(row: GuardRow) -> tuple[str, ...]:
    dropped = " ".join(f"{reason}:{count}" for reason, count in row.dropped if count)
    return (
        row.port,
        f"{row.guest}/{row.nic}",
        row.state,
        "yes" if row.isolated else "no",
        row.limits,
        dropped or ("0" if row.dropped else "-"),
    )
