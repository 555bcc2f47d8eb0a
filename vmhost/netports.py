"""What vmhost asks of the outside world about the network: links, VLANs and ways into them, and what is at their end.

The same rules as in :mod:`vmhost.ports` hold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import socket

    from vmhost.model.netsteps import GuardNetwork, HostRoute, KeepNetwork, LinkStep, PortStep
    from vmhost.model.network import LinkManager, ObservedNetwork
    from vmhost.model.observed import Neighbour, ObservedHook, ObservedLink
    from vmhost.model.probing import HttpAnswer, HttpAsk
    from vmhost.model.reach import AccessPort
    from vmhost.model.reservations import Reservation
    from vmhost.model.shell import CommandResult, SshTarget
    from vmhost.model.vlans import PortVlans
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


class Links(Access, Protocol):
    """The host's network links (rtnetlink)."""

    def session(self) -> AbstractContextManager[None]:
        """Let the calls of this thread in the block share what each would open for itself."""

    def links(self) -> tuple[ObservedLink, ...]: ...
    def neighbours(self) -> tuple[Neighbour, ...]: ...
    def routes(self) -> tuple[HostRoute, ...]:
        """Those of the main table that somebody set; not those that come with addresses."""

    def carry_out(self, step: LinkStep) -> None:
        """Do a step: ``AlreadyThere`` when it is as wanted, or the name is taken; ``Absent`` when there is nothing to
        do it to; ``Conflict`` when that belongs to somebody else.
        """

    def carry_out_ports(self, steps: Sequence[PortStep]) -> tuple[PortStep, ...]:
        """Do many steps of ports with few messages, and return those that are not done, or were before: each of them
        is for :meth:`carry_out`, which says why.
        """

    def create_bridge(
        self, name: str, *, alias: str, mtu: int, address: str, vlan_aware: bool = False, ipv6: bool = False
    ) -> None:
        """Create with its alias in one go, then MTU, address and up; on a failure in between the bridge is removed
        again. ``vlan_aware``: it filters VLANs, and its ports begin in none.
        """

    def set_port_vlans(self, name: str, wanted: PortVlans) -> None:
        """Make the VLANs of a port exactly these and read them back; ``Conflict`` when its bridge filters none."""

    def isolate_port(self, name: str, on: bool) -> None:
        """Let a port of a bridge exchange nothing with other isolated ones; ``Conflict`` when it is no such port."""

    def delete_bridge(self, name: str, *, alias: str) -> None:
        """Delete if the alias is ours; ``AlreadyThere`` when it has ports or another alias."""


class Hook(Protocol):
    """The libvirt hook that tags the ports of guests, and the daemon that has to know it."""

    def state(self) -> ObservedHook: ...
    def install(self) -> None:
        """Write it, beside those of others; ``AlreadyThere`` when a file of another has its name."""

    def remove(self) -> None:
        """Take it away; an absent one is fine."""

    def restart_daemon(self) -> None:
        """Restart libvirt's daemon; guests run on, and connections are made anew."""


class Packet(Protocol):
    """The packet filter: our own table, as text of libnftables-json(5)."""

    def table(self) -> str: ...
    def change(self, make: Callable[[str], str], *, look: bool = True) -> None:
        """Send what ``make`` makes of our table (of an empty text without ``look``) as one transaction, if anything."""


class Reservations(Protocol):
    """What is reserved on this host beside its guests; changed under the host's lock only."""

    def read(self) -> tuple[Reservation, ...]:
        """All of them, those that have rested long enough, too. :raises DamagedData: they cannot be read."""

    def keep(self, items: Sequence[Reservation], now: str) -> None:
        """Add or replace, all or none; what has rested long enough at ``now`` is forgotten.

        :raises AlreadyThere: another holds one of them.
        """

    def drop(self, items: Sequence[Reservation]) -> None:
        """Forget them; those that are not there are fine."""


class ShellSession(Protocol):
    """An open SSH connection to a guest; several threads may run commands on it at once."""

    def run(
        self,
        argv: Sequence[str],
        *,
        input: bytes = b"",  # noqa: A002 - the word of subprocess
        timeout: float,
        cap: int = 1 << 20,
        sudo: bool = False,
        until: bytes = b"",
        check: Callable[[], None] = lambda: None,
    ) -> CommandResult:
        """Run a command and wait for its end.

        :param until: return as soon as stdout holds these bytes.
        :param check: called at least every other second meanwhile; what it raises ends the waiting.
        """

    def write_file(self, path: str, data: bytes, *, mode: int = 0o644) -> None: ...
    def read_file(self, path: str, *, cap: int = 1 << 20) -> bytes: ...
    def dial(self, port: int, *, timeout: float) -> socket.socket:
        """Return a connection to a port of the guest's own loopback."""

    @property
    def alive(self) -> bool:
        """Whether it may be used again: it was not closed, and is not known to be lost."""

    def close(self) -> None: ...


class GuestShell(Protocol):
    """Opens SSH sessions with strictly pinned host keys; ``deadline`` is a monotonic time in seconds."""

    def connect(self, target: SshTarget, *, deadline: float, check: Callable[[], None] = lambda: None) -> ShellSession:
        """Connect and log in; what ``check`` raises, which is called meanwhile, ends it."""

    def knock(self, target: SshTarget, notify: Callable[[str], None]) -> AbstractContextManager[object]:
        """Call ``notify("ssh")`` once, at the moment when the guest's SSH server opens; knocking ends with the context.

        The next :meth:`connect` to the same host and port goes on with that very connection.
        """


class Prober(Protocol):
    """Looks at what answers in a guest, by the way that leads to its SSH server; ``inside``: by that session, from
    within the guest. ``timeout`` holds for everything together.
    """

    def tcp(self, target: SshTarget, port: int, *, timeout: float, inside: ShellSession | None = None) -> None:
        """Connect. :raises Unreachable: nobody takes the connection."""

    def http(
        self, target: SshTarget, ask: HttpAsk, *, timeout: float, inside: ShellSession | None = None
    ) -> HttpAnswer:
        """Ask. :raises Unreachable: there is no answer; :raises DriverError: TLS or the certificate is not good."""
