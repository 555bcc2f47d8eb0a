"""The steps about NICs and the host's own ways into VLANs."""

from __future__ import annotations

from typing import Final, assert_never

from vmhost.engine.context import Context
from vmhost.model.errors import GuestError, Unreachable
from vmhost.model.reach import AccessPort
from vmhost.model.steps import CloseAccess, OpenAccess, PlugNic, SetNicLink, UnplugNic
from vmhost.plan.links import bridge_alias

LET_GO: Final = 20.0
"""Seconds that a guest has to let go of a NIC."""

NetworkStep = PlugNic | UnplugNic | SetNicLink | OpenAccess | CloseAccess


def change_network(step: NetworkStep, context: Context) -> None:
    """Do one step. :raises DriverError: it failed; :raises GuestError: a guest does not let go of a NIC."""
    links, hypervisor = context.ports.links, context.ports.hypervisor
    match step:
        case PlugNic(uuid, _, _, xml):
            hypervisor.plug_nic(uuid, xml)
        case UnplugNic(uuid, name, mac):
            _unplug_nic(uuid, name, mac, context)
        case SetNicLink(uuid, _, mac, up):
            hypervisor.set_nic_link(uuid, mac, up=up)
        case OpenAccess(bridge, vid, address, mtu, site):
            links.open_access(AccessPort(bridge, vid, address), alias=bridge_alias(site), mtu=mtu)
        case CloseAccess(bridge, vid, address, site):
            links.close_access(AccessPort(bridge, vid, address), alias=bridge_alias(site))
        case _:
            assert_never(step)


def _unplug_nic(uuid: str, name: str, mac: str, context: Context) -> None:
    """Take a NIC out of a running guest.

    :raises Absent: it has none of that MAC, or does not run.
    :raises GuestError: the guest does not let go of it; its link stays down, and it goes at the next boot.
    """
    try:
        context.ports.hypervisor.unplug_nic(uuid, mac, timeout=LET_GO)
    except Unreachable as error:
        text = f"it does not let go of NIC {mac}, which carries nothing any more and goes at its next boot"
        raise GuestError(text, subject=name, hint=f"vmhost guest restart {name}") from error
