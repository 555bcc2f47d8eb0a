"""vmhost nightly: run, status, units."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vmhost.cli import diagnostics
from vmhost.cli.common import interruptible, open_host, settle, tell
from vmhost.cli.output import DOCUMENTS, emit, format_option, names, show
from vmhost.model.errors import UsageError
from vmhost.model.text import sanitize

if TYPE_CHECKING:
    from vmhost.model.nightly import Protection

COLUMNS = ("GUEST", "PROBLEM", "NEWEST", "AGE", "KIND", "LEVEL", "POINTS", "DRILLED")

keep_option = click.option(
    "--keep", "rules", metavar="RULES", help="What stays: daily=7,weekly=4,within=48h, ...; as its site says."
)
repository_option = click.option("--repository", metavar="DIRECTORY", help="Another repository than the host's own.")


@click.group()
def nightly() -> None:
    """The night's work: every guest gets a point that is read back, old points go, and drills that are due are done."""


@nightly.command()
@click.argument("guests", nargs=-1, metavar="[GUEST]...")
@keep_option
@repository_option
@click.option("--textfile", metavar="FILE", help="Write the outcome for Prometheus' textfile collector, too.")
@format_option
@click.pass_context
def run(
    ctx: click.Context,
    guests: tuple[str, ...],
    rules: str | None,
    repository: str | None,
    textfile: str | None,
    output: str,
) -> int:
    """Do the night's work now: for GUEST, or what is due of all guests. Exits with 11 when any of them failed."""
    from vmhost.ops.nightly import check_metrics, raise_failures, write_metrics
    from vmhost.ops.prune import parse_keep

    if textfile:
        check_metrics(Path(textfile))
    keep = parse_keep(rules) if rules is not None else None
    with open_host(ctx) as host:
        settle(host)
        with interruptible() as cancelled:
            night = host.backups.nightly.run(
                guests, keep=keep, repository=repository, on_event=tell, cancelled=cancelled
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
    """Show how each guest is protected, those that are not first. Exits with 7 when there are any."""
    with open_host(ctx) as host:
        found = host.backups.nightly.status(objective=rpo * 3600.0, repository=repository)
    show(output, "ProtectionList", found, COLUMNS, _cells, lambda one: one.name)
    return diagnostics.PENDING if any(one.problem for one in found) else 0


def _cells(one: Protection) -> tuple[str, ...]:
    age = f"{one.age / 3600:.1f} h" if one.age >= 0 else "-"
    cells = (one.name, one.problem, one.newest, age, one.kind, one.level, str(one.points), one.drilled or "never")
    return tuple(cell or "-" for cell in cells)


@nightly.command()
@click.option("--at", default="22:00", show_default=True, help="HH:MM, or a calendar event of systemd.")
@click.option("--on-failure", default="", metavar="COMMAND", help="For the shell, when something failed.")
@click.option("--cron", is_flag=True, help="A line for /etc/cron.d, where there is no systemd.")
@keep_option
@repository_option
def units(at: str, on_failure: str, cron: bool, rules: str | None, repository: str | None) -> None:
    """Print what starts the night's work by itself: units for systemd, each after its name, or a line for cron."""
    from vmhost.ops.nightly import timer_texts
    from vmhost.ops.prune import parse_keep

    if rules is not None:
        parse_keep(rules)
    if cron and on_failure:
        raise UsageError("cron mails what a command says; it has no command for failures", hint="leave it out")
    argv = [str(Path(sys.argv[0]).resolve()), "nightly", "run"]
    argv += ["--keep", rules] if rules is not None else []
    argv += ["--repository", repository] if repository else []
    for name, text in timer_texts(argv, at, on_failure, cron=cron).items():
        sys.stdout.write(f"# {name}\n{text}\n")
