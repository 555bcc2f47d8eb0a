"""Bridges of the host and the networks that guests are attached to."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, field_validator, model_validator

from vmhost.model import units
from vmhost.model.spec.base import Count, Flag, LinkName, Matches, Model, empty_if_absent
from vmhost.model.spec.guest import Bandwidth, Spoofing, Vids
from vmhost.model.vlans import format_vids, parse_vids


def _vlan(value: Any) -> int | str:
    if value == "auto":
        return "auto"
    if not isinstance(value, int):
        raise ValueError(f"{units.shown(value)} is not a VLAN: write a number from 1 to 4094, or auto")
    return units.parse_vid(value)


def _vid_range(text: str) -> str:
    first, last = units.parse_vid_range(text)
    return f"{first}-{last}"


_VLAN_SCHEMA = {"anyOf": [{"type": "integer", "minimum": 1, "maximum": 4094}, {"const": "auto"}]}
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"

Interface = Annotated[str, AfterValidator(units.parse_interface)]
Subnet = Annotated[str, AfterValidator(units.parse_subnet)]
Ip = Annotated[str, AfterValidator(units.parse_ip)]
Vlan = Annotated[int | Literal["auto"], BeforeValidator(_vlan), WithJsonSchema(_VLAN_SCHEMA)]
Vid = Annotated[int, AfterValidator(units.parse_vid)]
VidRange = Annotated[str, AfterValidator(_vid_range)]
Mtu = Annotated[Count, Field(ge=576, le=65521)]
DomainName = Annotated[str, Field(max_length=253), Matches(rf"{_LABEL}(\.{_LABEL})*", "a domain name")]
Reach = Literal["route", "jump", "port", "agent"]


class BridgeSpec(Model):
    """A bridge that vmhost makes and owns. A bridge that is only named by a network must exist already."""

    mode: Literal["plain", "vlan-aware"] = Field(
        default="plain", description="vlan-aware: guests on it are kept apart by VLANs."
    )
    uplink: LinkName | None = Field(default=None, description="Port to the wire: a network card or a bond.")
    native: Vid | None = Field(default=None, description="The VLAN of untagged frames on the uplink.")
    ipv6: bool = Field(default=False, description="Whether the host speaks IPv6 on the bridge itself.")
    address: Interface | None = Field(default=None, description="The host's own address on the bridge: 10.0.0.1/24.")
    mtu: Mtu = Field(default=1500, description="Largest packet in bytes.")


BridgeEntry = Annotated[BridgeSpec, BeforeValidator(empty_if_absent, json_schema_input_type=BridgeSpec | None)]


class RouteSpec(Model):
    """A route of the host."""

    to: Literal["default"] | Subnet = Field(description="Where to: default, or a subnet.")
    via: Ip = Field(description="The router's address, in the subnet of the host's address.")


class JumpSpec(Model):
    """A host whose SSH server leads to guests of a network."""

    host: Annotated[str, Field(max_length=253), Matches(r"[0-9A-Za-z:][0-9A-Za-z.:-]*", "a host name or address")] = (
        Field(description="Its name or address.")
    )
    user: Annotated[str, Field(max_length=64), Matches(r"[A-Za-z0-9_][A-Za-z0-9._-]*", "an account")] = Field(
        description="The account that vmhost signs in as there."
    )
    port: Annotated[Count, Field(ge=1, le=65535)] = Field(default=22, description="Its SSH server's port.")
    host_key: Annotated[
        str,
        Field(max_length=1024),
        Matches(r"(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp\d+) [A-Za-z0-9+/=]+", "a public key"),
    ] = Field(description="Its public host key, as in a known_hosts file: ssh-ed25519 AAAA....")


class NetworkSpec(Model):
    """A network: a bridge with the addresses used on it, or QEMU's user network (``type: user``)."""

    type: Literal["bridge", "user"] = Field(
        default="bridge", description="user: QEMU's own NAT with a forwarded SSH port; needs no rights on the host."
    )
    bridge: LinkName | None = Field(default=None, description="The bridge that guests are attached to.")
    vlan: Vlan | None = Field(default=None, description="The VLAN that guests are in, untagged: 1 to 4094.")
    range: VidRange | None = Field(default=None, description="VLANs that vlan: auto may take: 1000-1999.")
    reserved: Vids | None = Field(default=None, description="VLANs of the range that vlan: auto never takes.")
    subnet: Subnet | None = Field(default=None, description="Addresses of the network: 10.20.0.0/24.")
    address: Interface | None = Field(
        default=None, description="The host's own address in the VLAN of the network: 10.20.0.1/24."
    )
    routes: tuple[RouteSpec, ...] = Field(default=(), description="Routes of the host by routers in the network.")
    gateway: Ip | None = Field(default=None, description="Where guests send what is not for the subnet.")
    dns: tuple[Ip, ...] = Field(default=(), description="Name servers for guests.")
    search: tuple[DomainName, ...] = Field(
        default=(), description="Domains for short names; the first names the guests."
    )
    pool: str | None = Field(default=None, description="What address: auto may take: 10.20.0.100-10.20.0.199.")
    reach: Reach = Field(
        default="route",
        description="How the host talks to guests there: route by its own addresses, port by an address of its own in "
        "their VLAN, jump through another host, agent without the network.",
    )
    reach_address: Ip | None = Field(
        default=None, description="The host's own address in the VLAN, for reach: port; nobody else's."
    )
    jump: JumpSpec | None = Field(default=None, description="The host to go through, for reach: jump.")
    isolated: Flag = Field(default=False, description="Guests exchange nothing with each other, only with the rest.")
    spoofing: Spoofing = Field(
        default="allowed", description="refused: drop what guests say in the name of other MACs, addresses and servers."
    )
    bandwidth: Bandwidth | None = Field(default=None, description="Limits of each NIC on it: 100Mbit, or each way.")
    mtu: Mtu | None = Field(
        default=None, description="Largest packet in bytes; without it what the guest's system takes."
    )

    @field_validator("pool")
    @classmethod
    def _ordered_pool(cls, text: str | None) -> str | None:
        if text is not None:
            low, high = _pool_ends(text)
            return f"{low}-{high}"
        return text

    @model_validator(mode="after")
    def _consistent(self) -> NetworkSpec:
        if self.type == "user":
            barred = (
                "bridge",
                "vlan",
                "range",
                "reserved",
                "subnet",
                "gateway",
                "pool",
                "address",
                "routes",
                "reach_address",
                "jump",
            )
            given = [key for key in barred if getattr(self, key)]
            if given:
                raise ValueError(f"a user network has no {' and no '.join(given)}: QEMU provides it")
            if self.isolated or self.bandwidth or self.spoofing == "refused":
                raise ValueError("a user network has no port on the host: leave isolated, spoofing and bandwidth out")
            return self
        if self.bridge is None:
            raise ValueError("a network needs its bridge, or type: user")
        self._check_range()
        self._check_addresses()
        self._check_reach()
        return self

    def _check_reach(self) -> None:
        if (self.jump is None) == (self.reach == "jump"):
            raise ValueError("reach: jump needs jump: with host, user and host_key, and nothing else does")
        if (self.reach_address is None) == (self.reach == "port"):
            raise ValueError(
                "reach: port needs reach_address: the host's own address in the VLAN, and nothing else does"
            )
        if self.reach == "port":
            if self.vlan is None or self.subnet is None:
                raise ValueError("reach: port needs a vlan and a subnet")
            check_host_address(self.reach_address or "", self.subnet)
            if self.reach_address == self.gateway:
                raise ValueError(f"{self.reach_address} is the gateway: the host needs an address of its own")

    def _check_range(self) -> None:
        if self.vlan == "auto" and self.range is None:
            raise ValueError("vlan: auto needs the range that it may take from: write for example range: 1000-1999")
        if self.range is not None and self.vlan != "auto":
            raise ValueError("a range is what vlan: auto takes from: write vlan: auto, or leave the range out")
        if self.reserved is not None and self.range is None:
            raise ValueError("reserved names VLANs of a range: write the range, or leave it out")
        if self.range and self.reserved:
            first, last = units.parse_vid_range(self.range)
            if outside := parse_vids(self.reserved) - set(range(first, last + 1)):
                raise ValueError(f"reserved leaves the range {self.range}: {format_vids(outside)}")

    def _check_addresses(self) -> None:
        if self.subnet is None:
            if self.gateway or self.pool:
                raise ValueError(f"{'gateway' if self.gateway else 'pool'} needs a subnet")
            return
        if self.gateway:
            check_host_address(self.gateway, self.subnet)
        self.pool_bounds()

    def pool_bounds(self) -> tuple[int, int] | None:
        """Return the first and last address (as integers) that ``address: auto`` may take, or None without a subnet.

        ``pool`` is ``10.0.0.100-10.0.0.199``; without it every host address of the subnet counts.

        :raises ValueError: for a pool that leaves the subnet.
        """
        if self.subnet is None:
            return None
        net = ipaddress.ip_network(self.subnet)
        if self.pool is None:
            edge = 0 if net.prefixlen >= net.max_prefixlen - 1 else 1
            return int(net[0]) + edge, int(net[-1]) - (edge if net.version == 4 else 0)
        low, high = _pool_ends(self.pool)
        if low not in net or high not in net:
            raise ValueError(f"the pool {self.pool} leaves the subnet {self.subnet}")
        return int(low), int(high)


def check_host_address(address: str, subnet: str) -> None:
    """Return when ``address`` may belong to a machine of ``subnet``.

    :raises ValueError: outside the subnet, and for its own or its broadcast address (RFC 950; RFC 3021 frees a /31,
        RFC 4291 an IPv6 subnet's last address).
    """
    ip, net = ipaddress.ip_address(address), ipaddress.ip_network(subnet)
    if ip not in net:
        raise ValueError(f"{address} is not in the subnet {subnet}")
    if net.prefixlen >= net.max_prefixlen - 1:
        return
    if ip == net[0]:
        raise ValueError(f"{address} is the address of the subnet {subnet} itself")
    if net.version == 4 and ip == net[-1]:
        raise ValueError(f"{address} is the broadcast address of {subnet}")


def _pool_ends(text: str) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, ...]:
    first, dash, last = text.partition("-")
    if not dash:
        raise ValueError(f"{units.shown(text)} is not a range of addresses: write for example 10.20.0.100-10.20.0.199")
    low, high = (ipaddress.ip_address(units.parse_ip(end.strip())) for end in (first, last))
    if low.version != high.version or int(high) < int(low):
        raise ValueError(f"{units.shown(text)} is not a range: its first address comes after its last")
    return low, high
