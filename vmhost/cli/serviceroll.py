"""vmhost service roll: a change over a group of guests, one batch after the other."""

from __future__ import annotations

import sys

import click

from vmhost.cli import diagnostics
from vmhost.cli.common import consent, dry_run_option, interruptible, open_host, settle, tell, yes_option
from vmhost.model.errors import UsageError
from vmhost.model.services import MOST_AT_ONCE, Rolling
from vmhost.model.text import sanitize

COUNT = click.IntRange(1, MOST_AT_ONCE)


@click.command()
@click.argument("name")
@click.argument("site", type=click.Path(), required=False)
@click.option("--to", metavar="VERSION", default="", help="Another version of its packages, with the files of now.")
@click.option(
    "--canary", default=1, show_default=True, type=click.IntRange(0, MOST_AT_ONCE), help="Guests that go first."
)
@click.option("--batch", default=1, show_default=True, type=COUNT, help="Guests that are changed side by side.")
@click.option("--max-unavailable", default=1, show_default=True, type=COUNT, help="Guests that may be away at once.")
@click.option("--rollback-on-failure", is_flag=True, help="Take everything back when one fails.")
@click.option("--back", is_flag=True, help="Take the last roll back, also one that was interrupted.")
@dry_run_option
@yes_option
@click.pass_context
def roll(
    ctx: click.Context,
    /,
    name: str,
    site: str | None,
    to: str,
    canary: int,
    batch: int,
    max_unavailable: int,
    rollback_on_failure: bool,
    back: bool,
    dry_run: bool,
    yes: bool,
) -> int:
    """Change a service guest by guest, to what SITE says or to another version, each batch until it is ready.

    The first failure halts it. What was interrupted goes on when the same is typed again, or is taken back by --back.
    """
    from vmhost.ops.sites import load_site

    if [bool(site), bool(to), back].count(True) != 1:
        raise UsageError("one of SITE, --to and --back says where to", hint="vmhost service roll NAME --to VERSION")
    how = Rolling(canary, batch, max_unavailable)
    with open_host(ctx) as host:
        if not dry_run:
            settle(host)
        if back:
            plan = host.services.plan_back(name, how)
        else:
            wanted = load_site(site) if site else None
            plan = host.services.plan_roll(name, how, site=wanted, to=to, refresh=bool(to) and not dry_run)
        for line in plan.lines():
            sys.stdout.write(sanitize(line) + "\n")
        if dry_run or plan.empty:
            return 0
        if not consent(yes, "Take it back?" if back else "Roll this?"):
            diagnostics.say("vmhost: nothing was done")
            return diagnostics.REFUSED
        with interruptible() as cancelled:
            results = host.services.roll(plan, rollback=rollback_on_failure, on_event=tell, cancelled=cancelled)
    for result in results:
        diagnostics.say(sanitize(f"{result.service} in {result.guest}: {result.text}"))
    if plan.fragment:
        diagnostics.say("write the same into the site file, or its next deployment goes back:")
        sys.stdout.write(plan.fragment)
    return 0
