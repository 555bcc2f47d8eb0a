"""Links, addresses and neighbours as rtnetlink tells them, for :mod:`vmhost.drivers.netlink`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from socket import if_indextoname
from typing import Any, Final

from vmhost.drivers.portvlans import is_isolated, kind_of, link_named, port_vlans_by_index
from vmhost.model.network import HeldAddress
from vmhost.model.observed import Neighbour, ObservedLink

Message = Any  # pyroute2's netlink messages: a mapping of header fields with get_attr() for attributes
Socket = Any  # pyroute2.IPRoute

_UP: Final = 0x1  # IFF_UP of linux/if.h
_CONFIRMED: Final = 0x02 | 0x04 | 0x08 | 0x10 | 0x80  # NUD_REACHABLE STALE DELAY PROBE PERMANENT of linux/neighbour.h
SKIP_STATS: Final = 0x8  # RTEXT_FILTER_SKIP_STATS of linux/rtnetlink.h: counters are half of a message
_PERMANENT: Final = 0x80  # IFA_F_PERMANENT of linux/if_addr.h
_PLAIN: Final = _PERMANENT | 0x01 | 0x40  # IFA_F_SECONDARY: another of the same subnet; _TENTATIVE: just added


def all_links(socket: Socket) -> tuple[ObservedLink, ...]:
    """Return all links, each of them with its VLANs."""
    links = links_of(socket.get_links(ext_mask=SKIP_STATS), socket.get_addr())
    if not any(link.vlan_filtering for link in links):
        return links
    vlans = port_vlans_by_index(socket)
    filtering = {link.name for link in links if link.vlan_filtering}
    return tuple(
        replace(link, vlans=vlans[link.index]) if link.index in vlans and {link.name, link.master} & filtering else link
        for link in links
    )


def links_of(found: Sequence[Message], addresses: Sequence[Message]) -> tuple[ObservedLink, ...]:
    """Return the links that messages describe, by index."""
    found = tuple(found)
    names = {link["index"]: str(link.get_attr("IFLA_IFNAME")) for link in found}
    by_link: dict[int, list[HeldAddress]] = {}
    for entry in addresses:
        by_link.setdefault(entry["index"], []).append(_held(entry))
    return tuple(_link(link, names, by_link.get(link["index"], [])) for link in sorted(found, key=_index))


def _held(entry: Message) -> HeldAddress:
    local, address = entry.get_attr("IFA_LOCAL"), entry.get_attr("IFA_ADDRESS")
    flags = int(entry.get_attr("IFA_FLAGS") or entry["flags"])
    lasting = bool(flags & _PERMANENT) and not flags & ~_PLAIN and local in (None, address) and entry["scope"] == 0
    return HeldAddress(f"{local or address}/{entry['prefixlen']}", str(entry.get_attr("IFA_BROADCAST") or ""), lasting)


def _index(link: Message) -> int:
    return int(link["index"])


def _link(link: Message, names: dict[int, str], addresses: Sequence[HeldAddress]) -> ObservedLink:
    info, kind = link.get_attr("IFLA_LINKINFO"), kind_of(link)
    data = info.get_attr("IFLA_INFO_DATA") if info else None
    return ObservedLink(
        name=names[link["index"]],
        index=_index(link),
        kind=kind,
        mac=str(link.get_attr("IFLA_ADDRESS") or ""),
        mtu=int(link.get_attr("IFLA_MTU") or 0),
        up=bool(link["flags"] & _UP),
        carrier=bool(link.get_attr("IFLA_CARRIER")),
        master=names.get(link.get_attr("IFLA_MASTER"), ""),
        alias=str(link.get_attr("IFLA_IFALIAS") or ""),
        addresses=tuple(held.address for held in addresses),
        vlan_filtering=kind == "bridge" and bool(data and data.get_attr("IFLA_BR_VLAN_FILTERING")),
        isolated=is_isolated(link),
        default_pvid=int(data.get_attr("IFLA_BR_VLAN_DEFAULT_PVID") or 0) if kind == "bridge" and data else 0,
        parent=names.get(link.get_attr("IFLA_LINK"), "") if kind == "vlan" else "",
        vid=int(data.get_attr("IFLA_VLAN_ID") or 0) if kind == "vlan" and data else 0,
        ipv6=kind == "bridge" and _speaks_ipv6(link),
        held=tuple(addresses),
        stp=kind == "bridge" and bool(data and data.get_attr("IFLA_BR_STP_STATE")),
        peer=_peer(link, kind, names),
    )


def _speaks_ipv6(link: Message) -> bool:
    families = link.get_attr("IFLA_AF_SPEC")
    family = families.get_attr("AF_INET6") if families else None
    settings = family.get_attr("IFLA_INET6_CONF") if family else None
    return settings is not None and not settings["disable_ipv6"]


def _peer(link: Message, kind: str, names: dict[int, str]) -> str:
    """Return the other end of a veth pair; empty when that is in another namespace, whose indexes are its own."""
    if kind != "veth" or link.get_attr("IFLA_LINK_NETNSID") is not None:
        return ""
    return names.get(int(link.get_attr("IFLA_LINK") or 0), "")


def all_neighbours(socket: Socket) -> tuple[Neighbour, ...]:
    """Return the neighbours whose hardware address the kernel knows."""
    return tuple(
        Neighbour(str(entry.get_attr("NDA_DST")), str(entry.get_attr("NDA_LLADDR")), link_name(entry["ifindex"]))
        for entry in socket.get_neighbours()
        if entry["state"] & _CONFIRMED and entry.get_attr("NDA_DST") and entry.get_attr("NDA_LLADDR")
    )


def link_name(index: int) -> str:
    """Return the name of a link, or an empty text when it is gone: asking for one name needs no look at all links."""
    try:
        return if_indextoname(index)
    except OSError:
        return ""


def find_link(socket: Socket, name: str, *, addresses: bool = False) -> ObservedLink | None:
    """Return the link of that name, or None, without looking at all others; its addresses only when they matter."""
    link = link_named(socket, name)
    if link is None:
        return None
    names = {link["index"]: name}
    for key in ("IFLA_MASTER", "IFLA_LINK"):
        other = link.get_attr(key)
        if other and other not in names and (key == "IFLA_MASTER" or kind_of(link) == "vlan"):
            names[other] = str(socket.link("get", index=other)[0].get_attr("IFLA_IFNAME"))
    held = [_held(entry) for entry in socket.get_addr(index=link["index"])] if addresses else []
    return _link(link, names, held)
