"""The host's bridges as people look at them: who owns one, who is on it, and in which VLANs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vmhost.model.netsteps import OURS, AttachUplink
from vmhost.model.observed import Observed, ObservedLink
from vmhost.render.parse.domain import NIC_ALIAS, parse_domain


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
    uplinks = _uplinks(observed)
    return tuple(_bridge(link, observed, owners, uplinks) for link in bridges)


def _uplinks(observed: Observed) -> frozenset[tuple[str, str]]:
    """Return what we attached: links with their bridges."""
    network = observed.network
    kept = [*network.kept, *([network.pending.keep] if network.pending and network.pending.open else [])]
    steps = (step for each in kept for step in each.steps if isinstance(step, AttachUplink))
    return frozenset((step.link, step.bridge) for step in steps)


def _bridge(
    link: ObservedLink, observed: Observed, owners: dict[str, tuple[str, str]], uplinks: frozenset[tuple[str, str]]
) -> BridgeRow:
    ports = (
        _port(port, owners, (port.name, link.name) in uplinks) for port in observed.links if port.master == link.name
    )
    return BridgeRow(
        name=link.name,
        site=link.alias.removeprefix(OURS) if link.alias.startswith(OURS) else "",
        vlan_aware=link.vlan_filtering,
        up=link.up,
        mtu=link.mtu,
        addresses=(*link.addresses, *_host_places(link, observed)),
        vids=tuple(sorted(link.vlans.untagged | link.vlans.tagged)),
        ports=tuple(sorted(ports, key=lambda port: (port.role == "guest", port.name))),
    )


def _host_places(link: ObservedLink, observed: Observed) -> Iterator[str]:
    """Yield the host's addresses in VLANs of a bridge, as ``10.0.0.1/24 in VLAN 100 (br0.100)``."""
    for one in observed.links:
        if one.kind == "vlan" and one.parent == link.name:
            yield from (f"{address} in VLAN {one.vid} ({one.name})" for address in one.addresses)


def _port(link: ObservedLink, owners: dict[str, tuple[str, str]], uplink: bool) -> PortRow:
    guest, nic = owners.get(link.name, ("", ""))
    role = "guest" if guest else "uplink" if uplink else "vmhost" if link.alias.startswith(OURS) else "foreign"
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
