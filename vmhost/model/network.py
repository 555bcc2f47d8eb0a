"""What the host's network is beside its links: routes, who else manages links, what is kept, what waits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from vmhost.model.netsteps import HostRoute, KeepNetwork


@dataclass(frozen=True, slots=True)
class HeldAddress:
    """An address of a link. ``lasting``: it has no lifetime, peer or flags, so it can be put back as it was."""

    address: str
    broadcast: str = ""
    lasting: bool = True


@dataclass(frozen=True, slots=True)
class LinkManager:
    """A program that configures a link by itself; ``hand_over`` are the lines to type that make it let go."""

    link: str
    name: str
    hand_over: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PendingChange:
    """A network change that waits for its confirmation, or that the watchdog took back.

    ``state``: ``applying``, ``waiting``, ``restoring``, ``restored``. ``left`` are the seconds that it still waits, by
    its watchdog's clock, when this was read. ``failures`` are sentences about what could not be put back.
    """

    site: str
    state: str
    seconds: int
    left: float
    user: str
    keep: KeepNetwork
    failures: tuple[str, ...] = ()

    @property
    def open(self) -> bool:
        """Whether it is still to be decided."""
        return self.state != "restored"


@dataclass(frozen=True, slots=True)
class ObservedNetwork:
    """``systemd``: it runs here; ``unit``: our unit is there as this vmhost would write it."""

    routes: tuple[HostRoute, ...] = ()
    managers: tuple[LinkManager, ...] = ()
    kept: tuple[KeepNetwork, ...] = ()
    pending: PendingChange | None = None
    systemd: bool = False
    unit: bool = False

    def kept_of(self, site: str) -> KeepNetwork:
        """Return what is kept of a site's network, mostly nothing."""
        return next((kept for kept in self.kept if kept.site == site), KeepNetwork(site))


NOTHING: Final = ObservedNetwork()
"""A host where nobody has looked at its network, or where there is nothing to see."""
