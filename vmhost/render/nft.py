"""The guards of ports as nftables takes them (libnftables-json(5)): one text is one transaction, all or nothing.

Only our own table is ever named. It has one way in, a map from ports to chains, so a frame meets the rules of its own
port only, however many guests there are. The rules remember nothing of earlier frames: whoever has an address in
another VLAN is nobody's concern here. This is imported by libvirt's hook, which cannot wait for more than ``json``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

from vmhost.model.guard import REASONS, ObservedGuard, PortGuard

FAMILY: Final = "bridge"
TABLE: Final = "vmhost"
BASE: Final = "guests"
MAP: Final = "ports"
PRIORITY: Final = -250
"""Before the filters of others (-200 in the bridge family)."""

_ANY4: Final = "0.0.0.0"  # noqa: S104 - the source address of who has none yet (RFC 2131, RFC 5227)
_ANY6: Final = "::"
Command = dict[str, Any]
Rule = list[dict[str, Any]]


def guard(guards: Iterable[PortGuard]) -> str:
    """Return the transaction that makes these ports be guarded, whatever was there; counters go on."""
    commands = [_add("table"), *_base()]
    for one in guards:
        commands += [_add("chain", name=one.port), {"flush": {"chain": _ours(name=one.port)}}]
        commands += [_add("counter", name=counter(one.port, reason)) for reason in REASONS]
        commands += [
            _add("rule", chain=one.port, comment=one.mark, expr=[*rule, {"counter": counter(one.port, reason)}, _DROP])
            if reason
            else _add("rule", chain=one.port, comment=one.mark, expr=[*rule, _RETURN])
            for reason, rule in rules(one)
        ]
        commands.append(_add("element", name=MAP, elem=[[one.port, {"jump": {"target": one.port}}]]))
    return _text(commands)


def unguard(ports: Iterable[str], have: Iterable[ObservedGuard]) -> str:
    """Return the transaction that takes the guards of these ports away, and the table with the last; empty: nothing.

    :param have: all guards that there are.
    """
    there = {one.port: one for one in have}
    gone = [there[port] for port in dict.fromkeys(ports) if port in there]
    if not gone:
        return ""
    if len(gone) == len(there):
        return _text([{"delete": {"table": _ours(name=TABLE, table=None)}}])
    commands: list[Command] = []
    for one in gone:
        if one.reached:
            element = _ours(name=MAP, elem=[[one.port, {"jump": {"target": one.port}}]])
            commands.append({"delete": {"element": element}})
        commands += [{"flush": {"chain": _ours(name=one.port)}}, {"delete": {"chain": _ours(name=one.port)}}]
        commands += [{"delete": {"counter": _ours(name=counter(one.port, reason))}} for reason, _ in one.dropped]
    return _text(commands)


def marks(one: PortGuard) -> tuple[str, ...]:
    """Return what the rules of a guard carry, in order; compared with what the kernel has."""
    return tuple(one.mark for _ in rules(one))


def counter(port: str, reason: str) -> str:
    """Return the name of a counter."""
    return f"{port}.{reason}"


def rules(one: PortGuard) -> Iterator[tuple[str, Rule]]:
    """Yield each rule with the reason for which it drops; without one it lets through what matches."""
    yield "mac", [_not(_field("ether", "saddr"), [one.mac])]
    yield "other", [_not(_meta("protocol"), ["arp", "ip", "ip6"])]
    yield "arp", [_is(_meta("protocol"), "arp"), _not(_field("arp", "hlen"), [6])]
    yield "arp", [_is(_meta("protocol"), "arp"), _not(_field("arp", "plen"), [4])]
    yield "arp", [_is(_meta("protocol"), "arp"), _not(_field("arp", "saddr ether"), [one.mac])]
    yield from _servers()
    if one.tagged:
        # A tag with no VLAN in it (IEEE 802.1Q: priority-tagged) is as good as none.
        untagged = [0, one.pvid] if one.pvid else [0]
        yield "", [_is(_field("ether", "type"), "8021q"), _not(_field("vlan", "id"), untagged)]
    if one.addresses:
        yield from _addresses(one)


def _number(address: str) -> str:
    """Return an IPv6 address as a number, which is what a piece of a packet is compared with."""
    from ipaddress import IPv6Address

    return f"0x{int(IPv6Address(address)):032x}"


def link_local(mac: str) -> str:
    """Return the link-local address that a guest makes of its MAC (RFC 4291, appendix A)."""
    octets = [int(octet, 16) for octet in mac.split(":")]
    octets[0] ^= 2
    halves = [*octets[:3], 0xFF, 0xFE, *octets[3:]]
    words = [f"{halves[index] << 8 | halves[index + 1]:x}" for index in range(0, 8, 2)]
    from ipaddress import ip_address

    return str(ip_address(f"fe80::{':'.join(words)}"))


def _servers() -> Iterator[tuple[str, Rule]]:
    """Yield the rules against answers of DHCP servers, router advertisements and redirects (RFC 7610, RFC 6105)."""
    for protocol, port in (("ip", 67), ("ip6", 547)):
        yield (
            "server",
            [_is(_meta("protocol"), protocol), _is(_meta("l4proto"), "udp"), _is(_field("udp", "sport"), port)],
        )
    for kind in ("nd-router-advert", "nd-redirect"):
        yield (
            "server",
            [_is(_meta("protocol"), "ip6"), _is(_meta("l4proto"), "ipv6-icmp"), _is(_field("icmpv6", "type"), kind)],
        )


def _addresses(one: PortGuard) -> Iterator[tuple[str, Rule]]:
    four = [address for address in one.addresses if ":" not in address]
    six = [*(address for address in one.addresses if ":" in address), link_local(one.mac)]
    yield "arp", [_is(_meta("protocol"), "arp"), _not(_field("arp", "saddr ip"), [_ANY4, *four])]
    yield "ipv4", [_is(_meta("protocol"), "ip"), _not(_field("ip", "saddr"), [_ANY4, *four])]
    yield "ipv6", [_is(_meta("protocol"), "ip6"), _not(_field("ip6", "saddr"), [_ANY6, *six])]
    told = {"payload": {"base": "th", "offset": 64, "len": 128}}  # whom a neighbour advertisement speaks of (RFC 4861)
    advert = [
        _is(_meta("protocol"), "ip6"),
        _is(_meta("l4proto"), "ipv6-icmp"),
        _is(_field("icmpv6", "type"), "nd-neighbor-advert"),
    ]
    yield "ipv6", [*advert, *(_not(told, [_number(address)]) for address in six)]


_DROP: Final = {"drop": None}
_RETURN: Final = {"return": None}


def _base() -> list[Command]:
    dispatch = [{"vmap": {"key": _meta("iifname"), "data": f"@{MAP}"}}]
    return [
        _add("map", name=MAP, type="ifname", map="verdict"),
        _add("chain", name=BASE, type="filter", hook="prerouting", prio=PRIORITY, policy="accept"),
        {"flush": {"chain": _ours(name=BASE)}},
        _add("rule", chain=BASE, expr=dispatch),
    ]


def _ours(*, table: str | None = TABLE, **more: Any) -> Command:
    return {"family": FAMILY, **({"table": table} if table else {}), **more}


def _add(kind: str, **more: Any) -> Command:
    return {"add": {kind: _ours(**more) if kind != "table" else _ours(table=None, name=TABLE)}}


def _text(commands: list[Command]) -> str:
    return json.dumps({"nftables": commands})


def _meta(key: str) -> Command:
    return {"meta": {"key": key}}


def _field(protocol: str, field: str) -> Command:
    return {"payload": {"protocol": protocol, "field": field}}


def _is(left: Command, right: Any) -> Command:
    return {"match": {"op": "==", "left": left, "right": right}}


def _not(left: Command, right: list[Any]) -> Command:
    return {"match": {"op": "!=", "left": left, "right": right[0] if len(right) == 1 else {"set": right}}}
