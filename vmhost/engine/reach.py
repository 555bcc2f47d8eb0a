"""Where a guest answers: its own address, a forwarded port, or what the host's neighbour table or its agent tells."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vmhost.model.errors import DriverError
from vmhost.model.identity import GuestIdentity
from vmhost.model.reach import Via
from vmhost.ports import Ports

AGENT_TIMEOUT = 2.0


@dataclass(frozen=True, slots=True)
class Target:
    """An address and a TCP port; ``source`` says who told, ``via`` is the way there, None: the host's own routing."""

    host: str
    port: int = 22
    source: str = "site"
    via: Via | None = None


def address_of(identity: GuestIdentity, ports: Ports) -> Target | None:
    """Return where the guest's SSH server should be, or None when nobody knows yet, or the host has no way there.

    Asked in this order: the address or forwarded port that was planned, the neighbour table by MAC, the guest agent.
    """
    nics = [nic for nic in identity.nics if nic.reach != "agent"]
    for nic in nics:
        if nic.address:
            return Target(str(ipaddress.ip_interface(nic.address).ip), via=nic.way)
        if nic.ssh_port:
            return Target("127.0.0.1", nic.ssh_port, "forwarded port")
    if not nics:
        return None
    ways = {nic.mac: nic.way for nic in nics}
    for neighbour in ports.links.neighbours():
        if ways.get(neighbour.mac, "") is None and not ipaddress.ip_address(neighbour.address).is_link_local:
            return Target(neighbour.address, source="neighbour table")
    return _ask_agent(identity.uuid, ways, ports)


def _ask_agent(uuid: str, ways: Mapping[str, Via | None], ports: Ports) -> Target | None:
    try:
        answer = json.loads(ports.hypervisor.agent(uuid, '{"execute": "guest-network-get-interfaces"}', AGENT_TIMEOUT))
        return _told_by_agent(answer, ways)
    except (DriverError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None  # whoever is root in the guest says what it likes


def _told_by_agent(answer: Any, ways: Mapping[str, Via | None]) -> Target | None:
    for link in answer.get("return", ()):
        mac = str(link.get("hardware-address", "")).lower()
        if mac not in ways:
            continue
        for item in link.get("ip-addresses", ()):
            address = ipaddress.ip_address(item["ip-address"])
            if not address.is_link_local:
                return Target(str(address), source="guest agent", via=ways[mac])
    return None
