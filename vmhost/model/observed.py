"""What the host is, read in bulk; nothing here is a wish."""

from __future__ import annotations

from dataclasses import dataclass, field

from vmhost.model.domains import DiskFacts as DiskFacts
from vmhost.model.domains import DomainFacts as DomainFacts
from vmhost.model.domains import DomainState as DomainState
from vmhost.model.domains import NicFacts as NicFacts
from vmhost.model.domains import ObservedDomain as ObservedDomain
from vmhost.model.domains import RawDomain as RawDomain
from vmhost.model.guard import ObservedGuard
from vmhost.model.image import ImageRecord
from vmhost.model.network import NOTHING, HeldAddress, ObservedNetwork
from vmhost.model.reservations import Reservation
from vmhost.model.topology import NO_TOPOLOGY, Topology
from vmhost.model.vlans import NO_VLAN, PortVlans


@dataclass(frozen=True, slots=True)
class ObservedVolume:
    """A volume of a storage pool. ``capacity`` and ``allocation`` in bytes; ``backing`` is a path or empty."""

    pool: str
    name: str
    path: str
    capacity: int
    allocation: int
    format: str
    backing: str = ""


@dataclass(frozen=True, slots=True)
class ObservedPool:
    """A storage pool. Sizes in bytes; an inactive pool has no volumes and size 0."""

    name: str
    type: str
    path: str
    active: bool
    capacity: int
    available: int
    volumes: tuple[ObservedVolume, ...] = ()


@dataclass(frozen=True, slots=True)
class ObservedLink:
    """A network link of the host; ``kind`` is the kernel's (``bridge``, ``veth``, ``tun``) or empty for hardware.

    ``vlan_filtering`` and ``default_pvid`` are a bridge's; ``vlans`` are those of a port of a bridge that filters them.
    ``parent`` is the link that a VLAN link lies on and ``vid`` its VLAN. ``ipv6``: the host speaks it on this bridge.
    ``held`` are the addresses with what is needed to put them back.
    ``stp`` is whether a bridge looks for loops; ``peer`` is the other end of a veth pair, if it is in this namespace.
    """

    name: str
    index: int
    kind: str
    mac: str
    mtu: int
    up: bool
    carrier: bool
    master: str = ""
    alias: str = ""
    addresses: tuple[str, ...] = ()
    vlan_filtering: bool = False
    default_pvid: int = 0
    vlans: PortVlans = NO_VLAN
    parent: str = ""
    vid: int = 0
    ipv6: bool = False
    held: tuple[HeldAddress, ...] = ()
    stp: bool = False
    peer: str = ""
    isolated: bool = False


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An entry of the kernel's neighbour table (ARP, NDP) that was confirmed at some time."""

    address: str
    mac: str
    link: str


@dataclass(frozen=True, slots=True)
class ObservedHook:
    """The libvirt hook that tags the ports of guests.

    ``installed``: it is there as this vmhost would write it. ``active``: the libvirt daemon that runs calls it, since
    it was there when the daemon started. ``called``: it was seen to.
    """

    installed: bool = False
    active: bool = False
    called: bool = False


@dataclass(frozen=True, slots=True)
class ObservedHost:
    """The hypervisor itself. ``memory`` in bytes. ``kvm`` is whether a KVM guest really runs here."""

    uri: str
    driver: str
    hostname: str
    libvirt_version: int
    hypervisor_version: int
    architecture: str
    cpus: int
    memory: int
    kvm: bool
    local: bool
    privileged: bool
    emulator: str = ""
    machines: tuple[str, ...] = ()
    uefi: bool = False


@dataclass(frozen=True, slots=True)
class ObservedGuests:
    """Guests and storage pools at one instant: all of them, or as many as somebody has asked for."""

    domains: tuple[ObservedDomain, ...] = ()
    pools: tuple[ObservedPool, ...] = ()

    def domain(self, name: str) -> ObservedDomain | None:
        """Return the domain of that name, or None."""
        for domain in self.domains:  # planning a site asks for each of its guests many times
            if domain.raw.name == name:
                return domain
        return None

    def pool(self, name: str) -> ObservedPool | None:
        """Return the storage pool of that name, or None."""
        return next((pool for pool in self.pools if pool.name == name), None)


@dataclass(frozen=True, slots=True)
class Observed(ObservedGuests):
    """The whole host at one instant. ``damaged_images`` are names of images that QEMU must not see, each with why;
    ``starting`` are the UUIDs of guests that other processes are about to start.
    """

    host: ObservedHost = field(kw_only=True)
    links: tuple[ObservedLink, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    images: tuple[ImageRecord, ...] = ()
    damaged_images: tuple[tuple[str, str], ...] = ()
    hook: ObservedHook = ObservedHook()
    network: ObservedNetwork = NOTHING
    namespaces: tuple[str, ...] = ()
    topology: Topology = NO_TOPOLOGY
    reservations: tuple[Reservation, ...] = ()
    guards: tuple[ObservedGuard, ...] = ()
    starting: frozenset[str] = frozenset()

    def link(self, name: str) -> ObservedLink | None:
        """Return the link of that name, or None."""
        return next((link for link in self.links if link.name == name), None)
