"""vmhost service: list, deploy, delete, check, status, start, stop, restart, logs."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from vmhost.cli import diagnostics
from vmhost.cli.common import consent, interruptible, open_host, settle, tell, yes_option
from vmhost.cli.output import DOCUMENTS, emit, format_option, names, show, table
from vmhost.cli.serviceroll import roll
from vmhost.model.errors import UsageError
from vmhost.model.reservations import iso
from vmhost.model.text import sanitize
from vmhost.model.units import parse_duration

if TYPE_CHECKING:
    from vmhost.model.services import Look, ProbeHistory, ServiceRow
    from vmhost.ops.host import Host
    from vmhost.ops.servicedeploy import Deployment
    from vmhost.ops.services import ActionResult, Verb

HISTORY = ("SERVICE", "GUEST", "PROBE", "LOOKS", "BAD", "MEDIAN", "95TH", "MOST", "SINCE", "LAST BAD")
COLUMNS = ("SERVICE", "GUEST", "VERSION", "ENV", "UNIT", "STATE", "HEALTH", "DRIFT", "SINCE")


@click.group()
def service() -> None:
    """Services inside guests: what runs there, how it is, and bringing it there."""


service.add_command(roll)


def guest_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--guest``."""
    return click.option("--guest", "guests", multiple=True, metavar="NAME", help="Only in this guest.")(function)


NAMES = click.argument("names", nargs=-1)
ONE_NAME = click.argument("names", nargs=-1, required=True)


@service.command("list")
@NAMES
@guest_option
@click.option("--no-look", is_flag=True, help="Show what was deployed, and ask no guest.")
@format_option
@click.pass_context
def list_(ctx: click.Context, names: tuple[str, ...], guests: tuple[str, ...], no_look: bool, output: str) -> None:
    """List services with how they are: unit, probes, and whether they still are as they were deployed."""
    with open_host(ctx) as host:
        rows = host.services.list(names, guests=guests, look=not no_look)
    show(output, "ServiceList", rows, COLUMNS, _cells, lambda row: row.service)


def _cells(row: ServiceRow) -> tuple[str, ...]:
    state = "not reached" if row.error else row.state or "-"
    drift = str(len(row.drift)) if row.drift else "no" if row.looks or row.state else "-"
    head = (row.service, row.guest, row.version, row.env, row.unit or "-", state)
    health = f"{row.health}, rolling" if row.roll else str(row.health)
    return (*head, health, drift, row.since or "-")


@service.command()
@NAMES
@guest_option
@format_option
@click.pass_context
def status(ctx: click.Context, names: tuple[str, ...], guests: tuple[str, ...], output: str) -> None:
    """Show each service with every probe and every difference from what was deployed."""
    with open_host(ctx) as host:
        rows = host.services.list(names, guests=guests)
        circuits = {line.guest: line for line in host.services.circuits()}
    if output in DOCUMENTS:
        emit(output, "ServiceStatus", rows)
        return
    if output == "name":
        _names(rows)
        return
    for row in rows:
        lines = [("service", f"{row.service} {row.version} ({row.env})"), ("guest", row.guest)]
        lines += [("unit", f"{row.unit or '-'}  {row.state or '-'}  {row.since}".rstrip())]
        lines += [("health", str(row.health))]
        lines += [("probe", f"{look.probe}  {_word(look)}  {_ms(look.seconds)}  {look.text}") for look in row.looks]
        lines += [
            ("drift", f"{item.what} is {item.have or 'absent'}, was {item.want or 'absent'}") for item in row.drift
        ]
        line = circuits.get(row.guest)
        lines += [("line", f"{line.circuit}, {line.failures} failures: {line.error}")] if line and line.failures else []
        lines += [("error", row.error)] if row.error else []
        for key, value in lines:
            sys.stdout.write(f"{key + ':':<10}{sanitize(value)}\n")
        sys.stdout.write("\n")


def _names(rows: Iterable[ServiceRow]) -> None:
    names(row.service for row in rows)


def _word(look: Look) -> str:
    return "good" if look.good else "bad"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


@service.command()
@NAMES
@guest_option
@click.option("--count", default=1, show_default=True, type=click.IntRange(1, 1000), help="How often to look.")
@click.option("--history", is_flag=True, help="Show what vmhost watch has seen, and ask no guest.")
@format_option
@click.pass_context
def check(
    ctx: click.Context, names: tuple[str, ...], guests: tuple[str, ...], count: int, history: bool, output: str
) -> int:
    """Look at services by their probes, and exit with 7 when one is not well."""
    with open_host(ctx) as host:
        if history:
            found = host.services.history(names, guests=guests)
            show(output, "ServiceHistory", found, HISTORY, _remembered, lambda one: one.service)
            return 0
        rows = host.services.check(names, guests=guests, count=count)
    if output in DOCUMENTS:
        emit(output, "ServiceCheck", rows)
    elif output == "name":
        _names(row for row in rows if _unwell(row))
    else:
        columns = ("SERVICE", "GUEST", "PROBE", "RESULT", "LEAST", "MEDIAN", "MOST", "DETAIL")
        table(columns, [cells for row in rows for cells in _checked(row)])
    return diagnostics.PENDING if any(_unwell(row) for row in rows) else 0


def _remembered(one: ProbeHistory) -> tuple[str, ...]:
    times = ("-" if seconds is None else _ms(seconds) for seconds in (one.median, one.tail, one.most))
    last = "-" if one.last_bad is None else f"{iso(one.last_bad)}: {one.text}"
    return (one.service, one.guest, one.probe, str(one.looks), str(one.bad), *times, iso(one.since), last)


def _unwell(row: ServiceRow) -> bool:
    return bool(row.error) or any(not look.good for look in row.looks)


def _checked(row: ServiceRow) -> list[tuple[str, ...]]:
    if row.error:
        return [(row.service, row.guest, "-", "not reached", "-", "-", "-", row.error)]
    cells: list[tuple[str, ...]] = []
    for probe in dict.fromkeys(look.probe for look in row.looks):
        looks = [look for look in row.looks if look.probe == probe]
        times = [look.seconds for look in looks]
        bad = [look for look in looks if not look.good]
        result = "good" if not bad else "bad" if len(looks) == 1 else f"{len(bad)} of {len(looks)} bad"
        spread = (_ms(min(times)), _ms(statistics.median(times)), _ms(max(times)))
        cells.append((row.service, row.guest, probe, result, *spread, (bad or looks)[-1].text))
    return cells


@service.command()
@click.argument("site", type=click.Path())
@click.option("--only", multiple=True, metavar="NAME", help="Only this service.")
@guest_option
@click.option("--dry-run", is_flag=True, help="Show the plan with what is right already, and end.")
@yes_option
@format_option
@click.pass_context
def deploy(
    ctx: click.Context,
    site: str,
    only: tuple[str, ...],
    guests: tuple[str, ...],
    dry_run: bool,
    yes: bool,
    output: str,
) -> int:
    """Bring the services of SITE to its guests: packages, files, units. Differences are shown first.

    One guest after the other, each until its service is ready. What fails is undone in that guest, and ends it.
    """
    from vmhost.ops.sites import load_site

    with open_host(ctx) as host:
        if not dry_run:
            settle(host)
        deployment = host.services.plan_deploy(load_site(site), only=only, guests=guests)
        return _carried_out(host, deployment, "Deploy this?", dry_run=dry_run, yes=yes, output=output)


@service.command()
@click.argument("name")
@guest_option
@click.option("--dry-run", is_flag=True, help="Show the plan with what stays, and end.")
@yes_option
@format_option
@click.pass_context
def delete(ctx: click.Context, name: str, guests: tuple[str, ...], dry_run: bool, yes: bool, output: str) -> int:
    """Take a service out of its guests: its unit is stopped, its files go, and vmhost forgets it there.

    Packages, accounts and directories stay. What fails is undone in that guest, and ends it.
    """
    with open_host(ctx) as host:
        if not dry_run:
            settle(host)
        deployment = host.services.plan_delete(name, guests=guests)
        return _carried_out(host, deployment, "Delete this?", dry_run=dry_run, yes=yes, output=output)


def _carried_out(host: Host, deployment: Deployment, question: str, *, dry_run: bool, yes: bool, output: str) -> int:
    _show(output, deployment, satisfied=dry_run)
    if dry_run or deployment.empty:
        return 0
    if not any(item.error or item.plan.refused for item in deployment.items) and not consent(yes, question):
        diagnostics.say("vmhost: nothing was done")
        return diagnostics.REFUSED
    with interruptible() as cancelled:
        results = host.services.deploy(deployment, on_event=tell, cancelled=cancelled)
    return _ended(results, output)


def _show(output: str, deployment: Deployment, *, satisfied: bool) -> None:
    if output in DOCUMENTS:
        items = [_as_json(item) for item in deployment.items]
        emit(output, "Deployment", {"site": deployment.site, "items": items})
    elif output == "name":
        names(item.guest for item in deployment.items if not item.empty)
    else:
        for line in deployment.lines(satisfied=satisfied):
            sys.stdout.write(sanitize(line) + "\n")


def _as_json(item: Any) -> dict[str, Any]:
    return {
        "guest": item.guest,
        "service": item.service,
        "sha256": item.wanted.sha256,
        "steps": [{"kind": step.do.kind, "why": step.why, "difference": step.shown} for step in item.plan.steps],
        "satisfied": item.plan.satisfied,
        "refused": item.plan.refused,
        "error": item.error.message if item.error else "",
    }


def _ended(results: Sequence[ActionResult], output: str) -> int:
    failed = [result for result in results if result.error is not None]
    if output not in DOCUMENTS:
        for result in results:
            diagnostics.say(sanitize(f"{result.service} in {result.guest}: {result.text}"))
    for result in failed:
        assert result.error is not None
        return diagnostics.report(result.error)
    return 0


def _act(ctx: click.Context, names: tuple[str, ...], guests: tuple[str, ...], verb: Verb) -> int:
    with open_host(ctx) as host:
        settle(host)
        return _ended(host.services.act(names, verb, guests=guests), "table")


@service.command()
@ONE_NAME
@guest_option
@click.pass_context
def start(ctx: click.Context, names: tuple[str, ...], guests: tuple[str, ...]) -> int:
    """Start services, one guest after the other, each until it is ready."""
    return _act(ctx, names, guests, "start")


@service.command()
@ONE_NAME
@guest_option
@yes_option
@click.pass_context
def stop(ctx: click.Context, names: tuple[str, ...], guests: tuple[str, ...], yes: bool) -> int:
    """Stop services; that somebody wished it is noted, so nothing starts them again."""
    if not consent(yes, f"Stop {', '.join(names)}?"):
        return diagnostics.REFUSED
    return _act(ctx, names, guests, "stop")


@service.command()
@ONE_NAME
@guest_option
@click.pass_context
def restart(ctx: click.Context, names: tuple[str, ...], guests: tuple[str, ...]) -> int:
    """Restart services, one guest after the other, each until it is ready again."""
    return _act(ctx, names, guests, "restart")


@service.command()
@ONE_NAME
@guest_option
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes.")
@click.option("--since", default="10m", show_default=True, help="How far back.")
@click.option("--lines", default=1000, show_default=True, type=click.IntRange(1, 100_000), help="At most, of each.")
@click.pass_context
def logs(
    ctx: click.Context, /, names: tuple[str, ...], guests: tuple[str, ...], follow: bool, since: str, lines: int
) -> None:
    """Show what services wrote to their guests' journals, merged by time."""
    try:
        seconds = parse_duration(since)
    except ValueError as error:
        raise UsageError(str(error), subject="--since", hint="--since 10m") from error
    with open_host(ctx) as host:
        for line in host.services.logs(names, guests=guests, since=seconds, lines=lines, follow=follow):
            at = datetime.fromtimestamp(line.at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ") if line.at else "-"
            sys.stdout.write(f"{at} {sanitize(line.guest)} {sanitize(line.service)} {line.text}\n")
            if follow:
                sys.stdout.flush()
