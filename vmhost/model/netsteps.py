"""The steps that change the host's own network; each says all that it needs, so that no planner has to be asked.

The watchdog that takes a network change back, and the unit that makes the network anew when the host boots, work from
these alone: they are kept as plain JSON values (:func:`step_to_json`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Literal, get_args

OURS: Final = "vmhost:"
"""What the alias of a link of ours begins with; the site's name follows."""


def alias_of(site: str) -> str:
    """Return the alias that marks a link as made for a site."""
    return f"{OURS}{site}"


@dataclass(frozen=True, slots=True)
class CreateBridge:
    """Create a bridge, give it its alias ``vmhost:SITE``, MTU and host address, and set it up.

    ``vlan_aware``: it filters VLANs, and its ports begin in none. ``ipv6``: the host speaks IPv6 on it. ``sealed``: the
    host takes no part in it, neither by answering for its addresses nor by forwarding.
    """

    name: str
    site: str
    mtu: int
    address: str = ""
    vlan_aware: bool = False
    ipv6: bool = False
    sealed: bool = False
    kind: Literal["create-bridge"] = "create-bridge"


@dataclass(frozen=True, slots=True)
class DeleteBridge:
    """Delete a bridge whose alias is ``vmhost:SITE`` and that has no ports."""

    name: str
    site: str
    kind: Literal["delete-bridge"] = "delete-bridge"


@dataclass(frozen=True, slots=True)
class SetPortVlans:
    """Make the VLANs of a port, or of a bridge of ours itself, exactly these; ``untagged`` and ``tagged`` are written
    as ``100,200-299``.
    """

    port: str
    pvid: int
    untagged: str
    tagged: str
    kind: Literal["set-port-vlans"] = "set-port-vlans"


@dataclass(frozen=True, slots=True)
class SetBridge:
    """Set the MTU of a bridge of ours, and whether the host speaks IPv6 on it."""

    name: str
    mtu: int
    ipv6: bool
    kind: Literal["set-bridge"] = "set-bridge"


@dataclass(frozen=True, slots=True)
class AttachUplink:
    """Make a link a port of a bridge, and set it up."""

    link: str
    bridge: str
    kind: Literal["attach-uplink"] = "attach-uplink"


@dataclass(frozen=True, slots=True)
class DetachUplink:
    """Take a link off its bridge; ``up``: whether it stays up."""

    link: str
    bridge: str
    up: bool
    kind: Literal["detach-uplink"] = "detach-uplink"


@dataclass(frozen=True, slots=True)
class CreateVlanLink:
    """Create a VLAN link on a bridge with its alias ``vmhost:SITE``, MTU and host address, and set it up."""

    name: str
    bridge: str
    vid: int
    site: str
    mtu: int
    address: str
    kind: Literal["create-vlan-link"] = "create-vlan-link"


@dataclass(frozen=True, slots=True)
class DeleteVlanLink:
    """Delete a VLAN link whose alias is ``vmhost:SITE``."""

    name: str
    site: str
    kind: Literal["delete-vlan-link"] = "delete-vlan-link"


@dataclass(frozen=True, slots=True)
class AddAddress:
    """Give a link an address (``10.0.0.1/24``); ``broadcast`` as it was, mostly empty."""

    link: str
    address: str
    broadcast: str = ""
    kind: Literal["add-address"] = "add-address"


@dataclass(frozen=True, slots=True)
class RemoveAddress:
    """Take an address off a link."""

    link: str
    address: str
    broadcast: str = ""
    kind: Literal["remove-address"] = "remove-address"


@dataclass(frozen=True, slots=True)
class HostRoute:
    """A route of the host: ``to`` is a subnet (``0.0.0.0/0``), ``via`` an address or empty, ``link`` where it leaves.

    ``proto`` and ``scope`` are the kernel's numbers (rtnetlink(7)); ``metric`` 0 is the kernel's own choice.
    """

    to: str
    via: str
    link: str
    source: str = ""
    metric: int = 0
    proto: int = 4
    scope: int = 0


@dataclass(frozen=True, slots=True)
class AddRoute:
    """Add a route of the host; the fields are those of :class:`HostRoute`."""

    to: str
    via: str
    link: str
    source: str = ""
    metric: int = 0
    proto: int = 4
    scope: int = 0
    kind: Literal["add-route"] = "add-route"


@dataclass(frozen=True, slots=True)
class RemoveRoute:
    """Remove a route of the host; the fields are those of :class:`HostRoute`."""

    to: str
    via: str
    link: str
    source: str = ""
    metric: int = 0
    proto: int = 4
    scope: int = 0
    kind: Literal["remove-route"] = "remove-route"


LinkStep = (
    CreateBridge
    | DeleteBridge
    | SetPortVlans
    | SetBridge
    | AttachUplink
    | DetachUplink
    | CreateVlanLink
    | DeleteVlanLink
    | AddAddress
    | RemoveAddress
    | AddRoute
    | RemoveRoute
)


PortStep = AttachUplink | SetPortVlans
"""The steps of which a network may have hundreds."""


@dataclass(frozen=True, slots=True)
class KeepNetwork:
    """Write down what makes a site's network anew when the host boots; nothing: forget it."""

    site: str
    steps: tuple[LinkStep, ...] = ()
    kind: Literal["keep-network"] = "keep-network"


@dataclass(frozen=True, slots=True)
class GuardNetwork:
    """Start the watchdog that does ``undo``, in this order, unless the change is confirmed within ``seconds``.

    It also does so at once when the process that makes the change dies before :class:`AwaitConfirmation`. ``keep`` is
    what is written down when the change is confirmed, ``before`` what is kept now.
    """

    site: str
    seconds: int
    undo: tuple[LinkStep, ...]
    keep: KeepNetwork
    before: KeepNetwork
    kind: Literal["guard-network"] = "guard-network"


@dataclass(frozen=True, slots=True)
class AwaitConfirmation:
    """Tell the watchdog that the change is made: from now on the seconds run."""

    site: str
    kind: Literal["await-confirmation"] = "await-confirmation"


@dataclass(frozen=True, slots=True)
class DismissGuard:
    """End the watchdog: the change was undone already, or is ``confirmed`` and kept.

    To confirm is an error if the watchdog has acted before.
    """

    site: str
    confirmed: bool
    kind: Literal["dismiss-guard"] = "dismiss-guard"


@dataclass(frozen=True, slots=True)
class InstallNetworkUnit:
    """Let systemd make the kept networks anew at every boot, before libvirt's daemons."""

    kind: Literal["install-network-unit"] = "install-network-unit"


@dataclass(frozen=True, slots=True)
class RemoveNetworkUnit:
    """Take that unit away."""

    kind: Literal["remove-network-unit"] = "remove-network-unit"


KeeperStep = KeepNetwork | GuardNetwork | AwaitConfirmation | DismissGuard | InstallNetworkUnit | RemoveNetworkUnit

_KINDS: Final = {str(fields(cls)[-1].default): cls for cls in get_args(LinkStep)}


def step_to_json(step: LinkStep) -> dict[str, Any]:
    """Return a step as JSON values."""
    return {item.name: getattr(step, item.name) for item in fields(step)}


def step_from_json(value: Mapping[str, Any]) -> LinkStep:
    """Return the step that JSON values describe. :raises ValueError: they describe none."""
    cls = _KINDS.get(str(value.get("kind")))
    if cls is None:
        raise ValueError(f"{value.get('kind')!r} is no step of a network")
    try:
        step: LinkStep = cls(**value)
    except TypeError as error:
        raise ValueError(str(error)) from error
    return step


def route_of(step: AddRoute | RemoveRoute) -> HostRoute:
    """Return the route that a step adds or removes."""
    return HostRoute(step.to, step.via, step.link, step.source, step.metric, step.proto, step.scope)


def add_route(route: HostRoute) -> AddRoute:
    """Return the step that adds a route."""
    return AddRoute(route.to, route.via, route.link, route.source, route.metric, route.proto, route.scope)


def remove_route(route: HostRoute) -> RemoveRoute:
    """Return the step that removes a route."""
    return RemoveRoute(route.to, route.via, route.link, route.source, route.metric, route.proto, route.scope)
