"""An access port into a VLAN, for :mod:`vmhost.drivers.netlink`: a veth pair with one end on the bridge, and the other
alone in a network namespace that has a name (ip-netns(8)), so that it outlives us.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_interface
from pathlib import Path
from typing import Any, Final

from vmhost.drivers.netns import DIRECTORY, in_namespace
from vmhost.drivers.portvlans import set_port_vlans
from vmhost.model.errors import Absent, AlreadyThere
from vmhost.model.reach import INSIDE, AccessPort
from vmhost.model.vlans import port_vlans

Socket = Any  # pyroute2.IPRoute

_IPV6: Final = Path("/proc/sys/net/ipv6/conf")


def namespaces() -> tuple[str, ...]:
    """Return the names of the network namespaces that have one."""
    return tuple(sorted(path.name for path in DIRECTORY.iterdir())) if DIRECTORY.is_dir() else ()


def open_access(socket: Socket, access: AccessPort, alias: str, mtu: int) -> None:
    """Make the port with its namespace; what is left of an earlier one is replaced.

    The port is in its VLAN before its other end is up, so nothing ever passes it in another.

    :raises AlreadyThere: a link of another has its name. :raises Absent: there is no such bridge.
    """
    from pyroute2 import netns

    close_access(socket, access, alias)
    bridge = _index(socket, access.bridge)
    if bridge is None:
        raise Absent("there is no link of that name", subject=access.bridge, hint="ip link show type bridge")
    netns.create(access.namespace)
    with _closed_on_failure(socket, access, alias):
        peer = {"ifname": INSIDE, "net_ns_fd": access.namespace}
        socket.link("add", ifname=access.port, kind="veth", peer=peer)
        index = _index(socket, access.port)
        socket.link("set", index=index, IFLA_IFALIAS=alias, mtu=mtu)
        _no_ipv6(access.port)
        socket.link("set", index=index, master=bridge)
        if access.vid:
            set_port_vlans(socket, access.port, port_vlans(access.vid))
        in_namespace(access.namespace, lambda: _inside(access, mtu))
        socket.link("set", index=index, state="up")


def close_access(socket: Socket, access: AccessPort, alias: str) -> None:
    """Take the port and its namespace away; absent ones are fine. :raises AlreadyThere: the port is another's."""
    from pyroute2 import netns

    index = _index(socket, access.port)
    if index is not None:
        have = str(socket.get_links(index)[0].get_attr("IFLA_IFALIAS") or "")
        # Whoever was killed before the alias was set has left a port that is in no bridge.
        if have != alias and (have or socket.get_links(index)[0].get_attr("IFLA_MASTER")):
            hint = f"ip -details link show {access.port}"
            raise AlreadyThere(f"it is a link with alias {have!r}, not {alias!r}", subject=access.port, hint=hint)
        socket.link("del", index=index)
    if (DIRECTORY / access.namespace).exists():
        netns.remove(access.namespace)


@contextmanager
def _closed_on_failure(socket: Socket, access: AccessPort, alias: str) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with suppress(Exception):
            close_access(socket, access, alias)
        raise


def _inside(access: AccessPort, mtu: int) -> None:
    """Give the other end its address. The host takes no router advertisements there."""
    from pyroute2 import IPRoute

    interface = ip_interface(access.address)
    if interface.version == 4:
        _no_ipv6(INSIDE)
    elif (_IPV6 / INSIDE).is_dir():
        (_IPV6 / INSIDE / "accept_ra").write_text("0")
        (_IPV6 / INSIDE / "accept_dad").write_text("0")
    with IPRoute() as socket:
        socket.link("set", index=_index(socket, "lo"), state="up")
        index = _index(socket, INSIDE)
        socket.link("set", index=index, mtu=mtu)
        socket.addr("add", index=index, address=str(interface.ip), prefixlen=interface.network.prefixlen)
        socket.link("set", index=index, state="up")


def _no_ipv6(link: str) -> None:
    if (_IPV6 / link).is_dir():
        (_IPV6 / link / "disable_ipv6").write_text("1")


def _index(socket: Socket, name: str) -> int | None:
    found = socket.link_lookup(ifname=name)
    return int(found[0]) if found else None
