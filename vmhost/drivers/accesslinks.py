"""``netports.Access`` on rtnetlink: the host's ways into VLANs, what its kernel can do with them, and news of links."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from vmhost.model.reach import AccessPort
    from vmhost.model.wire import KernelNetwork

Socket = Any  # pyroute2.IPRoute
T = TypeVar("T")


class AccessLinks:
    """The part of :class:`vmhost.drivers.netlink.Netlink` that few calls need; its modules are loaded by these."""

    def _call(self, act: Callable[[Socket], T], subject: str) -> T:
        """Run ``act`` on a netlink socket; errors become ours, about ``subject``."""
        raise AssertionError("Netlink does")

    def kernel(self) -> KernelNetwork:
        """Return what this kernel can do with VLANs; see :func:`vmhost.drivers.kernelnet.kernel_network`."""
        from vmhost.drivers.kernelnet import kernel_network

        return kernel_network()

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
