"""Steps about the ports of guests and what is reserved for them; a part of :mod:`vmhost.model.steps`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vmhost.model.guard import PortGuard
from vmhost.model.reservations import Reservation


@dataclass(frozen=True, slots=True)
class GuardPort:
    """Let a guest's port take in only what the guest says in its own name; whatever guarded it before is replaced."""

    guard: PortGuard
    kind: Literal["guard-port"] = "guard-port"


@dataclass(frozen=True, slots=True)
class UnguardPort:
    """Let a guest's port take in whatever comes."""

    port: str
    kind: Literal["unguard-port"] = "unguard-port"


@dataclass(frozen=True, slots=True)
class IsolatePort:
    """Let a guest's port exchange nothing with other isolated ones, or everything."""

    port: str
    on: bool
    kind: Literal["isolate-port"] = "isolate-port"


@dataclass(frozen=True, slots=True)
class SetBandwidth:
    """Limit a NIC, named by its tap, in KiB a second each way; 0: no limit. At once, and for good."""

    uuid: str
    tap: str
    inbound: int
    outbound: int
    kind: Literal["set-bandwidth"] = "set-bandwidth"


@dataclass(frozen=True, slots=True)
class Reserve:
    """Write down that VLAN ids or addresses are somebody's."""

    items: tuple[Reservation, ...]
    kind: Literal["reserve"] = "reserve"


@dataclass(frozen=True, slots=True)
class Release:
    """Give VLAN ids or addresses up; they rest until the moment that each of them names."""

    items: tuple[Reservation, ...]
    kind: Literal["release"] = "release"


@dataclass(frozen=True, slots=True)
class Unreserve:
    """Forget reservations that nobody has used; they do not rest."""

    items: tuple[Reservation, ...]
    kind: Literal["unreserve"] = "unreserve"


PortStep = GuardPort | UnguardPort | IsolatePort | SetBandwidth | Reserve | Release | Unreserve
