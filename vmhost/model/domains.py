"""A domain as it is: apart from the rest of the host, since listings need no more and libvirt's hook cannot wait."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from vmhost.model.disklimits import UNLIMITED, DiskLimits
from vmhost.model.identity import GuestMetadata

_NUMBER: Final = re.compile(r"""\s*<domain\b[^>]*\sid=["'](\d+)["']""")


class DomainState(StrEnum):
    """libvirt's ``virDomainState``, in virsh's words."""

    NO_STATE = "no state"
    RUNNING = "running"
    BLOCKED = "idle"
    PAUSED = "paused"
    SHUTDOWN = "in shutdown"
    SHUTOFF = "shut off"
    CRASHED = "crashed"
    SUSPENDED = "pmsuspended"

    @property
    def active(self) -> bool:
        """Whether a QEMU process exists."""
        return self not in (DomainState.SHUTOFF, DomainState.CRASHED, DomainState.NO_STATE)


@dataclass(frozen=True, slots=True)
class RawDomain:
    """One domain as the hypervisor gives it; ``xml`` is the inactive definition, ``live_xml`` the running one or
    empty.
    """

    uuid: str
    name: str
    state: DomainState
    xml: str
    live_xml: str = ""
    persistent: bool = True
    autostart: bool = False
    managed_save: bool = False
    snapshots: int = 0


@dataclass(frozen=True, slots=True)
class DiskFacts:
    """A ``<disk>``; ``alias`` is our stable id (``ua-disk-ID``) or empty, ``source`` a path.

    ``below`` is what it says that this lies on, the nearest first; mostly libvirt finds out by itself, and it is empty.
    """

    target: str
    source: str
    format: str
    bus: str
    device: str = "disk"
    alias: str = ""
    readonly: bool = False
    limits: DiskLimits = UNLIMITED
    below: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NicFacts:
    """An ``<interface>``; ``source`` is the bridge, network or device, ``tap`` its ``<target dev>``.

    ``mtu`` is what the guest is told in bytes; 0: nothing, the NIC takes its bridge's. ``inbound`` and ``outbound`` are
    its limits in KiB a second, libvirt's unit; 0: none.
    """

    type: str
    source: str
    mac: str
    model: str
    tap: str = ""
    alias: str = ""
    mtu: int = 0
    inbound: int = 0
    outbound: int = 0


@dataclass(frozen=True, slots=True)
class DomainFacts:
    """What a domain's XML says, in values. Sizes are bytes."""

    uuid: str
    name: str
    type: str
    vcpus: int
    max_vcpus: int
    memory: int
    max_memory: int
    firmware: str
    disks: tuple[DiskFacts, ...] = ()
    nics: tuple[NicFacts, ...] = ()
    serial_log: str = ""
    description: str = ""


@dataclass(frozen=True, slots=True)
class ObservedDomain:
    """A domain: its raw form, its parsed facts, and our metadata (None: foreign).

    ``drill`` is the UUID of the guest whose point a drill boots in it, else empty; such a domain is nobody's guest.
    ``copied`` is the UUID of the guest whose definition somebody made it from, else empty; such a domain is foreign.
    """

    raw: RawDomain
    facts: DomainFacts
    metadata: GuestMetadata | None = None
    drill: str = ""
    copied: str = ""

    @property
    def foreign(self) -> bool:
        """Whether it is a guest that others made."""
        return self.metadata is None and not self.drill

    @property
    def uuid(self) -> str:
        return self.raw.uuid

    @property
    def name(self) -> str:
        return self.raw.name

    @property
    def active(self) -> bool:
        return self.raw.state.active

    @property
    def id(self) -> str:
        """Libvirt's number of it while it runs, else empty."""
        return number_of(self.raw.live_xml)

    def plugged(self, tap: str) -> bool:
        """Whether the running domain has a NIC on that tap (its metadata names taps, too, but not as ``dev``)."""
        return f"dev='{tap}'" in self.raw.live_xml or f'dev="{tap}"' in self.raw.live_xml


def number_of(xml: str) -> str:
    """Return the number that the XML of a domain has while it runs, else nothing."""
    found = _NUMBER.match(xml)
    return found[1] if found else ""


def meant(name: str, domains: Iterable[ObservedDomain]) -> ObservedDomain | None:
    """Return the domain that a person means: by its name, else its UUID."""
    found = None
    for domain in domains:
        if domain.name == name:
            return domain
        if domain.uuid == name.lower():
            found = domain
    return found


def numbered(number: str, domains: Iterable[ObservedDomain]) -> ObservedDomain | None:
    """Return the domain that runs under libvirt's number.

    For who only looks: the next start gives another number, and a name may be one, whose guest is gone.
    """
    return next((domain for domain in domains if number and domain.id == number), None)
