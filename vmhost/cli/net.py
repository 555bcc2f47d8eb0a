"""vmhost net: the host's bridges, uplinks and VLANs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vmhost.cli.common import open_host
from vmhost.cli.output import DOCUMENTS, emit, format_option, names, table
from vmhost.model.vlans import format_vids

if TYPE_CHECKING:
    from vmhost.ops.networkview import BridgeRow, PortRow

COLUMNS = ("BRIDGE", "OWNER", "PORT", "ROLE", "STATE", "MTU", "PVID", "TAGGED", "GUEST")


@click.group()
def net() -> None:
    """The host's network: bridges, uplinks, VLANs."""


@net.command("show")
@format_option
@click.pass_context
def show_(ctx: click.Context, output: str) -> None:
    """Show bridges with their ports: who owns them, in which VLANs they are, which guest they belong to."""
    with open_host(ctx) as host:
        bridges = host.network()
    if output in DOCUMENTS:
        emit(output, "Network", bridges)
    elif output == "name":
        names(bridge.name for bridge in bridges)
    else:
        table(COLUMNS, [row for bridge in bridges for row in _rows(bridge)])


def _rows(bridge: BridgeRow) -> list[tuple[str, ...]]:
    owner = bridge.site or "foreign"
    mode = "vlan-aware" if bridge.vlan_aware else "plain"
    head = (
        bridge.name,
        owner,
        "-",
        mode,
        _state(bridge.up),
        str(bridge.mtu),
        "-",
        format_vids(bridge.vids) or "-",
        "-",
    )
    return [head, *((bridge.name, owner, *_cells(port)) for port in bridge.ports)]


def _cells(port: PortRow) -> tuple[str, ...]:
    guest = f"{port.guest}/{port.nic}" if port.nic else port.guest
    pvid, tagged = str(port.pvid or "-"), format_vids(port.tagged) or "-"
    return (port.name, port.role, _state(port.up), str(port.mtu), pvid, tagged, guest or "-")


def _state(up: bool) -> str:
    return "up" if up else "down"
