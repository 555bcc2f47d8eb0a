"""Many ports at once on rtnetlink, for :mod:`vmhost.drivers.netlink`.

One look at all links, then the messages of many ports in one packet, then one look at what came of them. Step by step,
a network of hundreds of ports waits for the kernel eight times for each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any, Final

from vmhost.drivers.linkread import SKIP_STATS, Message, Socket
from vmhost.drivers.portvlans import AF_BRIDGE, Record, bridge_ports, changes, filters, kind_of
from vmhost.model.netsteps import AttachUplink, PortStep
from vmhost.model.vlans import NO_VLAN, PortVlans, parse_vids, port_vlans

_AT_ONCE: Final = 128
"""Messages in a packet: all their answers have to fit into the socket's buffer."""

_FEW: Final = 8
"""Fewer steps than this are done sooner one by one than after a look at all links."""

_SETLINK: Final = 19  # RTM_SETLINK of linux/rtnetlink.h
_DELLINK: Final = 17  # RTM_DELLINK
_REQUEST: Final = 0x5  # NLM_F_REQUEST | NLM_F_ACK of linux/netlink.h
_UP: Final = 0x1  # IFF_UP of linux/if.h


@dataclass(frozen=True)
class _Bridge:
    """A bridge: ``born`` is in which VLANs its ports begin, None: it filters none."""

    index: int
    born: PortVlans | None


@dataclass(frozen=True)
class _Port:
    """A link, with the index of its bridge (of whatever it belongs to), and its VLANs."""

    index: int
    master: int
    vlans: PortVlans = NO_VLAN


def carry_out_ports(socket: Socket, steps: Sequence[PortStep]) -> tuple[PortStep, ...]:
    """Do steps of ports; return those that are not done, or were before; see ``ports.Links.carry_out_ports``."""
    if len(steps) < _FEW:
        return tuple(steps)
    batch = _Batch(socket)
    planned = [(step, batch.messages_of(step)) for step in steps]
    messages = chain.from_iterable(found or () for _, found in planned)
    while part := list(islice(messages, _AT_ONCE)):
        # Whatever is refused shows in the second look.
        socket.nlm_request_batch(part, noraise=True)
    now = bridge_ports(socket)
    wrong = {name for name, port in batch.changed.items() if now.get(port.index) != (port.master, port.vlans)}
    return tuple(step for step, found in planned if found is None or _port_of(step) in wrong)


class _Batch:
    """Turns steps into messages, by a picture of all links that changes as they will.

    ``changed`` is what those ports should be in the end.
    """

    def __init__(self, socket: Socket) -> None:
        found = tuple(socket.get_links(ext_mask=SKIP_STATS))
        vlans = {index: row for index, (_, row) in bridge_ports(socket).items()}
        self._bridges = {_name(link): _bridge(link) for link in found if kind_of(link) == "bridge"}
        self._filtering = {bridge.index for bridge in self._bridges.values() if bridge.born is not None}
        self._ports = {
            _name(link): _Port(link["index"], link.get_attr("IFLA_MASTER") or 0, vlans.get(link["index"], NO_VLAN))
            for link in found
        }
        self.changed: dict[str, _Port] = {}

    def messages_of(self, step: PortStep) -> list[Message] | None:
        """Return the messages that do a step; None when it cannot be done, or not here."""
        port = self._ports.get(_port_of(step))
        if isinstance(step, AttachUplink):
            bridge = self._bridges.get(step.bridge)
            if port is None or bridge is None or port.master:
                return None
            self._become(step.link, replace(port, master=bridge.index, vlans=bridge.born or NO_VLAN))
            return [_message(_SETLINK, port.index, [["IFLA_MASTER", bridge.index]], flags=_UP, change=_UP)]
        if port is None or port.master not in self._filtering:
            return None
        wanted = PortVlans(step.pvid, parse_vids(step.untagged), parse_vids(step.tagged))
        self._become(step.port, replace(port, vlans=wanted))
        return [
            _message(kind, port.index, [["IFLA_AF_SPEC", {"attrs": records}]], family=AF_BRIDGE)
            for kind, records in zip((_DELLINK, _SETLINK), changes(port.vlans, wanted), strict=True)
            if records
        ]

    def _become(self, name: str, port: _Port) -> None:
        self._ports[name] = self.changed[name] = port


def _port_of(step: PortStep) -> str:
    return step.link if isinstance(step, AttachUplink) else step.port


def _name(link: Message) -> str:
    return str(link.get_attr("IFLA_IFNAME"))


def _bridge(link: Message) -> _Bridge:
    if not filters(link):
        return _Bridge(link["index"], None)
    pvid = link.get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_DATA").get_attr("IFLA_BR_VLAN_DEFAULT_PVID")
    return _Bridge(link["index"], port_vlans(int(pvid or 0)))


def _message(kind: int, index: int, attributes: list[Record], **fields: Any) -> Message:
    from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

    message = ifinfmsg()
    message.update({"index": index, "attrs": attributes, **fields})
    message["header"].update({"type": kind, "flags": _REQUEST})
    return message
