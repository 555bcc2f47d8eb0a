"""Addresses on networks: what is taken and by whom, and which one ``auto`` becomes."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from itertools import chain
from shlex import quote

from vmhost.model.identity import GuestIdentity, NicIdentity
from vmhost.model.observed import Observed, ObservedDomain
from vmhost.model.plan import Change, Planned
from vmhost.model.reservations import Reservation, in_force, released
from vmhost.model.spec import GuestSpec, NetworkSpec, NicSpec, Site
from vmhost.model.steps import Release, Unreserve
from vmhost.plan.request import NoCapacity, Refusal

Place = tuple[str, str]
"""A realm and an address in it."""


class AddressBook:
    """The addresses of all networks while one site is planned; each belongs to somebody within its realm.

    :param now: ISO 8601 in UTC; what was released shortly before it rests, and only whoever had it may have it again.
    """

    def __init__(self, site: Site, observed: Observed, now: str) -> None:
        self._site = site
        self._owners: dict[Place, str] = {}
        self._resting: dict[Place, Reservation] = {}
        self._macs: dict[str, str] = {}
        self._ports: dict[int, str] = {}
        for network in site.networks.values():
            if network.gateway:
                self._owners[realm_of(network), network.gateway] = "the gateway"
            if network.reach_address:
                self._owners[realm_of(network), network.reach_address] = "the host (reach_address)"
        for link in observed.links:
            self._owners.update({("", _plain(address)): f"the host ({link.name})" for address in link.addresses})
        for name, bridge in site.bridges.items():
            if bridge.address:
                self._owners["", _plain(bridge.address)] = f"the host ({name})"
        for domain in observed.domains:
            self._take_domain(domain)
        for neighbour in observed.neighbours:
            holder = self._macs.get(neighbour.mac, f"{neighbour.mac} on {neighbour.link}")
            self._owners.setdefault(("", _plain(neighbour.address)), holder)
        for item in in_force(observed.reservations, now):
            if item.kind == "address":
                self._resting[item.realm, item.value] = item
        self._reserve_fixed(site.guests)

    def _take_domain(self, domain: ObservedDomain) -> None:
        if domain.drill:
            return  # it has its guest's MACs, in a network that leads nowhere
        self._macs.update({nic.mac: domain.name for nic in domain.facts.nics})
        if domain.metadata:
            for nic in domain.metadata.identity.nics:
                self._macs[nic.mac] = domain.name
                if nic.address:
                    self._owners[realm_of_nic(nic), _plain(nic.address)] = domain.name
                if nic.ssh_port:
                    self._ports[nic.ssh_port] = domain.name

    def _reserve_fixed(self, guests: Iterable[GuestSpec]) -> None:
        for spec in guests:
            for nic in spec.nics:
                if nic.address not in ("auto", "dhcp", "none"):
                    self._owners.setdefault((realm_of(self._site.networks[nic.network]), nic.address), spec.name)

    def mac_holder(self, mac: str, guest: str) -> str:
        """Return who else has a MAC, or an empty text."""
        holder = self._macs.get(mac, guest)
        return "" if holder == guest else holder

    def port_holder(self, port: int, guest: str) -> str:
        """Return who else has a forwarded port of the host, or an empty text."""
        holder = self._ports.get(port, guest)
        return "" if holder == guest else holder

    def settle(self, guest: str, nic: NicSpec, old: GuestIdentity | None) -> str | Refusal:
        """Return the address with prefix for a NIC (empty for DHCP and none), or why there is none.

        ``auto`` keeps the address that the guest already has on that network; otherwise it takes the lowest free one.
        """
        network = self._site.networks[nic.network]
        if nic.address in ("dhcp", "none") or network.subnet is None:
            return ""
        kept = _held(old, nic, network)
        if nic.address == "auto":
            return kept or self._lowest_free(guest, nic.network, network)
        place = (realm_of(network), nic.address)
        holder = self._owners.get(place, guest)
        if holder != guest:
            return Refusal(guest, f"address {nic.address} is taken by {holder}", self._look_up(nic.address, holder))
        self._owners[place] = guest
        return f"{nic.address}/{ipaddress.ip_network(network.subnet).prefixlen}"

    def _look_up(self, address: str, holder: str) -> str:
        """Return the command that shows who has an address."""
        if holder in self._macs.values():
            return f"vmhost guest show {quote(holder)}"
        return "ip address show" if holder.startswith("the host") else f"ip neighbour show {address}"

    def _lowest_free(self, guest: str, name: str, network: NetworkSpec) -> str | Refusal:
        subnet, realm = ipaddress.ip_network(network.subnet or ""), realm_of(network)
        low, high = network.pool_bounds() or (1, 0)
        make = ipaddress.IPv4Address if subnet.version == 4 else ipaddress.IPv6Address
        numbers = chain(self._had(guest, realm, low, high), range(low, high + 1))
        free = (address for address in map(str, map(make, numbers)) if (realm, address) not in self._owners)
        address = next((text for text in free if self._may_have(guest, (realm, text))), None)
        if address is not None:
            self._owners[realm, address] = guest
            return f"{address}/{subnet.prefixlen}"
        where = network.pool or network.subnet
        resting = sum(low <= int(ipaddress.ip_address(text)) <= high for area, text in self._resting if area == realm)
        rest = f"; {resting} of them rest{'s' if resting == 1 else ''} after a release" if resting else ""
        return Refusal(guest, f"network {name} has no free address in {where}{rest}", "vmhost guest list", NoCapacity)

    def _had(self, guest: str, realm: str, low: int, high: int) -> Iterator[int]:
        """Yield the addresses that a guest of this name and site had a short while ago."""
        for (area, text), item in self._resting.items():
            if area == realm and item.is_of(self._site.name, guest):
                number = int(ipaddress.ip_address(text))
                if low <= number <= high:
                    yield number

    def _may_have(self, guest: str, place: Place) -> bool:
        item = self._resting.get(place)
        return item is None or item.is_of(self._site.name, guest)


def realm_of(network: NetworkSpec) -> str:
    """Return where a network's addresses are unique: in its VLAN, unless the host reaches it by its own routes."""
    if network.reach == "route" or not isinstance(network.vlan, int):
        return ""
    return f"{network.bridge}/{network.vlan}"


def realm_of_nic(nic: NicIdentity) -> str:
    """Return where the address of a NIC that exists is unique; see :func:`realm_of`."""
    return f"{nic.bridge}/{nic.pvid}" if nic.reach and nic.pvid else ""


def give_up_addresses(domain: ObservedDomain, now: str, kept: Iterable[NicIdentity] = ()) -> list[Planned]:
    """Return the step that lets the addresses of a guest rest, but for those of NICs that it keeps."""
    if domain.metadata is None:
        return []
    keeps = {nic.address for nic in kept}
    items = tuple(
        Reservation("address", _plain(nic.address), domain.name, domain.metadata.site, realm_of_nic(nic), since=now)
        for nic in domain.metadata.identity.nics
        if nic.address and nic.address not in keeps
    )
    if not items:
        return []
    gone = tuple(released(item, now) for item in items)
    why = f"{domain.name}: let {', '.join(item.value for item in items)} rest for an hour"
    return [Planned(Release(gone), Unreserve(gone), Change.LIVE, domain.name, why)]


def _plain(address: str) -> str:
    return str(ipaddress.ip_interface(address).ip)


def _held(old: GuestIdentity | None, nic: NicSpec, network: NetworkSpec) -> str:
    """Return the address that the guest has on this network already, if it still lies in the subnet."""
    for item in old.nics if old else ():
        if item.network == nic.network and item.id == (nic.id or nic.network) and item.address:
            inside = ipaddress.ip_interface(item.address).ip in ipaddress.ip_network(network.subnet or "")
            return item.address if inside else ""
    return ""
