"""What vmhost asks of the outside world to make the host's network last, and to take a change of it back.

The same rules as in :mod:`vmhost.ports` hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from vmhost.model.netsteps import GuardNetwork, KeepNetwork
    from vmhost.model.network import LinkManager, ObservedNetwork


class Keeper(Protocol):
    """The network that is kept for the next boot, the watchdog over a change, and other programs that manage links."""

    def state(self) -> ObservedNetwork:
        """All but routes and managers."""

    def managers(self, links: Sequence[tuple[int, str]]) -> tuple[LinkManager, ...]:
        """Who else configures links, given with index and name."""

    def keep(self, network: KeepNetwork) -> None:
        """Write down what makes a site's network anew; without steps it is forgotten."""

    def guard(self, change: GuardNetwork) -> None:
        """Start the watchdog; it works when this returns. ``Conflict`` when another change waits."""

    def await_confirmation(self) -> None:
        """Let the seconds run. ``Refused`` when the watchdog has given up already."""

    def dismiss(self, *, confirmed: bool) -> None:
        """End the watchdog; ``confirmed``: and keep what the change made, ``Refused`` when the watchdog has acted.

        ``Absent`` when no change waits.
        """

    def install_unit(self) -> None:
        """Write and enable our unit; ``AlreadyThere`` when another's has its name."""

    def remove_unit(self) -> None:
        """Disable and remove it; an absent one is fine."""
