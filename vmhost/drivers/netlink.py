"""``ports.Links`` on rtnetlink (rtnetlink(7)), through pyroute2's IPRoute.

pyroute2 is imported by the first call: it takes 0.2 s.
"""

from __future__ import annotations

import errno
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_interface
from pathlib import Path
from typing import Final, TypeVar
from zlib import crc32

from vmhost.drivers.background import begun
from vmhost.drivers.linkread import Socket, all_links, all_neighbours, find_link, links_of
from vmhost.drivers.portvlans import isolate_port, set_port_vlans
from vmhost.drivers.sealing import seal
from vmhost.model.errors import Absent, AlreadyThere, DriverError, PermissionDenied
from vmhost.model.netsteps import HostRoute, LinkStep, PortStep
from vmhost.model.observed import Neighbour, ObservedLink
from vmhost.model.reach import AccessPort
from vmhost.model.vlans import PortVlans
from vmhost.model.wire import KernelNetwork

T = TypeVar("T")

_NO_FILTERING: Final = "this kernel's bridges cannot filter VLANs (it lacks BRIDGE_VLAN_FILTERING)"
_OTHER_KERNEL: Final = "modprobe -a bridge 8021q; vmhost lab up --kernel uml"
_IPV6: Final = Path("/proc/sys/net/ipv6/conf")


class Netlink:
    """The links of the network namespace that the calling process is in; safe to use from threads and event loops."""

    def __init__(self) -> None:
        self._own = threading.local()

    @contextmanager
    def session(self) -> Iterator[None]:
        """Let all calls of this thread share one socket, in the block: opening one takes longer than most calls."""
        from pyroute2 import IPRoute

        with IPRoute() as socket:
            self._own.socket = socket
            try:
                yield
            finally:
                del self._own.socket

    def links(self) -> tuple[ObservedLink, ...]:
        """Return all links, by index."""
        return self._call(all_links, "links")

    def neighbours(self) -> tuple[Neighbour, ...]:
        """Return the neighbours whose hardware address the kernel knows (ARP, NDP)."""
        return self._call(all_neighbours, "neighbours")

    def kernel(self) -> KernelNetwork:
        """Return what this kernel can do with VLANs; see :func:`vmhost.drivers.kernelnet.kernel_network`."""
        from vmhost.drivers.kernelnet import kernel_network

        return kernel_network()

    def routes(self) -> tuple[HostRoute, ...]:
        """Return the routes of the main table that somebody set."""
        from vmhost.drivers.netsteps import host_routes

        return self._call(host_routes, "routes")

    def carry_out(self, step: LinkStep) -> None:
        """Do a step of a network plan.

        :raises AlreadyThere: it is as wanted, or another link has the name. :raises Absent: there is nothing to change.
        :raises Conflict: that belongs to somebody else. :raises DriverError: also when this kernel lacks what it takes.
        """
        from vmhost.drivers.netsteps import carry_out

        self._call(
            lambda socket: carry_out(socket, step), getattr(step, "name", "") or getattr(step, "link", "network")
        )

    def carry_out_ports(self, steps: Sequence[PortStep]) -> tuple[PortStep, ...]:
        """Do many steps of ports with few messages; return those that are not done, or were before.

        :raises DriverError: the kernel cannot be asked.
        """
        from vmhost.drivers.portbatch import carry_out_ports

        return self._call(lambda socket: carry_out_ports(socket, steps), "links")

    def create_bridge(
        self, name: str, *, alias: str, mtu: int, address: str, vlan_aware: bool = False, ipv6: bool = False
    ) -> None:
        """Create a bridge that is complete from its first moment, and set it up.

        The kernel takes no alias with the message that creates a link (``rtnl_create_link``, seen on 6.18), so the
        bridge is made under a passing name and gets its own when all the rest is done: whoever is killed in between
        leaves only a link that the next ``create_bridge`` or ``delete_bridge`` of the same name removes.

        The host takes no router advertisements from guests: IPv6 is off on the bridge, unless its address is one, or
        ``ipv6`` asks for it.

        :param address: the host's own, ``ip/prefix``; empty: none.
        :param vlan_aware: it filters VLANs, and its ports begin in none: what nobody has tagged carries nothing.
        :raises AlreadyThere: a link has the name. :raises PermissionDenied: this takes CAP_NET_ADMIN.
        :raises DriverError: also if this kernel's bridges cannot filter VLANs.
        """
        self._call(lambda socket: create_bridge(socket, name, alias, mtu, address, vlan_aware, ipv6), name)

    def set_port_vlans(self, name: str, wanted: PortVlans) -> None:
        """Make the VLANs of a bridge port exactly these, and read them back.

        :raises Absent: there is no such link. :raises Conflict: it is no port of a bridge that filters VLANs.
        :raises PermissionDenied: this takes CAP_NET_ADMIN.
        """
        self._call(lambda socket: set_port_vlans(socket, name, wanted), name)

    def isolate_port(self, name: str, on: bool) -> None:
        """Let a port exchange nothing with other isolated ports of its bridge (bridge(8), ``isolated``), or everything.

        :raises Absent: there is no such link. :raises Conflict: it is no port of a bridge.
        :raises PermissionDenied: this takes CAP_NET_ADMIN.
        """
        self._call(lambda socket: isolate_port(socket, name, on), name)

    def namespaces(self) -> tuple[str, ...]:
        """Return the names of the network namespaces that have one."""
        from vmhost.drivers.accessport import namespaces

        return namespaces()

    def open_access(self, access: AccessPort, *, alias: str, mtu: int) -> None:
        """Make the host's access port into a VLAN; see :func:`vmhost.drivers.accessport.open_access`."""
        from vmhost.drivers.accessport import open_access

        self._call(lambda socket: open_access(socket, access, alias, mtu), access.port)

    def close_access(self, access: AccessPort, *, alias: str) -> None:
        """Take it away; see :func:`vmhost.drivers.accessport.close_access`."""
        from vmhost.drivers.accessport import close_access

        self._call(lambda socket: close_access(socket, access, alias), access.port)

    def watch(self, notify: Callable[[], None]) -> Callable[[], None]:
        """Call ``notify`` from another thread after every change; return the function that ends it."""
        from vmhost.drivers.linkwatch import LinkWatch

        return LinkWatch(notify).close

    def delete_bridge(self, name: str, *, alias: str) -> None:
        """Delete a bridge that is ours and has no ports.

        :raises Absent: there is no such link.
        :raises AlreadyThere: it is not a bridge, not ours, or has ports; it stays as it is.
        """
        self._call(lambda socket: delete_bridge(socket, name, alias), name)

    def _call(self, act: Callable[[Socket], T], subject: str) -> T:
        """Run ``act`` on a netlink socket of its own; in another thread if an event loop runs in this one."""

        def run() -> T:
            from pyroute2 import IPRoute
            from pyroute2.netlink.exceptions import NetlinkError

            shared = getattr(self._own, "socket", None)
            try:
                if shared is not None:
                    return act(shared)
                with IPRoute() as socket:
                    return act(socket)
            except NetlinkError as error:
                raise _translate(error.code, error.args[1], subject) from error
            except OSError as error:
                raise _translate(error.errno or 0, error.strerror or str(error), subject) from error

        return begun(run, "netlink")() if _loop_runs() else run()


def _loop_runs() -> bool:
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None


def _translate(code: int, message: str, subject: str) -> DriverError:
    if code in (errno.EPERM, errno.EACCES):
        return PermissionDenied(message, subject=subject, hint="sudo vmhost host doctor")
    if code == errno.EEXIST:
        return AlreadyThere(message, subject=subject, hint=f"ip -details link show {subject}")
    if code == errno.ENODEV:
        return Absent(message, subject=subject, hint="ip link")
    return DriverError(
        message, subject=subject, hint="vmhost host doctor", retryable=code in (errno.EBUSY, errno.EINTR)
    )


def passing_name(name: str) -> str:
    """Return what a link is called until it is complete."""
    return f"vhnew-{crc32(name.encode()):08x}"


def create_bridge(
    socket: Socket, name: str, alias: str, mtu: int, address: str, vlan_aware: bool, ipv6: bool, sealed: bool = False
) -> None:
    """Create a bridge; see :meth:`Netlink.create_bridge` and, for ``sealed``, :func:`vmhost.drivers.sealing.seal`."""
    remove_abandoned(socket, name)
    if find_link(socket, name) is not None:
        raise AlreadyThere("there is a link of that name", subject=name, hint=f"ip -details link show {name}")
    passing = passing_name(name)
    filtering = {"br_vlan_filtering": 1, "br_vlan_default_pvid": 0} if vlan_aware else {}
    with named_if_missing(name, _NO_FILTERING if vlan_aware else "this kernel has no bridges (it lacks BRIDGE)"):
        socket.link("add", ifname=passing, kind="bridge", **filtering)
    with removed_on_failure(socket, passing) as bridge:
        _check_filtering(bridge, name, vlan_aware)
        # Set once, the address stays; else a bridge takes that of its lowest port, and guests come and go.
        socket.link("set", index=bridge.index, IFLA_IFALIAS=alias, mtu=mtu, address=bridge.mac)
        limit_ipv6(passing, ipv6 or ":" in address)
        if sealed:
            seal(passing)
        if address:
            interface = ip_interface(address)
            socket.addr("add", index=bridge.index, address=str(interface.ip), prefixlen=interface.network.prefixlen)
        socket.link("set", index=bridge.index, ifname=name)
        socket.link("set", index=bridge.index, state="up")
        _check(find_link(socket, name, addresses=True), alias, mtu, address)


@contextmanager
def named_if_missing(name: str, text: str) -> Iterator[None]:
    """Say what the kernel lacks when it does not know a kind of link, or a setting of it.

    :raises DriverError: with ``text``.
    """
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        yield
    except NetlinkError as error:
        if error.code != errno.EOPNOTSUPP:
            raise
        raise DriverError(text, subject=name, hint=_OTHER_KERNEL) from error


@contextmanager
def removed_on_failure(socket: Socket, name: str) -> Iterator[ObservedLink]:
    """Give the link that was just made; remove it again, whatever it is called by then, if the block fails."""
    link = find_link(socket, name)
    assert link is not None
    try:
        yield link
    except BaseException:
        socket.link("del", index=link.index)
        raise


def limit_ipv6(link: str, wanted: bool) -> None:
    """Keep guests from configuring the host by router advertisements (Documentation/networking/ip-sysctl.rst)."""
    if _IPV6.is_dir():  # a kernel without IPv6 has nothing to limit
        (_IPV6 / link / "accept_ra").write_text("0")
        (_IPV6 / link / "disable_ipv6").write_text("0" if wanted else "1")


def _check_filtering(bridge: ObservedLink, name: str, vlan_aware: bool) -> None:
    """:raises DriverError: the kernel passed over what it has not: it was built without BRIDGE_VLAN_FILTERING."""
    if vlan_aware and (not bridge.vlan_filtering or bridge.default_pvid):
        raise DriverError(_NO_FILTERING, subject=name, hint=_OTHER_KERNEL)


def _check(link: ObservedLink | None, alias: str, mtu: int, address: str) -> None:
    """:raises DriverError: the kernel accepted every message and yet the link is not as it was asked for."""
    there = link is not None and (link.alias, link.mtu, link.up) == (alias, mtu, True)
    if link is None or not there or (address and ip_interface(address) not in map(ip_interface, link.addresses)):
        raise DriverError(f"not as asked for: {link}", subject=link.name if link else "", hint="ip -details address")


def delete_bridge(socket: Socket, name: str, alias: str) -> None:
    """Delete a bridge; see :meth:`Netlink.delete_bridge`."""
    remove_abandoned(socket, name)
    links = links_of(socket.get_links(), socket.get_addr())
    bridge = next((link for link in links if link.name == name), None)
    hint = f"ip -details link show {name}"
    if bridge is None:
        raise Absent("there is no link of that name", subject=name, hint="ip link")
    if bridge.kind != "bridge" or bridge.alias != alias:
        what = f"a {bridge.kind or 'hardware'} link with alias {bridge.alias!r}"
        raise AlreadyThere(f"it is {what}, not the bridge {alias!r}", subject=name, hint=hint)
    ports = [link.name for link in links if link.master == name]
    if ports:
        raise AlreadyThere(f"it has ports: {', '.join(ports)}", subject=name, hint=f"ip link show master {name}")
    socket.link("del", index=bridge.index)


def remove_abandoned(socket: Socket, name: str, kind: str = "bridge") -> None:
    """Remove what a killed maker of a link of this name left behind: it is down and has no ports."""
    left = find_link(socket, passing_name(name))
    if left is None or left.kind != kind or left.up:
        return
    if not any(link.get_attr("IFLA_MASTER") == left.index for link in socket.get_links()):
        socket.link("del", index=left.index)
