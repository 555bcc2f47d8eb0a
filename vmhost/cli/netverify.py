"""vmhost net verify: whether every guest's way to the wire is as it should be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vmhost.cli import diagnostics
from vmhost.cli.common import open_host
from vmhost.cli.output import format_option, show

if TYPE_CHECKING:
    from vmhost.model.wire import NetDifference

COLUMNS = ("PLACE", "SUBJECT", "FIELD", "SHOULD BE", "IS", "TRY")


@click.command()
@click.argument("site", type=click.Path(), required=False)
@format_option
@click.pass_context
def verify(ctx: click.Context, site: str | None, output: str) -> int:
    """Compare SITE, libvirt's definitions, the kernel's VLAN table and the uplinks, each with the one before it.

    Without SITE it begins with what lies in the guests' definitions. Exits with 7 when there is a difference.
    """
    from vmhost.ops.sites import load_site

    wished = load_site(site) if site else None
    with open_host(ctx) as host:
        differences = host.verify_network(wished)
    if differences or output != "table":
        show(output, "NetDifferences", differences, COLUMNS, _cells, lambda item: item.subject)
    else:
        diagnostics.say("no differences")
    return diagnostics.PENDING if differences else 0


def _cells(item: NetDifference) -> tuple[str, ...]:
    return (item.place, item.subject, item.field, item.want or "-", item.have or "-", item.mend)
