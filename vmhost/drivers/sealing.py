"""Links on which the host is nobody: it answers for none of its addresses there, and lets nothing of it through.

A bridge without an address is no wall. The host answers ARP on each link for all addresses that it has on any, and
whoever sends to the bridge's own MAC is forwarded like everybody else (Documentation/networking/ip-sysctl.rst).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from vmhost.drivers.files import os_errors
from vmhost.model.errors import DriverError

_IPV4: Final = Path("/proc/sys/net/ipv4/conf")
_SEALED: Final = {
    "arp_ignore": 8,  # answers for no address
    "rp_filter": 1,  # the link has no address, so whatever source leads elsewhere: nothing is delivered or forwarded
    "forwarding": 0,
    "proxy_arp": 0,
}
"""``rp_filter`` holds on, whatever ``all`` says, also when somebody lets the host forward later."""


def seal(link: str) -> None:
    """Take the host out of a link that is down and has no address; its IPv6 is off already.

    :raises DriverError: it cannot, or the kernel did not keep it.
    """
    for name, value in _SEALED.items():
        path = _IPV4 / link / name
        with os_errors(path, "set"):
            path.write_text(str(value))
            kept = path.read_text().strip()
        if kept != str(value):
            raise DriverError(f"it is {kept}, not {value}", subject=str(path), hint="vmhost host doctor")
