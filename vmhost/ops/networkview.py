"""The host's bridges as people look at them: who owns one, who is on it, and in which VLANs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from vmhost.model.observed import Observed, ObservedLink
from vmhost.render.parse.domain import NIC_ALIAS, parse_domain

OURS: Final = "vmhost:"


@dataclass(frozen=True, slots=True)
class PortRow:
    """A port of a bridge.

    ``role``: ``guest``, ``uplink``, ``vmhost`` (made for a site) or ``foreign``; ``guest`` and ``nic`` are whose it is,
    if a guest's. VLAN ids in order.
    """

    name: str
    role: str
    up: bool
    mtu: int
    pvid: int
    untagged: tuple[int, ...]
    tagged: tuple[int, ...]
    guest: str = ""
    nic: str = ""


@dataclass(frozen=True, slots=True)
class BridgeRow:
    """A bridge with its ports. ``site`` is who owns it, empty: foreign; ``vids`` are those of the host itself."""

    name: str
    site: str
    vlan_aware: bool
    up: bool
    mtu: int
    addresses: tuple[str, ...]
    vids: tuple[int, ...]
    ports: tuple[PortRow, ...]


def bridge_rows(observed: Observed) -> tuple[BridgeRow, ...]:
    """Return every bridge of the host, ours and foreign, with its ports, by name."""
    owners = dict(_owners(observed))
    bridges = sorted((link for link in observed.links if link.kind == "bridge"), key=lambda link: link.name)
    return tuple(_bridge(link, observed, owners) for link in bridges)


def _bridge(link: ObservedLink, observed: Observed, owners: dict[str, tuple[str, str]]) -> BridgeRow:
    ports = (_port(port, owners) for port in observed.links if port.master == link.name)
    return BridgeRow(
        name=link.name,
        site=link.alias.removeprefix(OURS) if link.alias.startswith(OURS) else "",
        vlan_aware=link.vlan_filtering,
        up=link.up,
        mtu=link.mtu,
        addresses=link.addresses,
        vids=tuple(sorted(link.vlans.untagged | link.vlans.tagged)),
        ports=tuple(sorted(ports, key=lambda port: (port.role == "guest", port.name))),
    )


def _port(link: ObservedLink, owners: dict[str, tuple[str, str]]) -> PortRow:
    guest, nic = owners.get(link.name, ("", ""))
    role = "guest" if guest else "vmhost" if link.alias.startswith(OURS) else "foreign"
    return PortRow(
        name=link.name,
        role=role,
        up=link.up,
        mtu=link.mtu,
        pvid=link.vlans.pvid,
        untagged=tuple(sorted(link.vlans.untagged)),
        tagged=tuple(sorted(link.vlans.tagged)),
        guest=guest,
        nic=nic,
    )


def _owners(observed: Observed) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield each guest's taps with the guest's name and its NIC's id; libvirt names those of foreign guests."""
    for domain in observed.domains:
        planned = domain.facts.nics if domain.active else ()
        named = all(nic.tap for nic in planned) or not domain.raw.live_xml
        for nic in planned if named else parse_domain(domain.raw.live_xml).nics:
            ours = nic.alias.startswith(NIC_ALIAS)
            if nic.tap:
                yield nic.tap, (domain.name, nic.alias.removeprefix(NIC_ALIAS) if ours else "")
