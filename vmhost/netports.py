"""What vmhost asks of the outside world to make the host's network last, to take a change back, and to get into VLANs.

The same rules as in :mod:`vmhost.ports` hold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from vmhost.model.netsteps import GuardNetwork, KeepNetwork
    from vmhost.model.network import LinkManager, ObservedNetwork
    from vmhost.model.reach import AccessPort
    from vmhost.model.wire import KernelNetwork


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


class Access(Protocol):
    """The host's own ways into VLANs, what its kernel can do with them, and news of links."""

    def kernel(self) -> KernelNetwork:
        """What the kernel can do with VLANs, and what else has a hand in bridged traffic."""

    def namespaces(self) -> tuple[str, ...]:
        """The names of the network namespaces that have one."""

    def open_access(self, access: AccessPort, *, alias: str, mtu: int) -> None:
        """Make the host's access port into a VLAN, complete from its first moment; what is left of an earlier one is
        replaced. ``AlreadyThere`` when its name is another's.
        """

    def close_access(self, access: AccessPort, *, alias: str) -> None:
        """Take it away with its namespace; absent ones are fine, ``AlreadyThere`` when its name is another's."""

    def watch(self, notify: Callable[[], None]) -> Callable[[], None]:
        """Call ``notify`` from another thread after every change of links or of ports' VLANs, several at once being
        one; return the function that ends it.
        """
