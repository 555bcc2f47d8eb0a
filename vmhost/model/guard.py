"""What may come in through the port of a guest: nothing in the name of others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from vmhost.model.identity import NicIdentity

REASONS: Final = ("mac", "arp", "ipv4", "ipv6", "server", "other")
"""Why a frame was dropped: another MAC; ARP, IPv4 or IPv6 in the name of another; an answer that only DHCP servers and
routers give; another protocol than these three."""


@dataclass(frozen=True, slots=True)
class PortGuard:
    """What a guest may say through its port.

    ``addresses`` are those that are known to be the guest's, without prefix; with none of them known, it may use any.
    ``tagged``: it is in VLANs with tags as well, where its addresses are its own affair; ``pvid`` is then the VLAN that
    it is in without, and may name in a tag, too.
    """

    port: str
    mac: str
    addresses: tuple[str, ...] = ()
    tagged: bool = False
    pvid: int = 0

    @property
    def mark(self) -> str:
        """A short text that differs when the rules differ; every rule carries it."""
        from zlib import crc32

        text = "\n".join((str(RULES), self.port, self.mac, *self.addresses, f"{self.tagged} {self.pvid}"))
        return f"vmhost {RULES} {crc32(text.encode()):08x}"


RULES: Final = 1
"""Version of the rules that :mod:`vmhost.render.nft` makes; another one makes running guests' rules be written anew."""


@dataclass(frozen=True, slots=True)
class ObservedGuard:
    """The rules of a port as the kernel has them.

    ``marks`` are what its rules carry, in order; ``reached``: frames of the port do come to them. ``dropped`` counts
    packets by :data:`REASONS`.
    """

    port: str
    marks: tuple[str, ...] = ()
    reached: bool = False
    dropped: tuple[tuple[str, int], ...] = ()


def guard_of(nic: NicIdentity) -> PortGuard | None:
    """Return what guards a NIC's port; None: nothing does."""
    if nic.spoofing != "refused" or not nic.tap:
        return None
    addresses = (nic.address.partition("/")[0],) if nic.address else ()
    return PortGuard(nic.tap, nic.mac, addresses, bool(nic.tagged), nic.pvid if nic.tagged else 0)
