"""The VLAN tables of bridge ports on rtnetlink, for :mod:`vmhost.drivers.netlink`.

The library's own way of naming VLANs drops ids that it does not like without a word and cannot name two in one message
(seen in 0.9.7). So the kernel's records are written as they are (``struct bridge_vlan_info`` of linux/if_bridge.h), all
ids of a port in one message, and what the kernel made of it is read back.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from vmhost.model.errors import Absent, Conflict, DriverError
from vmhost.model.vlans import PortVlans, ranges

Message = Any
Socket = Any
Record = list[Any]

_PVID: Final = 1 << 1
_UNTAGGED: Final = 1 << 2
_BEGIN: Final = 1 << 3
_END: Final = 1 << 4
_BRVLAN_COMPRESSED: Final = 1 << 2  # RTEXT_FILTER_BRVLAN_COMPRESSED of linux/rtnetlink.h
AF_BRIDGE: Final = 7
_GETVLAN: Final = 114  # RTM_GETVLAN
_DUMP: Final = 0x301  # NLM_F_REQUEST | NLM_F_DUMP of linux/netlink.h
_SELF: Final = 2  # BRIDGE_FLAGS_SELF of linux/if_bridge.h


def port_vlans_by_index(socket: Socket) -> Mapping[int, PortVlans]:
    """Return the VLANs of every port, and of every bridge itself, by the index of its link."""
    return {index: vlans for index, (_, vlans) in bridge_ports(socket).items()}


def bridge_ports(socket: Socket) -> Mapping[int, tuple[int, PortVlans]]:
    """Return by the index of every port, and of every bridge itself, the index of its bridge, and its VLANs."""
    found = socket.link("dump", family=AF_BRIDGE, ext_mask=_BRVLAN_COMPRESSED)
    return {int(link["index"]): (int(link.get_attr("IFLA_MASTER") or 0), _vlans(link)) for link in found}


def set_port_vlans(socket: Socket, name: str, wanted: PortVlans) -> None:
    """Make the VLANs of a port, or of a bridge itself, exactly these; what is not wanted goes first.

    :raises Absent: there is no such link.
    :raises Conflict: it is no port of a bridge that filters VLANs: there, a tag would keep nobody apart.
    :raises DriverError: the kernel took the message and yet did not do it.
    """
    index, itself = _port(socket, name)
    have = _port_vlans(socket, index)
    if have == wanted:
        return
    gone, more = changes(have, wanted)
    for command, records in (("del", gone), ("add", more)):
        if records:
            itself_too = [["IFLA_BRIDGE_FLAGS", _SELF]] if itself else []
            socket.vlan_filter(command, index=index, af_spec={"attrs": [*itself_too, *records]})
    now = _port_vlans(socket, index)
    if now != wanted:
        raise DriverError(f"has {now}, should have {wanted}", subject=name, hint=f"bridge vlan show dev {name}")


def changes(have: PortVlans, wanted: PortVlans) -> tuple[list[Record], list[Record]]:
    """Return what has to go from a port's VLANs, and then what has to come, as the kernel's records."""
    gone = (have.untagged | have.tagged) - (wanted.untagged | wanted.tagged)
    if have.pvid and have.pvid != wanted.pvid:
        gone |= {have.pvid}
    plain = wanted.untagged - {wanted.pvid}
    pvid = [(wanted.pvid, _PVID | (_UNTAGGED if wanted.pvid in wanted.untagged else 0))] if wanted.pvid else []
    more = [*_numbers(wanted.tagged - {wanted.pvid}, 0), *_numbers(plain, _UNTAGGED), *pvid]
    return _records(_numbers(gone, 0)), _records(more)


def isolate_port(socket: Socket, name: str, on: bool) -> None:
    """Isolate a port of a bridge, or not, and read it back. Errors: as :func:`set_port_vlans`."""
    index, _ = _port(socket, name, filtering=False)
    socket.link("set", index=index, kind="bridge_slave", isolated=int(on))
    if is_isolated(socket.link("get", index=index)[0]) != on:
        text = "this kernel's bridges cannot isolate ports"
        raise DriverError(text, subject=name, hint=f"bridge -details link show dev {name}")


def is_isolated(link: Message) -> bool:
    """Return whether a link is an isolated port of a bridge."""
    info = link.get_attr("IFLA_LINKINFO")
    if not info or info.get_attr("IFLA_INFO_SLAVE_KIND") != "bridge":
        return False
    data = info.get_attr("IFLA_INFO_SLAVE_DATA")
    return bool(data and data.get_attr("IFLA_BRPORT_ISOLATED"))


def _port(socket: Socket, name: str, *, filtering: bool = True) -> tuple[int, bool]:
    """Return the index of a port, and whether it is the bridge itself: the host's own port."""
    link = link_named(socket, name)
    if link is None:
        raise Absent("there is no link of that name", subject=name, hint="ip link")
    if filtering and filters(link):
        return int(link["index"]), True
    master = link.get_attr("IFLA_MASTER")
    bridge = socket.link("get", index=master)[0] if master else None
    if bridge is None or kind_of(bridge) != "bridge":
        raise Conflict("it is no port of a bridge", subject=name, hint=f"ip -details link show {name}")
    if filtering and not filters(bridge):
        title = bridge.get_attr("IFLA_IFNAME")
        text = f"bridge {title} does not filter VLANs: its ports are not kept apart"
        raise Conflict(text, subject=name, hint=f"ip -details link show {title}")
    return int(link["index"]), False


def link_named(socket: Socket, name: str) -> Message | None:
    """Ask for one link only: hosts have many."""
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        return socket.link("get", ifname=name)[0]
    except NetlinkError as error:
        if error.code in (errno.ENODEV, errno.ENOENT):
            return None
        raise


def kind_of(link: Message) -> str:
    """Return the kind of a link; empty: hardware."""
    info = link.get_attr("IFLA_LINKINFO")
    return str(info.get_attr("IFLA_INFO_KIND") or "") if info else ""


def _port_vlans(socket: Socket, index: int) -> PortVlans:
    """Return the VLANs of one port (``struct br_vlan_msg`` of linux/if_bridge.h, since Linux 5.6)."""
    pvid, untagged, tagged = 0, set[int](), set[int]()
    # The library's own dump asks for those of all ports and drops the others here.
    for message in socket.vlandb((_GETVLAN, _DUMP), family=AF_BRIDGE, ifindex=index):
        if message["ifindex"] != index:
            continue
        for entry in message.get_attrs("BRIDGE_VLANDB_ENTRY"):
            record = entry.get_attr("BRIDGE_VLANDB_ENTRY_INFO")
            vid, flags = int(record["vid"]), int(record["flags"])
            vids = range(vid, int(entry.get_attr("BRIDGE_VLANDB_ENTRY_RANGE") or vid) + 1)
            pvid = vid if flags & _PVID else pvid
            (untagged if flags & _UNTAGGED else tagged).update(vids)
    return PortVlans(pvid, frozenset(untagged), frozenset(tagged))


def filters(bridge: Message) -> bool:
    """Return whether a link is a bridge that filters VLANs."""
    info = bridge.get_attr("IFLA_LINKINFO")
    data = info.get_attr("IFLA_INFO_DATA") if info else None
    return bool(data and data.get_attr("IFLA_BR_VLAN_FILTERING"))


def _vlans(link: Message) -> PortVlans:
    pvid, untagged, tagged = 0, set[int](), set[int]()
    table, first = link.get_attr("IFLA_AF_SPEC"), 0
    for key, record in table["attrs"] if table else ():
        if key != "IFLA_BRIDGE_VLAN_INFO":
            continue
        vid, flags = int(record["vid"]), int(record["flags"])
        if flags & _BEGIN:
            first = vid
            continue
        vids = range(first if flags & _END else vid, vid + 1)
        pvid = vid if flags & _PVID else pvid
        (untagged if flags & _UNTAGGED else tagged).update(vids)
    return PortVlans(pvid, frozenset(untagged), frozenset(tagged))


def _numbers(vids: Iterable[int], flags: int) -> Iterator[tuple[int, int]]:
    for first, last in ranges(vids):
        if first == last:
            yield first, flags
        else:
            yield first, flags | _BEGIN
            yield last, flags | _END


def _records(numbers: Iterable[tuple[int, int]]) -> list[Record]:
    return [["IFLA_BRIDGE_VLAN_INFO", {"vid": vid, "flags": flags}] for vid, flags in numbers]
