"""vmhost backup drill."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Literal

import click

from vmhost.cli.common import interruptible, named_point, open_host, settle, tell
from vmhost.cli.output import DOCUMENTS, emit, format_option, names
from vmhost.cli.site import show_plan
from vmhost.model.errors import UsageError
from vmhost.model.text import sanitize
from vmhost.model.units import parse_duration

if TYPE_CHECKING:
    from vmhost.ops.drills import DrillResult


@click.command()
@click.argument("guest", required=False, default="")
@click.option("--point", callback=named_point, metavar="POINT", help="One point: its id or time, or how these begin.")
@click.option("--newest", "pick", flag_value="newest", default=True, help="The newest whole point; the default.")
@click.option("--oldest", "pick", flag_value="oldest", help="The oldest whole point.")
@click.option("--random", "pick", flag_value="random", help="One of the whole points by chance.")
@click.option("--oldest-first", is_flag=True, help="All guests: first those whose last drill is the longest ago.")
@click.option(
    "--budget",
    metavar="DURATION",
    help="With --oldest-first: no drill begins afterwards, or whose last one took longer than what is left.",
)
@click.option("--dry-run", is_flag=True, help="Show the plan and end.")
@click.option("--repository", type=click.Path(), metavar="PATH", help="Directory of the repository.")
@format_option
@click.pass_context
def drill(
    ctx: click.Context,
    guest: str,
    point: str,
    pick: Literal["newest", "oldest", "random"],
    oldest_first: bool,
    budget: str | None,
    dry_run: bool,
    repository: str | None,
    output: str,
) -> int:
    """Boot a point of GUEST in a network that leads nowhere, see that it is there, and take all of it away again.

    Exits with 12 when it did not come back.
    """
    from vmhost.ops.drills import raise_failures

    if oldest_first == bool(guest):
        raise UsageError("name a guest, or drill all of them", hint="vmhost backup drill --oldest-first --budget 2h")
    if oldest_first and (point or dry_run):
        raise UsageError("--point and --dry-run are for one guest", hint="vmhost backup drill GUEST --dry-run")
    if guest and budget is not None:
        raise UsageError("--budget is for all guests", hint="vmhost backup drill --oldest-first --budget 2h")
    seconds = _seconds(budget)
    with open_host(ctx) as host:
        drills = host.backups.drills
        if dry_run:
            show_plan(output, drills.plan(guest, point=point, pick=pick, repository=repository))
            return 0
        settle(host)
        with interruptible() as cancelled:
            if oldest_first:
                results = drills.oldest_first(
                    budget=seconds, pick=pick, repository=repository, on_event=tell, cancelled=cancelled
                )
            else:
                results = drills.run(
                    [guest], point=point, pick=pick, repository=repository, on_event=tell, cancelled=cancelled
                )
    if output in DOCUMENTS:
        emit(output, "DrillResultList", results)
    elif output == "name":
        names(result.drill.point for result in results if result.drill)
    else:
        for result in results:
            sys.stdout.write(sanitize(_sentence(result)) + "\n")
    raise_failures(results)
    return 0


def _seconds(budget: str | None) -> float:
    try:
        return parse_duration(budget) if budget else float("inf")
    except ValueError as error:
        raise UsageError(str(error), subject="--budget", hint="--budget 2h") from error


def _sentence(result: DrillResult) -> str:
    done = result.drill
    if done is None:
        return f"{result.name}: not drilled: {result.skipped or result.error}"
    if done.failed:
        return f"{result.name}: {done.point}: FAILED: {done.failed}"
    return (
        f"{result.name}: {done.point}: it came back {done.rto:.1f} s after the first step; it is {_age(done.rpo)} old"
    )


def _age(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min"
