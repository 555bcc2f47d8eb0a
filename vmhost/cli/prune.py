"""vmhost backup prune."""

from __future__ import annotations

import click

from vmhost.cli.common import open_host, settle, yes_option
from vmhost.cli.output import format_option
from vmhost.cli.site import carry_out


@click.command()
@click.argument("guests", nargs=-1, metavar="[GUEST]...")
@click.option(
    "--keep", "rules", metavar="RULES", help="What stays: daily=7,weekly=4,within=48h, ...; as its site says."
)
@click.option("--repository", metavar="DIRECTORY", help="Another repository than the host's own.")
@click.option("--dry-run", is_flag=True, help="Show the plan, and why each point stays, and end.")
@yes_option
@format_option
@click.pass_context
def prune(
    ctx: click.Context,
    guests: tuple[str, ...],
    rules: str | None,
    repository: str | None,
    dry_run: bool,
    yes: bool,
    output: str,
) -> int:
    """Delete the points of GUEST, or of all guests, that RULES, or its site, no longer keep; the newest stays."""
    from vmhost.ops.prune import parse_keep

    keep = parse_keep(rules) if rules is not None else None
    with open_host(ctx) as host:
        if not dry_run:
            settle(host)
        proposal = host.backups.plan_prune(guests, keep, repository=repository)
        return carry_out(host, proposal, output, yes=yes, dry_run=dry_run)
