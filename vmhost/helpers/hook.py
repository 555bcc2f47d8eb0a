"""What libvirt's qemu hook does for guests of ours: it puts the ports of a guest into their VLANs before QEMU exists.

libvirt waits for it at every start, whoever asked for that, and gives it the domain's XML; so there is no moment in a
wrong VLAN (https://libvirt.org/hooks.html). It must not call libvirt, which would wait for itself.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from vmhost.drivers.leanlib import load_lean
from vmhost.drivers.netlink import Netlink
from vmhost.model.errors import VmhostError
from vmhost.render.parse.domain import parse_domain
from vmhost.render.parse.metadata import parse_metadata

if TYPE_CHECKING:
    from vmhost.model.vlans import PortVlans

START = ("start", "begin")
"""The tap is on its bridge, QEMU does not exist yet; anything but 0 ends the start."""

RECONNECT = ("reconnect", "begin")
"""libvirtd has found a running guest again; anything but 0 would make it end that guest."""


def main(arguments: Sequence[str]) -> int:
    """``GUEST OPERATION SUB-OPERATION EXTRA`` with the domain's XML on stdin; 0, or 1 when the guest must not start."""
    operation = tuple(arguments[1:3])
    if operation not in (START, RECONNECT):
        return 0
    load_lean()
    try:
        apply_vlans(sys.stdin.read())
    except (VmhostError, ValueError) as error:
        sys.stderr.write(f"vmhost: {error}\n")
        return 1 if operation == START else 0
    return 0


def apply_vlans(xml: str) -> None:
    """Set the VLANs that the metadata of a domain wants for the ports that it has.

    A NIC that was taken out of the domain has no port; a port that the metadata does not know carries nothing, since
    ports of VLAN-aware bridges are born in no VLAN.

    :raises DriverError: a port could not be tagged, or is on a bridge that keeps nobody apart.
    :raises ValueError: the metadata does not name VLANs. :raises DamagedData: it is no XML.
    """
    links = Netlink()
    for tap, vlans in wanted(xml):
        links.set_port_vlans(tap, vlans)


def wanted(xml: str) -> Iterator[tuple[str, PortVlans]]:
    """Yield the ports of a domain that belong to VLANs, with them.

    :raises ValueError: the metadata does not name VLANs, or means those of another bridge.
    """
    metadata = parse_metadata(xml)
    bridges = {nic.tap: nic.source for nic in parse_domain(xml).nics if nic.tap}
    for nic in metadata.identity.nics if metadata else ():
        vlans = nic.vlans
        if vlans is None or nic.tap not in bridges:
            continue
        if bridges[nic.tap] != nic.bridge:
            text = f"NIC {nic.id} is on {bridges[nic.tap]}, its VLANs are those of {nic.bridge}"
            raise ValueError(f"{text}; try: vmhost drift SITE")
        yield nic.tap, vlans
