"""Everything that a fake host is, as plain data that can be written to a file and read back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from vmhost.model.drills import DrillRecord
from vmhost.model.image import ImageRecord
from vmhost.model.netsteps import HostRoute
from vmhost.model.network import LinkManager
from vmhost.model.observed import DomainState, Neighbour
from vmhost.model.outcome import JobRecord
from vmhost.model.reservations import Reservation
from vmhost.model.services import KeptLook
from vmhost.model.stats import LinkLoad

BEGINNING: Final = 1_767_225_600.0
"""When a fake host's time begins: 2026-01-01 in UTC."""


@dataclass(slots=True)
class Behaviour:
    """How a guest of some name behaves; all times in seconds of the fake host's clock.

    ``boots`` False: it never comes up. ``host_key`` another key than its seed's, when it is somebody else's machine.
    ``verdict`` is cloud-init's, with its ``errors`` and ``warnings``. ``obeys`` False: it does not shut down.
    ``freezes`` is what is wrong with its agent when it is to freeze: ``silent`` (never an answer), ``late`` (it
    freezes, and answers nothing for 12 s), ``garbage``, ``dies`` (between freeze and thaw), ``lies`` (it does not
    thaw, and says that it did). ``dead_man``: it thaws itself after 10 s. ``hangs``: its agent stays connected and is
    silent, like SSH.
    """

    boots: bool = True
    boot_seconds: float = 20.0
    cloud_init_seconds: float = 10.0
    agent: bool = True
    ssh: bool = True
    host_key: str = ""
    verdict: str = "done"
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    obeys: bool = True
    shutdown_seconds: float = 0.0
    freezes: str = ""
    dead_man: bool = True
    hangs: bool = False


@dataclass(slots=True)
class FakeUnit:
    """A unit of systemd in a guest. ``broken``: it does not start; ``failed``: it ended by itself; it listens on
    ``ports`` while it runs.
    """

    active: bool = False
    failed: bool = False
    enabled: str = "enabled"
    broken: bool = False
    ports: list[int] = field(default_factory=list)
    starts: int = 0


@dataclass(slots=True)
class Userland:
    """The inside of a system as services see it.

    ``packages`` maps names to versions; ``access`` paths to ``0644 root:root``; ``users`` and ``groups`` names to their
    lines; ``sysctl`` files below ``/proc/sys`` to values; ``journal`` are lines of ``journalctl --output=json``;
    ``links`` are symbolic links; ``full``: its disk is.
    """

    packages: dict[str, str] = field(default_factory=dict)
    units: dict[str, FakeUnit] = field(default_factory=dict)
    access: dict[str, str] = field(default_factory=dict)
    directories: list[str] = field(default_factory=list)
    users: dict[str, str] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)
    sysctl: dict[str, str] = field(default_factory=lambda: {"/proc/sys/net/core/somaxconn": "4096"})
    journal: list[str] = field(default_factory=list)
    links: dict[str, str] = field(default_factory=dict)
    full: bool = False


@dataclass(slots=True)
class System:
    """What is installed on a root disk: it was configured by the seed of that instance-id, once.

    ``accounts`` maps users to the public keys that let them in; ``addresses`` maps MACs to addresses with prefix, or to
    ``dhcp``. ``last_words`` are what cloud-init says on the console when it ends.
    """

    instance_id: str
    hostname: str
    host_key: str
    accounts: dict[str, list[str]] = field(default_factory=dict)
    addresses: dict[str, list[str]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    last_words: str = ""
    boots: int = 0
    land: Userland = field(default_factory=Userland)


@dataclass(slots=True)
class Volume:
    """A file of a storage pool. ``data`` is what was uploaded; ``system`` what a guest has made of a root disk.

    ``writes`` is how often a guest has written to it.
    """

    name: str
    capacity: int
    format: str
    backing: str = ""
    backing_format: str = ""
    mode: str = "0600"
    data: bytes = b""
    system: System | None = None
    writes: int = 0


@dataclass(slots=True)
class Pool:
    """A directory pool and its volumes by name."""

    name: str
    uuid: str
    path: str
    active: bool = True
    autostart: bool = True
    capacity: int = 200 << 30
    volumes: dict[str, Volume] = field(default_factory=dict)

    def path_of(self, volume: str) -> str:
        """Return the path of a volume."""
        return f"{self.path}/{volume}"


@dataclass(slots=True)
class Domain:
    """A domain. ``xml`` is its definition, ``live_xml`` what runs, ``saved_xml`` what a managed save would start again.

    ``up_at``, ``done_at`` and ``down_at`` are moments of the world at which its guest comes up, its cloud-init ends and
    it goes down, 0 for none. ``reached`` holds the address of each MAC and its bridge while the guest is up.
    ``backup`` is the XML of the backup job that runs.
    ``frozen`` counts its file systems that are, since the moment ``frozen_at``.
    """

    uuid: str
    name: str
    xml: str
    state: DomainState = DomainState.SHUTOFF
    live_xml: str = ""
    saved_xml: str = ""
    persistent: bool = True
    autostart: bool = False
    snapshots: int = 0
    number: int = 0
    up: bool = False
    up_at: float = 0.0
    done_at: float = 0.0
    down_at: float = 0.0
    reached: list[tuple[str, str, str]] = field(default_factory=list)
    checkpoints: list[str] = field(default_factory=list)
    backup: str = ""
    frozen: int = 0
    frozen_at: float = 0.0
    orphaned_bitmaps: list[list[str]] = field(default_factory=list)


@dataclass(slots=True)
class Link:
    """A link of the host that is not a guest's tap."""

    name: str
    kind: str = "bridge"
    mac: str = ""
    mtu: int = 1500
    up: bool = True
    master: str = ""
    alias: str = ""
    addresses: list[str] = field(default_factory=list)
    vlan_filtering: bool = False
    parent: str = ""
    vid: int = 0
    ipv6: bool = False
    carrier: bool = True
    stp: bool = False
    peer: str = ""


@dataclass(slots=True)
class Vlans:
    """What a port carries, if anything; sets of VLAN ids are written as ``100,200-299``."""

    pvid: int = 0
    untagged: str = ""
    tagged: str = ""


@dataclass(slots=True)
class Journal:
    """A journal: its records as JSON texts, of which the first ``durable`` are on the disk. ``damaged`` says why it
    cannot be read, empty when it can.
    """

    id: str
    begun: float
    records: list[str] = field(default_factory=list)
    durable: int = 0
    damaged: str = ""


@dataclass(slots=True)
class Job:
    """A job with its log."""

    record: JobRecord
    lines: list[str] = field(default_factory=list)
    cancelled: bool = False


@dataclass(slots=True)
class SiteKey:
    """A site's SSH key."""

    public: str
    private: str = field(repr=False)


@dataclass(slots=True)
class Guarded:
    """A network change under a watchdog; ``deadline`` is a moment of the world, 0 while the change is made.

    The steps are what puts the former network back, and what makes the new one anew, as JSON texts.
    """

    site: str
    seconds: int
    undo: list[str]
    keep: list[str]
    deadline: float = 0.0
    state: str = "applying"
    failures: list[str] = field(default_factory=list)


@dataclass(slots=True)
class StoredPoint:
    """A point of a repository: its manifest, its files as texts, and what is installed on its disks."""

    text: str
    files: dict[str, str] = field(default_factory=dict)
    systems: dict[str, System] = field(default_factory=dict)
    published: bool = False


@dataclass(slots=True)
class Repository:
    """A repository of backups: its points by guest and id."""

    id: str
    points: dict[str, StoredPoint] = field(default_factory=dict)


@dataclass(slots=True)
class World:
    """A whole host. ``now`` is its time, in seconds since the epoch; ``drawn`` counts what was drawn by chance.

    ``capabilities`` are libvirt's of the machine, empty: one socket of ``cpus`` cores; ``kernel`` is what it shows
    of its processors, ``traffic`` what its network cards have carried.
    ``kept`` is what makes the network of each site anew, as JSON texts; ``guarded`` the change that waits for its
    confirmation; ``unit`` whether systemd has our unit. ``vlans`` are those of ports by name. ``hook`` is
    whether our hook is in libvirt's configuration, ``hook_known`` whether it was there when the daemon started.
    ``nf_call``, ``vlan_filtering`` and ``vlan_links`` as in :class:`vmhost.model.wire.KernelNetwork`.
    ``vlans`` are those of ports by name, ``isolated`` the ports that are, ``nft`` our table as ``nft`` tells it.
    ``hook`` is whether our hook is in libvirt's configuration, ``hook_known`` whether it was there when the daemon
    started. ``nvram`` are the variables of UEFI of each guest by its name.
    """

    now: float = BEGINNING
    drawn: int = 0
    started: int = 0
    hostname: str = "fake"
    uri: str = "fake:demo"
    kvm: bool = False
    cpus: int = 8
    memory: int = 32 << 30
    capabilities: str = ""
    kernel: dict[str, str] = field(default_factory=dict)
    traffic: dict[str, LinkLoad] = field(default_factory=dict)
    domains: dict[str, Domain] = field(default_factory=dict)
    pools: dict[str, Pool] = field(default_factory=dict)
    links: dict[str, Link] = field(default_factory=dict)
    vlans: dict[str, Vlans] = field(default_factory=dict)
    routes: list[HostRoute] = field(default_factory=list)
    managers: list[LinkManager] = field(default_factory=list)
    kept: dict[str, list[str]] = field(default_factory=dict)
    guarded: Guarded | None = None
    systemd: bool = False
    unit: bool = False
    timer_files: dict[str, str] = field(default_factory=dict)
    timer: bool = False
    timer_boots: bool = False
    isolated: list[str] = field(default_factory=list)
    nft: str = ""
    hook: bool = False
    hook_known: bool = False
    hook_called: bool = False
    vlan_filtering: bool = True
    vlan_links: bool = True
    nf_call: list[str] = field(default_factory=list)
    namespaces: list[str] = field(default_factory=list)
    neighbours: list[Neighbour] = field(default_factory=list)
    images: list[ImageRecord] = field(default_factory=list)
    consoles: dict[str, list[str]] = field(default_factory=dict)
    behaviours: dict[str, Behaviour] = field(default_factory=dict)
    keys: dict[str, SiteKey] = field(default_factory=dict)
    journals: dict[str, Journal] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    reservations: list[Reservation] = field(default_factory=list)
    nvram: dict[str, bytes] = field(default_factory=dict)
    repositories: dict[str, Repository] = field(default_factory=dict)
    exposed: dict[str, list[str]] = field(default_factory=dict)
    drills: list[DrillRecord] = field(default_factory=list)
    looks: list[KeptLook] = field(default_factory=list)

    def behaviour(self, guest: str) -> Behaviour:
        """Return how a guest behaves; what nobody set is the default."""
        return self.behaviours.get(guest, Behaviour())

    def volumes(self) -> Iterator[tuple[Pool, Volume]]:
        """Yield every volume with its pool."""
        for pool in self.pools.values():
            for volume in pool.volumes.values():
                yield pool, volume

    def volume_at(self, path: str) -> Volume | None:
        """Return the volume at a path, or None."""
        return next((volume for pool, volume in self.volumes() if pool.path_of(volume.name) == path), None)

    def file_exists(self, path: str) -> bool:
        """Whether a volume or an image lies at a path."""
        return self.volume_at(path) is not None or any(str(image.path) == path for image in self.images)
