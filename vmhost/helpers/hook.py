"""What libvirt's qemu hook does for guests of ours: it sets up their ports before QEMU exists, and tidies up later.

libvirt waits for it at every start, whoever asked for that, and gives it the domain's XML; so there is no moment in a
wrong VLAN, or without a guard (https://libvirt.org/hooks.html). It must not call libvirt, which would wait for itself.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from vmhost.drivers.leanlib import load_lean
from vmhost.drivers.netlink import Netlink
from vmhost.drivers.nft import Nft
from vmhost.model.errors import Absent, Conflict, VmhostError
from vmhost.model.guard import guard_of
from vmhost.render import nft
from vmhost.render.parse.domain import parse_domain
from vmhost.render.parse.metadata import parse_metadata
from vmhost.render.parse.nft import parse_guards

if TYPE_CHECKING:
    from vmhost.model.identity import NicIdentity
    from vmhost.model.vlans import PortVlans

START = ("start", "begin")
"""The tap is on its bridge, QEMU does not exist yet; anything but 0 ends the start."""

RECONNECT = ("reconnect", "begin")
"""libvirtd has found a running guest again; anything but 0 would make it end that guest."""

MIGRATE = ("migrate", "begin")
"""A guest wants to come from another host, where it runs on until QEMU has it all; its taps are not there yet.

Anything but 0 keeps it there. What is said on stdout would become its definition: so nothing is. The start follows.
"""

RELEASE = ("release", "end")
"""A guest has ended, or its start has failed, and its taps are gone."""


def main(arguments: Sequence[str]) -> int:
    """``GUEST OPERATION SUB-OPERATION EXTRA`` with the domain's XML on stdin; 0, or 1 when the guest must not start."""
    operation = tuple(arguments[1:3])
    if operation not in (START, RECONNECT, MIGRATE, RELEASE):
        return 0
    load_lean()
    try:
        xml = sys.stdin.read()
        if operation == RELEASE:
            remove_guards(xml)
        elif operation == MIGRATE:
            check_bridges(xml)
        else:
            set_up(xml)
    except (VmhostError, ValueError) as error:
        sys.stderr.write(f"vmhost: {error}\n")
        return 1 if operation in (START, MIGRATE) else 0
    return 0


def set_up(xml: str) -> None:
    """Set up the ports that a domain has as its metadata wishes: guards first, VLANs last.

    A NIC that was taken out of the domain has no port; a port that the metadata does not know carries nothing, since
    ports of VLAN-aware bridges are born in no VLAN.

    :raises DriverError: it could not be done, or a port is on a bridge that keeps nobody apart.
    :raises ValueError: the metadata does not name VLANs. :raises DamagedData: it is no XML.
    """
    nics = present(xml)
    vlans = list(wanted(xml))
    if guards := [guard for nic in nics if (guard := guard_of(nic))]:
        Nft().change(lambda _: nft.guard(guards), look=False)
    links = Netlink()
    for nic in nics:
        if nic.isolated:
            links.isolate_port(nic.tap, True)
    for tap, ids in vlans:
        links.set_port_vlans(tap, ids)


def check_bridges(xml: str) -> None:
    """Look whether this host has the bridges that a guest's VLANs are for; they would be the first thing to miss.

    :raises Absent: one is not there. :raises Conflict: it filters no VLANs. Other errors: as :func:`set_up`.
    """
    needed = {nic.bridge for nic in present(xml) if nic.vlans is not None}
    list(wanted(xml))
    links = {link.name: link for link in Netlink().links()} if needed else {}
    for bridge in sorted(needed):
        link = links.get(bridge)
        if link is None or link.kind != "bridge":
            raise Absent("this host has no such bridge", subject=bridge, hint="vmhost net apply SITE")
        if not link.vlan_filtering:
            text = "this bridge does not filter VLANs: its ports are not kept apart"
            raise Conflict(text, subject=bridge, hint=f"ip -details link show {bridge}")


def remove_guards(xml: str) -> None:
    """Take away what guards the ports that a domain had. Errors: as :func:`set_up`."""
    taps = [nic.tap for nic in present(xml)]
    Nft().change(lambda table: nft.unguard(taps, parse_guards(table)))


def present(xml: str) -> tuple[NicIdentity, ...]:
    """Return the NICs of the metadata that the domain has a port for."""
    metadata = parse_metadata(xml)
    taps = {nic.tap for nic in parse_domain(xml).nics if nic.tap}
    return tuple(nic for nic in metadata.identity.nics if nic.tap in taps) if metadata else ()


def wanted(xml: str) -> Iterator[tuple[str, PortVlans]]:
    """Yield the ports of a domain that belong to VLANs, with them.

    :raises ValueError: the metadata does not name VLANs, or means those of another bridge.
    """
    bridges = {nic.tap: nic.source for nic in parse_domain(xml).nics if nic.tap}
    for nic in present(xml):
        vlans = nic.vlans
        if vlans is None:
            continue
        if bridges[nic.tap] != nic.bridge:
            text = f"NIC {nic.id} is on {bridges[nic.tap]}, its VLANs are those of {nic.bridge}"
            raise ValueError(f"{text}; try: vmhost drift SITE")
        yield nic.tap, vlans
