"""``ports.Links`` on a fake host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING
from zlib import crc32

from vmhost.model.errors import Absent, AlreadyThere, Conflict, VmhostError
from vmhost.model.netsteps import HostRoute, LinkStep, PortStep
from vmhost.model.network import HeldAddress
from vmhost.model.observed import Neighbour, ObservedLink
from vmhost.model.reach import AccessPort
from vmhost.model.vlans import NO_VLAN, PortVlans, format_vids, parse_vids, port_vlans
from vmhost.model.wire import KernelNetwork
from vmhost.testing import guests
from vmhost.testing.world import Link, Vlans, World

if TYPE_CHECKING:
    from vmhost.testing.machine import Machine


class FakeLinks:
    """The links of a fake host: what the world lists, and a tap for each NIC of a running domain on a bridge."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._listeners: dict[object, Callable[[], None]] = {}

    def watch(self, notify: Callable[[], None]) -> Callable[[], None]:
        key = object()
        self._listeners[key] = notify

        def forget() -> None:
            self._listeners.pop(key, None)

        return forget

    def changed(self) -> None:
        """Tell whoever watches that links are not as they were."""
        for notify in tuple(self._listeners.values()):
            notify()

    def session(self) -> AbstractContextManager[None]:
        return nullcontext()

    def namespaces(self) -> tuple[str, ...]:
        with self._machine.at_work() as world:
            return tuple(sorted(world.namespaces))

    def open_access(self, access: AccessPort, *, alias: str, mtu: int) -> None:
        self.close_access(access, alias=alias)
        with self._machine.at_work(changing=True) as world:
            if access.bridge not in world.links:
                hint = "ip link show type bridge"
                raise Absent("there is no link of that name", subject=access.bridge, hint=hint)
            mac = f"02:{crc32(access.port.encode()).to_bytes(4).hex(':')}:02"
            world.links[access.port] = Link(
                access.port, kind="veth", mac=mac, mtu=mtu, alias=alias, master=access.bridge
            )
            try:
                if access.vid:
                    set_vlans(world, access.port, port_vlans(access.vid))
            except Conflict:
                del world.links[access.port]
                raise
            world.namespaces.append(access.namespace)
        self.changed()

    def close_access(self, access: AccessPort, *, alias: str) -> None:
        with self._machine.at_work(changing=True) as world:
            link = world.links.get(access.port)
            if link is not None and link.alias != alias:
                hint = f"ip -details link show {access.port}"
                raise AlreadyThere(
                    f"it is a link with alias {link.alias!r}, not {alias!r}", subject=access.port, hint=hint
                )
            world.links.pop(access.port, None)
            world.vlans.pop(access.port, None)
            if access.namespace in world.namespaces:
                world.namespaces.remove(access.namespace)
        self.changed()

    def links(self) -> tuple[ObservedLink, ...]:
        with self._machine.at_work() as world:
            taps = _taps(world)
            ports = {link.master for link in (*world.links.values(), *taps) if link.up}
            found = (_loopback(), *world.links.values(), *taps)
            return tuple(_observed(world, link, index, link.name in ports) for index, link in enumerate(found, 1))

    def neighbours(self) -> tuple[Neighbour, ...]:
        with self._machine.at_work() as world:
            up = (reached for domain in world.domains.values() for reached in domain.reached)
            return (*world.neighbours, *(Neighbour(address, mac, bridge) for mac, address, bridge in up if bridge))

    def kernel(self) -> KernelNetwork:
        with self._machine.at_work() as world:
            return KernelNetwork(world.vlan_filtering, world.vlan_links, tuple(world.nf_call))

    def routes(self) -> tuple[HostRoute, ...]:
        with self._machine.at_work() as world:
            return tuple(world.routes)

    def carry_out(self, step: LinkStep) -> None:
        from vmhost.testing.netsteps import carry_out

        with self._machine.at_work(changing=True) as world:
            carry_out(world, step)
        self.changed()

    def carry_out_ports(self, steps: Sequence[PortStep]) -> tuple[PortStep, ...]:
        left = []
        for step in steps:
            try:
                self.carry_out(step)
            except VmhostError:
                left.append(step)
        return tuple(left)

    def create_bridge(
        self, name: str, *, alias: str, mtu: int, address: str, vlan_aware: bool = False, ipv6: bool = False
    ) -> None:
        with self._machine.at_work(changing=True) as world:
            create_bridge(world, name, alias, mtu, address, vlan_aware, ipv6)
        self.changed()

    def set_port_vlans(self, name: str, wanted: PortVlans) -> None:
        with self._machine.at_work(changing=True) as world:
            set_vlans(world, name, wanted)
        self.changed()

    def isolate_port(self, name: str, on: bool) -> None:
        with self._machine.at_work(changing=True) as world:
            isolate(world, name, on)

    def delete_bridge(self, name: str, *, alias: str) -> None:
        with self._machine.at_work(changing=True) as world:
            delete_bridge(world, name, alias)
        self.changed()


def find(world: World, name: str) -> Link | None:
    """Return the link of that name, or None."""
    return next((one for one in (_loopback(), *world.links.values(), *_taps(world)) if one.name == name), None)


def create_bridge(world: World, name: str, alias: str, mtu: int, address: str, vlan_aware: bool, ipv6: bool) -> None:
    """Create a bridge. :raises AlreadyThere: as ``ports.Links``."""
    if find(world, name) is not None:
        hint = f"ip -details link show {name}"
        raise AlreadyThere("there is a link of that name", subject=name, hint=hint)
    mac = f"02:{crc32(name.encode()).to_bytes(4).hex(':')}:01"
    own = [address] if address else []
    link = Link(name, mac=mac, mtu=mtu, alias=alias, addresses=own, vlan_filtering=vlan_aware)
    link.ipv6 = ipv6 or ":" in address
    world.links[name] = link


def delete_bridge(world: World, name: str, alias: str) -> None:
    """Delete a bridge. :raises Absent, AlreadyThere: as ``ports.Links``."""
    hint = f"ip -details link show {name}"
    link = find(world, name)
    if link is None:
        raise Absent("there is no link of that name", subject=name, hint="ip link")
    if link.kind != "bridge" or link.alias != alias:
        what = f"a {link.kind or 'hardware'} link with alias {link.alias!r}"
        raise AlreadyThere(f"it is {what}, not the bridge {alias!r}", subject=name, hint=hint)
    ports = [port.name for port in (*world.links.values(), *_taps(world)) if port.master == name]
    if ports:
        raise AlreadyThere(f"it has ports: {', '.join(ports)}", subject=name, hint=f"ip link show master {name}")
    del world.links[name]
    world.vlans.pop(name, None)
    world.routes[:] = [route for route in world.routes if route.link != name]


def _loopback() -> Link:
    return Link("lo", kind="", mac="00:00:00:00:00:00", mtu=65536, addresses=["127.0.0.1/8"])


def _taps(world: World) -> list[Link]:
    """Return the taps of running domains; libvirt gives them the guest's MAC with a first octet of fe."""
    found: list[Link] = []
    for domain in world.domains.values():
        for nic in guests.facts_of(domain).nics if domain.live_xml else ():
            if nic.type == "bridge":
                mtu = world.links[nic.source].mtu if nic.source in world.links else 1500
                name = nic.tap or f"vnet{domain.number}"
                found.append(Link(name, kind="tun", mac=f"fe{nic.mac[2:]}", mtu=mtu, master=nic.source))
    return found


def isolate(world: World, name: str, on: bool) -> None:
    """Isolate a port, or not, as the kernel does. :raises Absent, Conflict: as ``ports.Links``."""
    port = next((one for one in (_loopback(), *world.links.values(), *_taps(world)) if one.name == name), None)
    if port is None:
        raise Absent("there is no link of that name", subject=name, hint="ip link")
    if port.master not in world.links:
        raise Conflict("it is no port of a bridge", subject=name, hint=f"ip -details link show {name}")
    world.isolated = sorted({*world.isolated, name} if on else {*world.isolated} - {name})


def set_vlans(world: World, name: str, wanted: PortVlans) -> None:
    """Set the VLANs of a port as the kernel does. :raises Absent, Conflict: as ``ports.Links``."""
    port = find(world, name)
    if port is None:
        raise Absent("there is no link of that name", subject=name, hint="ip link")
    if port.vlan_filtering:
        world.vlans[name] = Vlans(wanted.pvid, format_vids(wanted.untagged), format_vids(wanted.tagged))
        return
    bridge = world.links.get(port.master)
    if bridge is None:
        raise Conflict("it is no port of a bridge", subject=name, hint=f"ip -details link show {name}")
    if not bridge.vlan_filtering:
        text = f"bridge {bridge.name} does not filter VLANs: its ports are not kept apart"
        raise Conflict(text, subject=name, hint=f"ip -details link show {bridge.name}")
    world.vlans[name] = Vlans(wanted.pvid, format_vids(wanted.untagged), format_vids(wanted.tagged))


def _vlans(world: World, link: Link) -> PortVlans:
    row = world.vlans.get(link.name)
    return PortVlans(row.pvid, parse_vids(row.untagged), parse_vids(row.tagged)) if row else NO_VLAN


def _observed(world: World, link: Link, index: int, has_ports: bool) -> ObservedLink:
    return ObservedLink(
        name=link.name,
        index=index,
        kind=link.kind,
        mac=link.mac,
        mtu=link.mtu,
        up=link.up,
        carrier=link.up and link.carrier and (link.kind != "bridge" or has_ports),
        master=link.master,
        alias=link.alias,
        addresses=tuple(link.addresses),
        vlan_filtering=link.vlan_filtering,
        vlans=_vlans(world, link),
        parent=link.parent,
        vid=link.vid,
        ipv6=link.ipv6,
        held=tuple(HeldAddress(address) for address in link.addresses),
        stp=link.stp,
        peer=link.peer,
        isolated=link.name in world.isolated,
    )
