"""vmhost snapshot: create, list, revert, delete."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vmhost.cli.common import dry_run_option, open_host, settle, yes_option
from vmhost.cli.output import format_option, show
from vmhost.cli.site import carry_out
from vmhost.model.errors import UsageError
from vmhost.model.permit import Permit
from vmhost.model.units import format_size, parse_duration

if TYPE_CHECKING:
    from vmhost.ops.snapshots import SnapshotRow

COLUMNS = ("GUEST", "NAME", "CREATED", "LEVEL", "RESTS ON", "DEPTH", "SIZE", "STATE")


@click.group()
def snapshot() -> None:
    """Points in a guest's own storage: take one, list them, go back to one, delete one."""


@snapshot.command("list")
@click.argument("guest", required=False, default="")
@format_option
@click.pass_context
def list_(ctx: click.Context, guest: str, output: str) -> None:
    """List the snapshots of GUEST, or of all guests; the one that the present disks rest on is marked."""
    with open_host(ctx) as host:
        show(output, "SnapshotList", host.snapshots.list(guest), COLUMNS, _cells, lambda row: row.name)


def _cells(row: SnapshotRow) -> tuple[str, ...]:
    return (
        row.guest,
        row.name,
        row.created,
        row.level,
        row.on or "-",
        str(row.depth),
        format_size(row.size),
        f"{row.state}, present" if row.present else row.state,
    )


@snapshot.command()
@click.argument("guest")
@click.option("--name", default="", help="How it is called; without it, after the time.")
@click.option(
    "--quiesce/--no-quiesce", default=None, help="Its file systems must be frozen, or not at all; else if they can be."
)
@dry_run_option
@yes_option
@format_option
@click.pass_context
def create(
    ctx: click.Context, guest: str, name: str, quiesce: bool | None, dry_run: bool, yes: bool, output: str
) -> int:
    """Keep all disks of GUEST as they are at one instant; a guest that runs goes on running."""
    with open_host(ctx) as host:
        if not dry_run:
            settle(host)
        proposal = host.snapshots.plan_create(guest, name, quiesce=quiesce)
        return carry_out(host, proposal, output, yes=yes, dry_run=dry_run)


@snapshot.command()
@click.argument("guest")
@click.argument("name")
@click.option("--allow-stop", is_flag=True, help="A running guest may be shut down; it is started again.")
@click.option("--power-off", is_flag=True, help="A running guest may be powered off; it is started again.")
@click.option("--discard-saved", is_flag=True, help="Lose the memory that managed save keeps, as a power cut would.")
@click.option("--timeout", default="3m", show_default=True, help="How long the shut-down may take.")
@dry_run_option
@yes_option
@format_option
@click.pass_context
def revert(
    ctx: click.Context,
    guest: str,
    name: str,
    allow_stop: bool,
    power_off: bool,
    discard_saved: bool,
    timeout: str,
    dry_run: bool,
    yes: bool,
    output: str,
) -> int:
    """Put the disks of GUEST back to snapshot NAME. What they hold now is kept as a snapshot, too."""
    try:
        seconds = parse_duration(timeout)
    except ValueError as error:
        raise UsageError(str(error), subject="--timeout", hint="--timeout 90s") from error
    permit = Permit(stop=allow_stop, power_off=power_off, discard_saved=discard_saved)
    with open_host(ctx) as host:
        if not dry_run:
            settle(host)
        proposal = host.snapshots.plan_revert(guest, name, permit, timeout=seconds)
        return carry_out(host, proposal, output, yes=yes, dry_run=dry_run)


@snapshot.command()
@click.argument("guest")
@dry_run_option
@yes_option
@format_option
@click.pass_context
def thaw(ctx: click.Context, guest: str, dry_run: bool, yes: bool, output: str) -> int:
    """Thaw the file systems of GUEST that a snapshot or a backup has left frozen."""
    with open_host(ctx) as host:
        if not dry_run:
            settle(host)
        return carry_out(host, host.snapshots.plan_thaw(guest), output, yes=yes, dry_run=dry_run)


@snapshot.command()
@click.argument("guest")
@click.argument("name")
@dry_run_option
@yes_option
@format_option
@click.pass_context
def delete(ctx: click.Context, guest: str, name: str, dry_run: bool, yes: bool, output: str) -> int:
    """Delete snapshot NAME of GUEST, for good; a guest that runs goes on running while its files are merged."""
    with open_host(ctx) as host:
        if not dry_run:
            settle(host)
        return carry_out(host, host.snapshots.plan_delete(guest, name), output, yes=yes, dry_run=dry_run)
