"""Addresses on networks: what is taken and by whom, and which one ``auto`` becomes."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from shlex import quote

from vmhost.model.identity import GuestIdentity
from vmhost.model.observed import Observed, ObservedDomain
from vmhost.model.spec import GuestSpec, NetworkSpec, NicSpec, Site
from vmhost.plan.request import NoCapacity, Refusal


class AddressBook:
    """The addresses of all networks while one site is planned."""

    def __init__(self, site: Site, observed: Observed) -> None:
        self._site = site
        self._owners: dict[str, str] = {}
        self._macs: dict[str, str] = {}
        self._ports: dict[int, str] = {}
        for network in site.networks.values():
            if network.gateway:
                self._owners[network.gateway] = "the gateway"
            if network.reach_address:
                self._owners[network.reach_address] = "the host (reach_address)"
        for link in observed.links:
            self._owners.update({_plain(address): f"the host ({link.name})" for address in link.addresses})
        for name, bridge in site.bridges.items():
            if bridge.address:
                self._owners[_plain(bridge.address)] = f"the host ({name})"
        for domain in observed.domains:
            self._take_domain(domain)
        for neighbour in observed.neighbours:
            holder = self._macs.get(neighbour.mac, f"{neighbour.mac} on {neighbour.link}")
            self._owners.setdefault(_plain(neighbour.address), holder)
        self._reserve_fixed(site.guests)

    def _take_domain(self, domain: ObservedDomain) -> None:
        self._macs.update({nic.mac: domain.name for nic in domain.facts.nics})
        if domain.metadata:
            for nic in domain.metadata.identity.nics:
                self._macs[nic.mac] = domain.name
                if nic.address:
                    self._owners[_plain(nic.address)] = domain.name
                if nic.ssh_port:
                    self._ports[nic.ssh_port] = domain.name

    def _reserve_fixed(self, guests: Iterable[GuestSpec]) -> None:
        for spec in guests:
            for nic in spec.nics:
                if nic.address not in ("auto", "dhcp", "none"):
                    self._owners.setdefault(nic.address, spec.name)

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
        holder = self._owners.get(nic.address, guest)
        if holder != guest:
            return Refusal(guest, f"address {nic.address} is taken by {holder}", self._look_up(nic.address, holder))
        self._owners[nic.address] = guest
        return f"{nic.address}/{ipaddress.ip_network(network.subnet).prefixlen}"

    def _look_up(self, address: str, holder: str) -> str:
        """Return the command that shows who has an address."""
        if holder in self._macs.values():
            return f"vmhost guest show {quote(holder)}"
        return "ip address show" if holder.startswith("the host") else f"ip neighbour show {address}"

    def _lowest_free(self, guest: str, name: str, network: NetworkSpec) -> str | Refusal:
        subnet = ipaddress.ip_network(network.subnet or "")
        low, high = network.pool_bounds() or (1, 0)
        make = ipaddress.IPv4Address if subnet.version == 4 else ipaddress.IPv6Address
        for number in range(low, high + 1):
            address = str(make(number))
            if address not in self._owners:
                self._owners[address] = guest
                return f"{address}/{subnet.prefixlen}"
        text = f"network {name} has no free address in {network.pool or network.subnet}"
        return Refusal(guest, text, "vmhost guest list", NoCapacity)


def _plain(address: str) -> str:
    return str(ipaddress.ip_interface(address).ip)


def _held(old: GuestIdentity | None, nic: NicSpec, network: NetworkSpec) -> str:
    """Return the address that the guest has on this network already, if it still lies in the subnet."""
    for item in old.nics if old else ():
        if item.network == nic.network and item.id == (nic.id or nic.network) and item.address:
            inside = ipaddress.ip_interface(item.address).ip in ipaddress.ip_network(network.subnet or "")
            return item.address if inside else ""
    return ""
