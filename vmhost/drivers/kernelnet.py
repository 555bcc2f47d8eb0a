"""What the kernel can do with VLANs, found out by trying it where nobody is disturbed."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Final

from vmhost.drivers.netns import in_new_namespace
from vmhost.model.wire import KernelNetwork

_LINKS: Final = Path("/sys/class/net")
_NF: Final = Path("/proc/sys/net/bridge")
_CALLS: Final = ("arptables", "iptables", "ip6tables")


def kernel_network() -> KernelNetwork:
    """Return what this kernel can do: tried in a network namespace that is made for it and gone at once.

    A bridge that is there says more cheaply whether bridges filter VLANs. Whoever may make no namespace is told only
    what such bridges say. The kernel may load its modules for the trial, as for the first bridge or VLAN link.
    """
    filtering, links = _by_bridges(), _by_links()
    if filtering is None or links is None:
        with suppress(OSError):
            tried = in_new_namespace(_try)
            filtering, links = (tried[0] if filtering is None else filtering), links or tried[1]
    return KernelNetwork(filtering, links, tuple(_calls()))


def _by_bridges() -> bool | None:
    """A kernel without VLAN filtering shows no such file below a bridge (net/bridge/br_sysfs_br.c)."""
    for bridge in _LINKS.glob("*/bridge"):
        return (bridge / "vlan_filtering").exists()
    return None


def _by_links() -> bool | None:
    return True if Path("/proc/net/vlan").is_dir() else None


def _try() -> tuple[bool, bool]:
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    with IPRoute() as socket:
        try:
            socket.link("add", ifname="br0", kind="bridge", br_vlan_filtering=1)
        except NetlinkError:
            return False, False
        index = socket.link_lookup(ifname="br0")[0]
        info = socket.get_links(index)[0].get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_DATA")
        filtering = bool(info.get_attr("IFLA_BR_VLAN_FILTERING"))
        try:
            socket.link("add", ifname="br0.7", kind="vlan", link=index, vlan_id=7)
        except NetlinkError:
            return filtering, False
        return filtering, True


def _calls() -> list[str]:
    """Return what hands bridged frames to the host's packet filter: for all bridges, or for one of them."""
    found = [f"net.bridge.bridge-nf-call-{name}" for name in _CALLS if _is_on(_NF / f"bridge-nf-call-{name}")]
    if not found:
        paths = (path / f"nf_call_{name}" for path in sorted(_LINKS.glob("*/bridge")) for name in _CALLS)
        found = [f"{path.parts[-3]} {path.name}" for path in paths if _is_on(path)]
    return found


def _is_on(path: Path) -> bool:
    with suppress(OSError):
        return path.read_text().strip() not in ("", "0")
    return False
