"""vmhost net vlan: which VLAN ids are whose, and taking and giving back one by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vmhost.cli.common import open_host
from vmhost.cli.output import DOCUMENTS, emit, format_option, names, show, table

if TYPE_CHECKING:
    from vmhost.ops.vlans import VlanRow

COLUMNS = ("VID", "STATE", "FOR", "SITE", "RANGE", "GUESTS", "PORTS", "UNTIL")


@click.group()
def vlan() -> None:
    """VLAN ids: which are whose, take one of a range, give one back."""


@vlan.command("list")
@format_option
@click.pass_context
def list_(ctx: click.Context, output: str) -> None:
    """List all VLAN ids of this host that are not free: reserved, resting after a release, or used by others."""
    with open_host(ctx) as host:
        show(output, "VlanList", host.vlans.list(), COLUMNS, _cells, lambda row: str(row.vid))


@vlan.command()
@click.argument("target", metavar="NETWORK|RANGE")
@click.option("--site", metavar="FILE", help="The site file that the network stands in.")
@click.option(
    "--for", "owner", metavar="NAME", default="", help="Whom an id of a range is for; the same gets the same."
)
@format_option
@click.pass_context
def allocate(ctx: click.Context, target: str, site: str | None, owner: str, output: str) -> None:
    """Reserve a VLAN id: the lowest free one of a range such as 1000-1999, or the one of a network with vlan: auto."""
    from vmhost.ops.sites import load_site

    written = load_site(site) if site else None
    with open_host(ctx) as host:
        _tell(output, host.vlans.allocate(target, site=written, owner=owner))


@vlan.command(context_settings={"ignore_unknown_options": True})
@click.argument("vid")
@format_option
@click.pass_context
def release(ctx: click.Context, vid: str, output: str) -> None:
    """Give a VLAN id back; it rests for a day before anybody else gets it."""
    from vmhost.ops.vlans import vid_of

    with open_host(ctx) as host:
        _tell(output, host.vlans.release(vid_of(vid)))


def _tell(output: str, row: VlanRow) -> None:
    if output in DOCUMENTS:
        emit(output, "Vlan", row)
    elif output == "name":
        names([str(row.vid)])
    else:
        table(COLUMNS, [_cells(row)])


def _cells(row: VlanRow) -> tuple[str, ...]:
    return (
        str(row.vid),
        row.state,
        row.owner or "-",
        row.site or "-",
        row.range or "-",
        ",".join(row.guests) or "-",
        ",".join(row.ports) or "-",
        row.until or "-",
    )
