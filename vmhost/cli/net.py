"""vmhost net: the host's bridges, uplinks and VLANs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from vmhost.cli import diagnostics
from vmhost.cli.common import dry_run_option, open_host, settle, yes_option
from vmhost.cli.netguards import guards
from vmhost.cli.netverify import verify
from vmhost.cli.netvlan import vlan
from vmhost.cli.output import DOCUMENTS, emit, format_option, names, table
from vmhost.cli.site import carry_out, show_plan
from vmhost.model.text import sanitize
from vmhost.model.vlans import format_vids

if TYPE_CHECKING:
    from vmhost.model.network import PendingChange
    from vmhost.ops.networkview import BridgeRow, PortRow

COLUMNS = ("BRIDGE", "OWNER", "PORT", "ROLE", "STATE", "MTU", "PVID", "TAGGED", "GUEST")
SECONDS = click.IntRange(5, 3600)


@click.group()
def net() -> None:
    """The host's network: bridges, uplinks, VLANs."""


net.add_command(verify)


@net.command("plan")
@click.argument("site", type=click.Path())
@click.option("--prune", multiple=True, metavar="BRIDGE", help="Remove this bridge, which left the site.")
@format_option
@click.option("--exit-code", is_flag=True, help="Exit with 7 when there is something to do.")
@click.pass_context
def plan_(ctx: click.Context, site: str, prune: tuple[str, ...], output: str, exit_code: bool) -> int:
    """Show what would be done to bring this host's network to SITE, without its guests."""
    from vmhost.ops.sites import load_site

    with open_host(ctx) as host:
        proposal = host.plan_network(load_site(site), prune=prune)
        show_plan(output, proposal)
        return diagnostics.PENDING if exit_code and not proposal.empty else 0


@net.command("apply")
@click.argument("site", type=click.Path())
@click.option(
    "--confirm",
    default=60,
    show_default=True,
    metavar="SECONDS",
    type=SECONDS,
    help="How long a change that may cut this host off waits for vmhost net confirm.",
)
@click.option("--prune", multiple=True, metavar="BRIDGE", help="Remove this bridge, which left the site.")
@yes_option
@dry_run_option
@format_option
@click.pass_context
def apply_(
    ctx: click.Context, /, site: str, confirm: int, prune: tuple[str, ...], yes: bool, dry_run: bool, output: str
) -> int:
    """Bring this host's network to SITE, without its guests.

    A change of an uplink, or of what is reached through it, is taken back unless vmhost net confirm comes in time: also
    when this terminal, or vmhost, is gone by then.
    """
    from vmhost.ops.sites import load_site

    with open_host(ctx) as host:
        if not dry_run:
            settle(host)
        proposal = host.plan_network(load_site(site), confirm=confirm, prune=prune)
        code = carry_out(host, proposal, output, yes=yes, dry_run=dry_run)
        if not dry_run and code == 0 and host.network_change() is not None:
            diagnostics.say(
                f"look whether you still reach everything, then: vmhost net confirm    # within {confirm} s"
            )
    return code


@net.command()
@format_option
@click.pass_context
def confirm(ctx: click.Context, output: str) -> int:
    """Let the network change that waits stay, now and at the host's next boot."""
    with open_host(ctx) as host:
        return carry_out(host, host.plan_confirmation(), output, yes=True, dry_run=False)


net.add_command(guards)
net.add_command(vlan)


@net.command("show")
@format_option
@click.pass_context
def show_(ctx: click.Context, output: str) -> None:
    """Show bridges with their ports: who owns them, in which VLANs they are, which guest they belong to."""
    with open_host(ctx) as host:
        bridges = host.network()
        change = host.network_change()
    if change is not None and output not in ("name", *DOCUMENTS):
        _tell_change(change)
    if output in DOCUMENTS:
        emit(output, "Network", bridges)
    elif output == "name":
        names(bridge.name for bridge in bridges)
    else:
        table(COLUMNS, [row for bridge in bridges for row in _rows(bridge)])
        for bridge in bridges:
            for address in bridge.addresses:
                sys.stdout.write(f"{sanitize(bridge.name)}: the host has {sanitize(address)}\n")


def _tell_change(change: PendingChange) -> None:
    if change.open:
        diagnostics.say(f"vmhost: a network change of site {change.site} waits for vmhost net confirm")
        return
    diagnostics.say(f"vmhost: the last network change of site {change.site} was taken back, nobody confirmed it")
    for text in change.failures:
        diagnostics.say(f"  not put back: {sanitize(text)}")


def _rows(bridge: BridgeRow) -> list[tuple[str, ...]]:
    owner = bridge.site or "foreign"
    mode = "vlan-aware" if bridge.vlan_aware else "plain"
    vids = format_vids(bridge.vids) or "-"
    head = (bridge.name, owner, "-", mode, _state(bridge.up), str(bridge.mtu), "-", vids, "-")
    return [head, *((bridge.name, owner, *_cells(port)) for port in bridge.ports)]


def _cells(port: PortRow) -> tuple[str, ...]:
    guest = f"{port.guest}/{port.nic}" if port.nic else port.guest
    pvid, tagged = str(port.pvid or "-"), format_vids(port.tagged) or "-"
    return (port.name, port.role, _state(port.up), str(port.mtu), pvid, tagged, guest or "-")


def _state(up: bool) -> str:
    return "up" if up else "down"
