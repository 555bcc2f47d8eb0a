"""The host's network beyond its bridges: who has which VLAN ids and addresses, and what differs."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from vmhost.model.errors import VmhostError
from vmhost.model.reservations import in_force, iso

if TYPE_CHECKING:
    from vmhost.model.observed import Observed
    from vmhost.ops.host import Host
    from vmhost.ops.vlans import VlanRow


@dataclass(frozen=True, slots=True)
class AddressRow:
    """An address that is not free: a guest's, or one that rests since its guest was deleted."""

    address: str
    state: Literal["used", "resting"]
    owner: str
    site: str
    until: str = ""


@dataclass(frozen=True, slots=True)
class NetState:
    """VLAN ids and addresses that are not free, and every difference on the way from the wish to the wire, in words."""

    vlans: tuple[VlanRow, ...]
    addresses: tuple[AddressRow, ...]
    differences: tuple[str, ...]


def net_state(host: Host, file: str = "") -> NetState:
    """Return what is allocated and what differs.

    :param file: a site file to hold the network against; empty: guests' own metadata alone.
        A file with faults is told among the differences.
    """
    observed = host.observe()
    now = iso(host.ports.clock.now())
    try:
        differences = tuple(_differences(host, observed, file, now))
    except VmhostError as error:
        differences = (f"not compared: {error}",)
    return NetState(host.vlans.list(), tuple(_addresses(observed, now)), differences)


def _addresses(observed: Observed, now: str) -> Iterator[AddressRow]:
    used = [
        AddressRow(nic.address.partition("/")[0], "used", domain.name, domain.metadata.site)
        for domain in observed.domains
        if domain.metadata
        for nic in domain.metadata.identity.nics
        if nic.address
    ]
    rest = [
        AddressRow(item.value, "resting", item.owner, item.site, item.until)
        for item in in_force(observed.reservations, now)
        if item.kind == "address" and not item.held
    ]
    return iter(sorted([*used, *rest], key=lambda row: (_number(row.address), row.owner)))


def _number(address: str) -> tuple[int, int]:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return 0, 0
    return found.version, int(found)


def _differences(host: Host, observed: Observed, file: str, now: str) -> Iterator[str]:
    if not file:
        yield from (str(item) for item in host.verify_network())
        return
    from vmhost.ops.sites import load_site
    from vmhost.plan.netverify import verify_network
    from vmhost.plan.network import network_drift
    from vmhost.plan.reserve import settle_vlans, usage

    site = load_site(file)
    settled = settle_vlans(site, usage(observed.reservations, observed.domains, observed.links, now), now)
    yield from (str(item) for item in network_drift(settled.site, observed))
    yield from (str(item) for item in verify_network(observed, settled.site))
