"""vmhost nightly: run, status, install, remove, units."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vmhost.cli import diagnostics
from vmhost.cli.common import dry_run_option, interruptible, open_host, settle, tell, yes_option
from vmhost.cli.output import DOCUMENTS, emit, format_option, names, show
from vmhost.cli.site import carry_out
from vmhost.model.layout import MOVED_BY
from vmhost.model.text import sanitize

if TYPE_CHECKING:
    from vmhost.model.nightly import Protection

COLUMNS = ("GUEST", "PROBLEM", "NEWEST", "AGE", "KIND", "LEVEL", "POINTS", "VERIFIED", "DRILLED", "OBJECTIVES")

keep_option = click.option(
    "--keep", "rules", metavar="RULES", help="What stays: daily=7,weekly=4,within=48h, ...; as its site says."
)
repository_option = click.option("--repository", metavar="DIRECTORY", help="Another repository than the host's own.")


@click.group()
def nightly() -> None:
    """The night's work: every guest gets a point that is read back, old points go, and drills that are due are done."""


@nightly.command()
@click.argument("guests", nargs=-1, metavar="[GUEST]...")
@click.option("--at", metavar="CALENDAR", help="When guests have their turn whose sites do not say; every time.")
@keep_option
@repository_option
@click.option("--textfile", metavar="FILE", help="Write the outcome for Prometheus' textfile collector, too.")
@format_option
@click.pass_context
def run(
    ctx: click.Context,
    guests: tuple[str, ...],
    at: str | None,
    rules: str | None,
    repository: str | None,
    textfile: str | None,
    output: str,
) -> int:
    """Do the night's work now: for GUEST, or what is due of all guests. Exits with 11 when any of them failed."""
    from vmhost.ops.nightly import check_metrics, raise_failures, write_metrics
    from vmhost.ops.nightwakes import check_calendar
    from vmhost.ops.prune import parse_keep

    if textfile:
        check_metrics(Path(textfile))
    if at is not None:
        check_calendar(at)
    keep = parse_keep(rules) if rules is not None else None
    with open_host(ctx) as host:
        settle(host)
        with interruptible() as cancelled:
            night = host.backups.nightly.run(
                guests, at=at, keep=keep, repository=repository, on_event=tell, cancelled=cancelled
            )
    if output in DOCUMENTS:
        emit(output, "Night", night)
    elif output == "name":
        names(guest.name for guest in night.guests)
    else:
        for guest in night.guests:
            sys.stdout.write(sanitize(str(guest)) + "\n")
    if textfile:
        write_metrics(night, Path(textfile))
    raise_failures(night)
    return 0


@nightly.command()
@click.option(
    "--rpo",
    type=click.IntRange(1, 24 * 366),
    default=26,
    show_default=True,
    help="Hours a point may be old where its site does not say.",
)
@repository_option
@format_option
@click.pass_context
def status(ctx: click.Context, rpo: int, repository: str | None, output: str) -> int:
    """Show how each guest is protected: those that are FROZEN first, then those that are not protected. Exits with 7
    when there are any.
    """
    with open_host(ctx) as host:
        found = host.backups.nightly.status(objective=rpo * 3600.0, repository=repository)
    show(output, "ProtectionList", found, COLUMNS, _cells, lambda one: one.name)
    if not all(one.woken for one in found):
        diagnostics.say("vmhost: nothing wakes the night's work, and no night ran lately; vmhost nightly install")
    return diagnostics.PENDING if any(one.problem for one in found) else 0


def _cells(one: Protection) -> tuple[str, ...]:
    age = f"{one.age / 3600:.1f} h" if one.age >= 0 else "-"
    newest = (one.newest, age, one.kind, one.level, str(one.points))
    wants = ", ".join(str(objective) for objective in one.objectives)
    cells = (one.name, one.problem, *newest, one.verified or "never", one.drilled or "never", wants)
    return tuple(cell or "-" for cell in cells)


at_option = click.option(
    "--at", default="22:00", show_default=True, help="HH:MM, or a calendar event as systemd writes it."
)
failure_option = click.option(
    "--on-failure", default="", metavar="COMMAND", help="For the shell, when something failed."
)
cron_option = click.option("--cron", is_flag=True, help="A line for /etc/cron.d, also where systemd is.")


@nightly.command()
@at_option
@failure_option
@cron_option
@keep_option
@repository_option
@dry_run_option
@yes_option
@format_option
@click.pass_context
def install(
    ctx: click.Context,
    at: str,
    on_failure: str,
    cron: bool,
    rules: str | None,
    repository: str | None,
    dry_run: bool,
    yes: bool,
    output: str,
) -> int:
    """Let systemd, or cron where it is not, wake the night's work: at --at, and when the sites of guests say.

    A guest whose site does not say when has its turn at --at.
    """
    from vmhost.ops.nightwakes import Waking

    waking = Waking(_program(ctx), at, _options(rules, repository), on_failure, cron)
    with open_host(ctx) as host:
        if not dry_run:
            settle(host)
        return carry_out(host, host.backups.nightly.plan_install(waking), output, yes=yes, dry_run=dry_run)


@nightly.command()
@dry_run_option
@yes_option
@format_option
@click.pass_context
def remove(ctx: click.Context, dry_run: bool, yes: bool, output: str) -> int:
    """Stop and delete what wakes the night's work; files of these names that vmhost did not write stay."""
    with open_host(ctx) as host:
        if not dry_run:
            settle(host)
        return carry_out(host, host.backups.nightly.plan_remove(), output, yes=yes, dry_run=dry_run)


@nightly.command()
@at_option
@failure_option
@cron_option
@keep_option
@repository_option
@click.pass_context
def units(ctx: click.Context, at: str, on_failure: str, cron: bool, rules: str | None, repository: str | None) -> None:
    """Print what starts the night's work by itself: units for systemd, each after its name, or a line for cron."""
    from vmhost.ops.nightwakes import timer_texts

    argv = [*_program(ctx), "nightly", "run", "--at", at, *_options(rules, repository)]
    for name, text in timer_texts(argv, [at], on_failure, cron=cron).items():
        sys.stdout.write(f"# {name}\n{text}\n")


def _program(ctx: click.Context) -> list[str]:
    """Return the words that start vmhost, on this command's hypervisor and in its places, wherever they are started."""
    uri = ctx.find_root().obj or os.environ.get("LIBVIRT_DEFAULT_URI")
    moved = [f"{name}={os.environ[name]}" for name in MOVED_BY if os.environ.get(name)]
    places = ["/usr/bin/env", *moved] if moved else []
    return [*places, str(Path(sys.argv[0]).resolve()), *(["-c", uri] if uri else [])]


def _options(rules: str | None, repository: str | None) -> list[str]:
    from vmhost.ops.prune import parse_keep

    if rules is not None:
        parse_keep(rules)
    where = ["--repository", str(Path(repository).absolute())] if repository else []
    return [*(["--keep", rules] if rules is not None else []), *where]
