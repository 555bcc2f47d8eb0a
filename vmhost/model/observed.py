"""What the host is, read in bulk; nothing here is a wish."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from vmhost.model.identity import GuestMetadata
from vmhost.model.image import ImageRecord
from vmhost.model.vlans import NO_VLAN, PortVlans


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
    """A ``<disk>``; ``alias`` is our stable id (``ua-disk-ID``) or empty, ``source`` a path."""

    target: str
    source: str
    format: str
    bus: str
    device: str = "disk"
    alias: str = ""
    readonly: bool = False


@dataclass(frozen=True, slots=True)
class NicFacts:
    """An ``<interface>``; ``source`` is the bridge, network or device, ``tap`` its ``<target dev>``.

    ``mtu`` is what the guest is told in bytes; 0: nothing, the NIC takes its bridge's.
    """

    type: str
    source: str
    mac: str
    model: str
    tap: str = ""
    alias: str = ""
    mtu: int = 0


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
    """A domain: its raw form, its parsed facts, and our metadata (None: foreign)."""

    raw: RawDomain
    facts: DomainFacts
    metadata: GuestMetadata | None = None

    @property
    def uuid(self) -> str:
        return self.raw.uuid

    @property
    def name(self) -> str:
        return self.raw.name

    @property
    def active(self) -> bool:
        return self.raw.state.active


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
class Observed:
    """The whole host at one instant. ``damaged_images`` are names of images that QEMU must not see, each with why."""

    host: ObservedHost
    domains: tuple[ObservedDomain, ...] = ()
    pools: tuple[ObservedPool, ...] = ()
    links: tuple[ObservedLink, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    images: tuple[ImageRecord, ...] = ()
    damaged_images: tuple[tuple[str, str], ...] = ()
    hook: ObservedHook = ObservedHook()

    def domain(self, name: str) -> ObservedDomain | None:
        """Return the domain of that name, or None."""
        return next((domain for domain in self.domains if domain.name == name), None)

    def pool(self, name: str) -> ObservedPool | None:
        """Return the storage pool of that name, or None."""
        return next((pool for pool in self.pools if pool.name == name), None)

    def link(self, name: str) -> ObservedLink | None:
        """Return the link of that name, or None."""
        return next((link for link in self.links if link.name == name), None)
