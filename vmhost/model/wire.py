"""Values about the host's network as a whole: what its kernel can do, and where a guest's way to the wire is broken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Place = Literal["site", "libvirt", "kernel", "uplink"]
"""A station on the way from a wish to the wire; each must be as the one before it says."""


@dataclass(frozen=True, slots=True)
class KernelNetwork:
    """What the kernel can do with VLANs; None: it was not to be found out, which takes root.

    ``nf_call`` are the settings and bridges by which the host's own packet filter sees bridged traffic.
    """

    vlan_filtering: bool | None = None
    vlan_links: bool | None = None
    nf_call: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NetDifference:
    """One place where the network is not as it should be.

    ``place`` is the station that differs from what the one before it says. ``subject`` is a guest, a bridge or an
    uplink, ``field`` what differs there, ``mend`` the command that mends it.
    """

    place: Place
    subject: str
    field: str
    want: str
    have: str
    mend: str = ""

    def __str__(self) -> str:
        want, have = self.want or "nothing", self.have or "nothing"
        return f"{self.place}: {self.subject}: {self.field} is {have}, should be {want}"
