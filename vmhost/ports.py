"""What vmhost asks of the outside world: one protocol for each kind of thing, listing exactly the calls that are used.

Every call raises a :class:`vmhost.model.errors.DriverError`: ``Absent`` when the thing is not there, ``AlreadyThere``
when it is there before us, ``PermissionDenied``, ``Unreachable``. A call that raised has changed nothing, unless its
docstring says otherwise. ``vmhost.testing.FakeHost`` implements all of them in memory, ``vmhost.drivers`` for real.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from vmhost.backupports import Backups as Backups
from vmhost.backupports import Repositories as Repositories
from vmhost.backupports import Timers as Timers
from vmhost.historyport import History as History
from vmhost.kernelport import Clock as Clock
from vmhost.kernelport import Kernel as Kernel
from vmhost.model.identity import NAMESPACE
from vmhost.model.layout import Layout as Layout
from vmhost.netports import GuestShell as GuestShell
from vmhost.netports import Hook as Hook
from vmhost.netports import Links as Links
from vmhost.netports import Packet as Packet
from vmhost.netports import Prober as Prober
from vmhost.netports import Reservations as Reservations
from vmhost.netports import ShellSession as ShellSession
from vmhost.snapports import DiskFiles as DiskFiles
from vmhost.snapports import DomainDisks
from vmhost.snapports import ThawGuards as ThawGuards

if TYPE_CHECKING:  # a listing imports this module too, and calls little of it
    from vmhost.model.disklimits import DiskLimits
    from vmhost.model.image import ImageRecord
    from vmhost.model.observed import RawDomain
    from vmhost.model.stats import DomainStats
    from vmhost.model.tuning import Tuning
    from vmhost.netports import Keeper


@dataclass(frozen=True, slots=True)
class RawDaemon:
    """Who answers: what stays as it is while a connection lasts."""

    uri: str
    driver: str
    hostname: str
    libvirt_version: int
    hypervisor_version: int
    local: bool
    privileged: bool

    @property
    def simulated(self) -> bool:
        """Whether it is libvirt's own test driver: it tells of guests that run nowhere."""
        return self.driver.upper() == "TEST"


@dataclass(frozen=True, slots=True)
class RawHost(RawDaemon):
    """The hypervisor in its own words. ``domain_capabilities`` is XML or empty (the test driver has none)."""

    capabilities: str
    domain_capabilities: str
    kvm: bool


@dataclass(frozen=True, slots=True)
class RawPool:
    """A storage pool and its volumes as XML; an inactive pool has none."""

    name: str
    active: bool
    xml: str
    volumes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RawLook:
    """What libvirt tells of a host at once; ``host`` is None where some of its domains alone were asked for."""

    domains: tuple[RawDomain, ...]
    pools: tuple[RawPool, ...]
    host: RawHost | None


@dataclass(frozen=True, slots=True)
class DomainEvent:
    """Something happened to a domain: ``started``, ``stopped``, ``crashed``, ``suspended``, ``resumed``, ``defined``,
    ``undefined``, ``shutdown``, ``rebooted``, ``agent-connected``, ``agent-disconnected``; ``detail``: libvirt's word.
    """

    uuid: str
    name: str
    kind: str
    detail: str = ""


class Hypervisor(DomainDisks, Backups, Protocol):
    """One libvirt connection; safe to use from several threads."""

    def daemon(self) -> RawDaemon:
        """Who answers, asked once for a connection."""

    def host(self) -> RawHost: ...
    def domains(self) -> tuple[RawDomain, ...]:
        """All domains with their definitions, read in bulk."""

    def domain(self, uuid: str) -> RawDomain: ...
    def live_xml(self, uuid: str) -> str:
        """The XML of a domain as it runs; empty when it does not. A quarter of what all of :meth:`domain` costs."""

    def stats(self, dear: Collection[str] | None = None) -> tuple[DomainStats, ...]:
        """The counters of all domains; a guest whose QEMU does not answer delays nobody.

        :param dear: whom to ask, by UUID, for what only QEMU knows: memory and disks; None: everybody. Of all others,
            and of one whose QEMU is busy, what is told is not ``whole``.
        """

    def pools(self) -> tuple[RawPool, ...]: ...
    def look(self) -> Callable[[], RawLook]:
        """Begin to read the host and all its domains and pools; what is returned waits for them."""

    def look_at(self, uuids: Collection[str]) -> RawLook:
        """Read those of these domains that are there, and of the pools that hold their disks these alone."""

    def named(self, name: str) -> tuple[RawDomain, ...]:
        """The domain of that name, or else of that UUID, if it is there."""

    def uuid_of(self, name: str) -> str:
        """The UUID of the domain that :meth:`named` returns, for a tenth of what that costs; empty: there is none."""

    def holding(self, paths: Collection[str]) -> tuple[RawPool, ...]:
        """The pools that hold one of these volumes, with these volumes alone; what is in no pool is left out."""

    def define(self, xml: str) -> None:
        """Define or redefine; validated against libvirt's schema."""

    def undefine(self, uuid: str) -> None:
        """Undefine with NVRAM, managed save, snapshot and checkpoint metadata."""

    def start(self, uuid: str) -> None:
        """Start; AlreadyThere when it runs."""

    def shut_down(self, uuid: str) -> None:
        """Ask the guest to shut down, through its agent if that is connected, else by ACPI; returns at once."""

    def power_off(self, uuid: str) -> None:
        """Power off by VIR_DOMAIN_DESTROY_GRACEFUL, by force only if QEMU does not end; Absent when it does not run."""

    def discard_managed_save(self, uuid: str) -> None: ...
    def set_autostart(self, uuid: str, on: bool) -> None: ...
    def set_metadata(self, uuid: str, xml: str, namespace: str = NAMESPACE) -> None:
        """Replace the metadata element of a namespace, in what runs, too; an empty text takes it away."""

    def plug_nic(self, uuid: str, xml: str) -> None:
        """Plug an ``<interface>`` into a running domain only; AlreadyThere when it has a NIC of that MAC."""

    def unplug_nic(self, uuid: str, mac: str, *, timeout: float) -> None:
        """Take a NIC out of a running domain; Absent when it has none of that MAC, ``Unreachable`` when the guest has
        not let go of it in ``timeout`` seconds: then it may still do so.
        """

    def set_nic_link(self, uuid: str, mac: str, *, up: bool) -> None:
        """Set the link of a running domain's NIC up or down; Absent when it has none of that MAC."""

    def tune(self, uuid: str, tuning: Tuning) -> None:
        """Hold a running guest so at once, as far as that changes while it runs; Absent when it does not run. A call
        that raised may have changed a part.
        """

    def set_vcpus(self, uuid: str, count: int) -> None:
        """Plug vCPUs into a running guest, or ask it to give some back; Absent when it does not run."""

    def set_memory(self, uuid: str, size: int) -> None:
        """Let the balloon of a running guest leave it ``size`` bytes; returns at once; Absent when it does not run."""

    def plug_memory(self, uuid: str, alias: str, size: int) -> None:
        """Plug a memory module of ``size`` bytes into a running domain only; AlreadyThere when that alias is taken."""

    def unplug_memory(self, uuid: str, alias: str, *, timeout: float) -> None:
        """Take a memory module out of a running domain, as :meth:`unplug_nic` does a NIC."""

    def limit_disk(self, uuid: str, target: str, limits: DiskLimits) -> None:
        """Limit a disk in the definition and in what runs, and read back that what runs is limited so."""

    def set_bandwidth(self, uuid: str, tap: str, inbound: int, outbound: int) -> None: ...
    def create_pool(self, name: str, path: str) -> None:
        """Define, build, start and autostart a directory pool; AlreadyThere when the name is taken."""

    def delete_pool(self, name: str) -> None: ...
    def upload_volume(self, pool: str, name: str, data: bytes) -> None:
        """Replace a raw volume's whole content: ``data``, then zeros up to its capacity."""

    def agent(self, uuid: str, command: str, timeout: float) -> str:
        """Send one JSON command to the QEMU guest agent and return its JSON answer; ``timeout`` in seconds, after
        those of :data:`GREETING`, which one that hangs takes.
        """

    def subscribe(self, listener: Callable[[DomainEvent], None]) -> Callable[[], None]:
        """Call ``listener`` from another thread at every event; return the function that ends it."""

    def close(self) -> None: ...


class Wakeups(Protocol):
    """Signs of life of one guest; whoever waits is woken at once."""

    def wait(self, timeout: float) -> tuple[str, ...]:
        """Return what was seen since the last call (``console: TEXT``, ``agent-connected``, ``stopped``); empty on
        time-out.
        """

    def notify(self, sign: str) -> None:
        """Add a sign, from any thread."""

    def close(self) -> None: ...


class Signals(Protocol):
    """Watches guests."""

    def open(self, hypervisor: Hypervisor, uuid: str, serial_log: str) -> Wakeups: ...
    def make_room(self, logs: str) -> None:
        """Make the directory of console logs, without which libvirt starts no guest."""

    def console_tail(self, serial_log: str, lines: int) -> tuple[str, ...]:
        """The last lines of a guest's serial console, made safe for a terminal; empty when there is no log."""

    def forget_console(self, serial_log: str) -> None:
        """Delete a guest's console log with its rotated parts; an absent one is fine."""


class SeedMaker(Protocol):
    """Makes the ISO 9660 image of a NoCloud seed (label ``cidata``, Joliet and Rock Ridge)."""

    def make(self, files: Mapping[str, bytes]) -> bytes: ...


class ImageSource(Protocol):
    """The images of this host."""

    def list(self) -> tuple[ImageRecord, ...]:
        """Those that QEMU may be given, by their size and headers."""

    def damaged(self) -> tuple[tuple[str, str], ...]:
        """The names of the others, each with what is wrong with it."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """An ed25519 key pair in OpenSSH's formats; the private half is never printed, logged or journaled."""

    public: str
    private: str = field(repr=False)


class Entropy(Protocol):
    """Everything that is drawn by chance."""

    def uuid(self) -> str: ...
    def mac(self) -> str:
        """A MAC with QEMU's prefix 52:54:00."""

    def keypair(self, comment: str) -> KeyPair: ...
    def port(self, taken: frozenset[int]) -> int:
        """A TCP port on loopback that nobody listens on and that is not among ``taken``."""


class Keys(Protocol):
    """The SSH keys that vmhost signs in with, one for each site; private halves are readable by their owner alone."""

    def public(self, site: str) -> str | None:
        """The public line, or None when the site has no key yet."""

    def private_file(self, site: str) -> Path: ...
    def store(self, site: str, pair: KeyPair) -> None:
        """Keep a site's first key. :raises AlreadyThere: it has one."""


def _never() -> bool:
    return False


def _silent(_words: str) -> None:
    """Nobody listens."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """How a call waits for a lock that another holds.

    ``seconds`` at most, None: as long as these locks have patience; ``cancelled`` is asked while it waits; ``told`` is
    called once, with who holds it, unless it is free after ``quiet`` seconds.
    """

    seconds: float | None = None
    quiet: float = 0.0
    cancelled: Callable[[], bool] = _never
    told: Callable[[str], None] = _silent


GREETING: Final = 5.0
"""Seconds that libvirt gives an agent to answer its ``guest-sync``, before each command and beside its time-out."""

PATIENT: Final = Waiting()
NOT_AT_ALL: Final = Waiting(seconds=0.0)


class Locks(Protocol):
    """Locks across processes (flock), taken in the order host, then guests by UUID; a lock dies with its owner."""

    def host(self, waiting: Waiting = PATIENT) -> AbstractContextManager[None]:
        """The host's links, storage and allocations.

        :raises Conflict: another vmhost holds it for too long; :raises Cancelled: the waiting was cancelled.
        """

    def guests(
        self, uuids: Sequence[str], waiting: Waiting = PATIENT, *, starts: bool = False
    ) -> AbstractContextManager[None]:
        """All of these guests, or none; ``starts``: they are being started. Errors: as :meth:`host`."""

    def budget(self, share: int, whole: int, waiting: Waiting = PATIENT) -> AbstractContextManager[None]:
        """A share, in bytes a second, of what backups may copy together; taken before any lock, in order of asking.

        Whoever asks waits until those before leave enough of the whole, or are done.

        :raises Cancelled: the waiting was cancelled; :raises Refused: they take longer than these locks have patience.
        """

    def starting(self) -> frozenset[str]:
        """The UUIDs of guests that others are starting at this moment; those of the calling thread are left out."""


class JournalWriter(Protocol):
    """One operation's journal."""

    def append(self, record: Mapping[str, Any], *, durable: bool = True) -> None:
        """Write one record. It is on the disk when this returns; if not ``durable``, when the next one is that is."""

    def close(self, *, done: bool) -> None:
        """Release it; ``done`` removes it, otherwise it stays open for recovery."""


@dataclass(frozen=True, slots=True)
class OpenJournal:
    """A journal whose owner is dead: its records in order. ``writer`` continues it under its lock."""

    id: str
    records: tuple[Mapping[str, Any], ...]
    writer: JournalWriter


class Journals(Protocol):
    """The journals of this hypervisor."""

    def begin(self, id: str) -> JournalWriter: ...  # noqa: A002 - what it is
    def any_open(self) -> bool:
        """Whether a dead owner left a journal; cheap enough for every command."""

    def claim_open(self) -> tuple[OpenJournal, ...]:
        """Take over all journals whose owners are dead. :raises DamagedData: when one is from a newer vmhost or torn
        in the middle (a torn last line is a write that never happened).
        """


@dataclass(frozen=True, slots=True)
class Ports:
    """Everything that the engine may touch."""

    hypervisor: Hypervisor
    links: Links
    hook: Hook
    keeper: Keeper
    kernel: Kernel
    packet: Packet
    shell: GuestShell
    prober: Prober
    signals: Signals
    seeds: SeedMaker
    images: ImageSource
    files: DiskFiles
    clock: Clock
    entropy: Entropy
    keys: Keys
    locks: Locks
    journals: Journals
    reservations: Reservations
    repositories: Repositories
    timers: Timers
    thawing: ThawGuards
    history: History
    layout: Layout
