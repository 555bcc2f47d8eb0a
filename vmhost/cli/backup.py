"""vmhost backup: run, list, verify, restore, confirm, drill, prune, pin."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from vmhost.cli import diagnostics
from vmhost.cli.common import dry_run_option, interruptible, named_point, open_host, settle, tell, yes_option
from vmhost.cli.drill import drill
from vmhost.cli.output import DOCUMENTS, emit, format_option, names, show, table
from vmhost.cli.prune import prune
from vmhost.cli.site import carry_out, show_plans
from vmhost.model.errors import UsageError
from vmhost.model.text import sanitize
from vmhost.model.units import format_size, parse_size

if TYPE_CHECKING:
    from vmhost.model.drills import DrillRecord
    from vmhost.model.points import Compression, Point
    from vmhost.ops.backups import BackupResult
    from vmhost.ops.verifying import Verified

LEAST_RATE = 4096
"""Bytes a second, as in ``host.yaml``: less would never end."""

COLUMNS = ("GUEST", "POINT", "TAKEN", "KIND", "LEVEL", "SIZE", "DISKS", "VERIFIED", "DRILLED", "WHY")


def repository_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--repository``."""
    text = "Directory of the repository; the host's own if absent."
    return click.option("--repository", type=click.Path(), metavar="PATH", help=text)(function)


@click.group()
def backup() -> None:
    """Take, list, verify and restore points of guests: what their disks hold at one instant."""


backup.add_command(prune)
backup.add_command(drill)


@backup.command()
@click.argument("guests", nargs=-1, metavar="[GUEST]...")
@click.option("--full", is_flag=True, help="Take full copies, whatever increments could lie on.")
@click.option("--at-once", type=click.IntRange(1, 32), default=2, show_default=True, help="Guests side by side.")
@click.option("--rate", metavar="SIZE", help="Bytes a second to copy, all together; 0: no limit; default: host.yaml's.")
@click.option("--compression", type=click.Choice(["none", "zstd"]), help="How to pack disks; default: host.yaml's.")
@click.option("--dry-run", is_flag=True, help="Show the plans and end.")
@repository_option
@format_option
@click.pass_context
def run(
    ctx: click.Context,
    guests: tuple[str, ...],
    full: bool,
    at_once: int,
    rate: str | None,
    compression: Compression | None,
    dry_run: bool,
    repository: str | None,
    output: str,
) -> int:
    """Take one point of each GUEST, or of all guests of vmhost; they run on meanwhile."""
    from vmhost.ops.backups import raise_failures

    limit = None if rate is None else _rate(rate)
    with open_host(ctx) as host:
        if dry_run:
            chosen = guests or [row.name for row in host.guests() if row.site]
            share = host.backups.share(limit, min(at_once, len(chosen)))
            how: dict[str, Any] = {"full": full, "repository": repository, "compression": compression}
            show_plans(output, [host.backups.plan(name, rate=share, **how) for name in chosen])
            return 0
        settle(host)
        with interruptible() as cancelled:
            results = host.backups.run(
                guests,
                full=full,
                repository=repository,
                at_once=at_once,
                rate=limit,
                compression=compression,
                on_event=tell,
                cancelled=cancelled,
            )
    taken = [result.point for result in results if result.point]
    if output in DOCUMENTS:
        emit(output, "BackupResultList", results)
    elif output == "name":
        names(point.id for point in taken)
    else:
        for result in results:
            _tell_result(result)
    raise_failures(results)
    return 0


def _rate(text: str) -> int:
    try:
        rate = parse_size(text) if text != "0" else 0
        if 0 < rate < LEAST_RATE:
            raise ValueError(f"{text} is less than {format_size(LEAST_RATE)} a second")
        return rate
    except ValueError as error:
        raise UsageError(str(error), subject="--rate", hint="--rate 200M") from error


def _tell_result(result: BackupResult) -> None:
    point = result.point
    if point is None:
        diagnostics.say(sanitize(f"{result.name}: no new point: {result.error}"))
        return
    rate = f", {format_size(int(point.size / result.seconds))}/s" if result.seconds > 0 else ""
    what = f"full, because {point.because}" if point.kind == "full" else f"incremental since {point.parent}"
    size = format_size(point.size)
    diagnostics.say(sanitize(f"{point.name}: {point.id}: {what}; {size} in {result.seconds:.1f} s{rate}"))
    if result.error is not None:
        diagnostics.say(sanitize(f"{result.name}: the point is good, but {result.error}"))


@backup.command("list")
@click.argument("guest", required=False, default="")
@repository_option
@format_option
@click.pass_context
def list_(ctx: click.Context, guest: str, repository: str | None, output: str) -> None:
    """List the points of GUEST, or of all guests, also of those that are gone; the oldest first."""
    with open_host(ctx) as host:
        points = host.backups.list(guest, repository=repository)
        damaged = host.backups.damaged(repository=repository)
        drilled = {(drill.guest, drill.point): drill for drill in host.backups.drills.history()}
    show(output, "PointList", points, COLUMNS, lambda point: _cells(point, drilled), lambda point: point.id)
    for damage in damaged:
        unlisted = "not listed, since it is " if damage.guest else ""
        diagnostics.say(sanitize(f"vmhost: {unlisted}damaged: {damage}"))


def _cells(point: Point, drilled: Mapping[tuple[str, str], DrillRecord]) -> tuple[str, ...]:
    drill = drilled.get((point.ref.guest, point.id))
    return (
        point.name,
        point.id,
        point.taken,
        point.kind,
        point.level,
        format_size(point.size),
        ",".join(disk.id for disk in point.disks),
        ("DAMAGED" if point.damaged else point.verified or "never") + (", pinned" if point.pinned else ""),
        ("FAILED " if drill.failed else "") + drill.started if drill else "never",
        point.because or f"since {point.parent}",
    )


@backup.command()
@click.argument("guest", required=False, default="")
@click.option(
    "--point", callback=named_point, metavar="POINT", help="One point: its id or time, or how these begin; latest."
)
@click.option("--all", "everything", is_flag=True, help="All points of all guests.")
@repository_option
@format_option
@click.pass_context
def verify(ctx: click.Context, guest: str, point: str, everything: bool, repository: str | None, output: str) -> int:
    """Read every byte of points and of what they lie on. Exits with 12 when something is not as it was."""
    from vmhost.ops.verifying import raise_damages

    if everything == bool(guest):
        raise UsageError("name a guest, or all of them", hint="vmhost backup verify --all")
    if everything and point:
        raise UsageError("--point is for one guest", hint="vmhost backup verify GUEST --point POINT")
    with open_host(ctx) as host, interruptible() as cancelled:
        found = host.backups.verify(guest, point=point, repository=repository, on_event=tell, cancelled=cancelled)
        damaged = host.backups.damaged(found[0].point.ref.guest if guest and found else guest, repository=repository)
    if output in DOCUMENTS:
        emit(output, "VerifiedList", {"points": found, "damaged": damaged})
    elif output == "name":
        names(item.point.id for item in found if item.damages)
    else:
        table(("GUEST", "POINT", "RESULT"), [row for item in found for row in _verdict(item)])
        for damage in damaged:
            diagnostics.say(sanitize(f"vmhost: damaged: {damage}"))
    raise_damages(found, damaged)
    return 0


def _verdict(item: Verified) -> list[tuple[str, ...]]:
    name, point = item.point.name, item.point.id
    well = "deleted meanwhile" if item.gone else "as it was"
    return [(name, point, f"DAMAGED: {damage}") for damage in item.damages] or [(name, point, well)]


@backup.command()
@click.argument("guest")
@click.option(
    "--point",
    default="latest",
    show_default=True,
    callback=named_point,
    metavar="POINT",
    help="Its id or time, or their beginning.",
)
@click.option("--in-place", is_flag=True, help="Replace the disks of the guest itself.")
@click.option("--as", "new_name", metavar="NAME", help="Make a new guest of that name; GUEST may be gone.")
@click.option("--site", type=click.Path(), metavar="FILE", help="With --as: the site file with the networks.")
@click.option("--allow-stop", is_flag=True, help="A running guest may be shut down, and is started afterwards.")
@click.option("--power-off", is_flag=True, help="A running guest may be powered off, and is started afterwards.")
@dry_run_option
@yes_option
@repository_option
@format_option
@click.pass_context
def restore(
    ctx: click.Context,
    /,
    guest: str,
    point: str,
    in_place: bool,
    new_name: str | None,
    site: str | None,
    repository: str | None,
    output: str,
    yes: bool,
    dry_run: bool,
    **may: bool,
) -> int:
    """Bring the disks of GUEST back to a point, and keep what they were; or make a new guest of the point."""
    from vmhost.ops.sites import load_site

    if in_place == bool(new_name):
        raise UsageError("say where to: in the guest's own place, or as a new guest", hint="add --in-place")
    if in_place and site:
        raise UsageError("--site is for a new guest", hint="add --as NAME")
    with open_host(ctx) as host:
        if not dry_run:
            settle(host)
        if new_name:
            networks = load_site(site) if site else None
            proposal = host.backups.plan_restore_as(guest, new_name, point=point, site=networks, repository=repository)
            return carry_out(host, proposal, output, yes=yes, dry_run=dry_run)
        proposal = host.backups.plan_restore(
            guest, point=point, repository=repository, stop=may["allow_stop"], power_off=may["power_off"]
        )
        return carry_out(host, proposal, output, yes=yes, dry_run=dry_run)


@backup.command()
@click.argument("guest")
@dry_run_option
@yes_option
@format_option
@click.pass_context
def confirm(ctx: click.Context, guest: str, yes: bool, dry_run: bool, output: str) -> int:
    """Keep what a restore brought to GUEST, and delete what its disks were before."""
    with open_host(ctx) as host:
        if not dry_run:
            settle(host)
        return carry_out(host, host.backups.plan_confirm(guest), output, yes=yes, dry_run=dry_run)


@backup.command()
@click.argument("guest")
@click.option(
    "--point", required=True, callback=named_point, metavar="POINT", help="Its id or time, or how these begin; latest."
)
@click.option("--off", is_flag=True, help="Unpin it.")
@dry_run_option
@yes_option
@repository_option
@format_option
@click.pass_context
def pin(
    ctx: click.Context, guest: str, point: str, off: bool, dry_run: bool, yes: bool, repository: str | None, output: str
) -> int:
    """Pin a point of GUEST, so that it never goes."""
    with open_host(ctx) as host:
        if not dry_run:
            settle(host)
        proposal = host.backups.plan_pin(guest, point, on=not off, repository=repository)
        return carry_out(host, proposal, output, yes=yes, dry_run=dry_run)
