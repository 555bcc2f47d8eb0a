"""A host in memory: all ports, a hand on its clock, and its state as one value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from vmhost.model.image import ImageRecord
from vmhost.model.observed import RawDomain
from vmhost.ports import Layout, Ports
from vmhost.testing import builders
from vmhost.testing.agent import FakeAgents
from vmhost.testing.chance import FakeClock, FakeEntropy
from vmhost.testing.commands import PROGRAMS, Program
from vmhost.testing.domains import FakeDomains
from vmhost.testing.hook import FakeHook
from vmhost.testing.hypervisor import FakeHypervisor
from vmhost.testing.keeper import FakeKeeper
from vmhost.testing.links import FakeLinks
from vmhost.testing.locks import FakeLocks
from vmhost.testing.machine import Machine
from vmhost.testing.overlays import FakeDiskFiles
from vmhost.testing.packet import FakePacket, guards_of
from vmhost.testing.prober import FakeProber
from vmhost.testing.records import FakeHistory, FakeJournals, FakeKeys
from vmhost.testing.repository import FakeRepositories
from vmhost.testing.reservations import FakeReservations
from vmhost.testing.seed import FakeSeedMaker
from vmhost.testing.shell import FakeShell
from vmhost.testing.signals import FakeSignals
from vmhost.testing.storage import FakePools
from vmhost.testing.thawing import FakeThawGuards
from vmhost.testing.timers import FakeTimers
from vmhost.testing.topologies import Shape, capabilities, kernel
from vmhost.testing.tuning import FakeKernel
from vmhost.testing.userland import USERLAND
from vmhost.testing.world import Behaviour, Domain, Link, Pool, Volume, World
from vmhost.testing.xml import read, write

DIRECTORY: Final = Path("/nonexistent/vmhost")
IMAGE: Final = "debian-12"
IMAGE_SIZE: Final = 2 << 30


class FakeImages:
    """``ports.ImageSource`` on a fake host."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def list(self) -> tuple[ImageRecord, ...]:
        with self._machine.at_work() as world:
            return tuple(world.images)

    def damaged(self) -> tuple[tuple[str, str], ...]:
        return ()


class FakeHost:
    """A hypervisor with its links, storage, guests and everything that vmhost keeps beside them, in memory.

    It behaves as libvirt 9.0 does, its refusals included. Nothing happens outside of this process, and nothing takes
    time: the clock jumps to whatever is waited for. Equal calls on hosts of equal seeds give equal results.

    :param seed: of everything that is drawn by chance.
    :param layout: where files would lie; by default a directory that does not exist.
    :param world: a host as it was before; by default an empty one.
    :param speed: see :class:`Machine`.
    :param keep: see :class:`Machine`.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        layout: Layout | None = None,
        world: World | None = None,
        speed: float = 60.0,
        keep: Callable[[World], None] | None = None,
    ) -> None:
        self.world = world or World()
        self.layout = layout or layout_in(DIRECTORY)
        self.programs: dict[str, Program] = {**PROGRAMS, **USERLAND}
        self.machine = Machine(self.world, speed=speed, keep=keep)
        self.domains = FakeDomains(self.machine)
        self.agents = FakeAgents(self.machine, self.programs)
        self.pools = FakePools(self.machine)
        self.keys = FakeKeys(self.machine, self.layout.state / "keys")
        self.locks = FakeLocks()
        self.journals = FakeJournals(self.machine)
        self.history = FakeHistory(self.machine)
        self.entropy = FakeEntropy(self.machine, seed)
        self.hypervisor = FakeHypervisor(self.machine, self.domains, self.pools, self.agents)
        self.links = FakeLinks(self.machine)
        self.hook = FakeHook(self.machine)
        self.keeper = FakeKeeper(self.machine)
        self.kernel = FakeKernel(self.machine)
        self.thawing = FakeThawGuards(self.machine)

    @property
    def ports(self) -> Ports:
        """Everything that the engine may touch."""
        return Ports(
            hypervisor=self.hypervisor,
            links=self.links,
            hook=self.hook,
            keeper=self.keeper,
            kernel=self.kernel,
            packet=FakePacket(self.machine),
            shell=FakeShell(self.machine, self.programs, self.keys.private_file),
            prober=FakeProber(self.machine),
            signals=FakeSignals(self.machine),
            seeds=FakeSeedMaker(),
            images=FakeImages(self.machine),
            files=FakeDiskFiles(self.machine),
            clock=FakeClock(self.machine),
            entropy=self.entropy,
            keys=self.keys,
            locks=self.locks,
            journals=self.journals,
            reservations=FakeReservations(self.machine),
            repositories=FakeRepositories(self.machine),
            timers=FakeTimers(self.machine),
            thawing=self.thawing,
            history=self.history,
            layout=self.layout,
        )

    def add_image(self, name: str = IMAGE, *, virtual_size: int = IMAGE_SIZE) -> ImageRecord:
        """Have an image; its file is there for backing."""
        made = builders.image(name, virtual_size=virtual_size)
        record = replace(made, path=self.layout.images / made.path.name)
        with self.machine.at_work(changing=True) as world:
            world.images.append(record)
        return record

    def shaped(self, shape: Shape) -> None:
        """Be a machine of that shape from now on."""
        with self.machine.at_work(changing=True) as world:
            world.capabilities, world.kernel = capabilities(shape), kernel(shape)
            world.cpus, world.memory = shape.cpus, sum(shape.memory_of(cell) for cell in range(shape.cells))

    def add_link(self, link: Link) -> None:
        """Have a link that nobody made through the ports: a bridge of the administrator's, a network card."""
        with self.machine.at_work(changing=True) as world:
            world.links[link.name] = link

    def add_volume(self, pool: str, volume: Volume) -> None:
        """Have a volume that nobody made through the ports."""
        with self.machine.at_work(changing=True) as world:
            world.pools[pool].volumes[volume.name] = volume

    def behave(self, guest: str, **how: Any) -> Behaviour:
        """Set how a guest of that name behaves from now on; see :class:`Behaviour`."""
        with self.machine.at_work(changing=True) as world:
            world.behaviours[guest] = Behaviour(**how)
            return world.behaviours[guest]

    def domain(self, name: str) -> RawDomain:
        """Return the domain of that name. :raises KeyError: there is none."""
        found = next((domain for domain in self.hypervisor.domains() if domain.name == name), None)
        if found is None:
            raise KeyError(name)
        return found

    def edit(self, name: str, change: Callable[[str], str]) -> None:
        """Redefine a domain with what ``change`` makes of its XML, as somebody does with ``virsh edit``."""
        self.hypervisor.define(change(self.domain(name).xml))

    def save_memory(self, name: str) -> None:
        """Save a guest's memory and stop it, as ``virsh managedsave`` does."""
        self.domains.save(self.domain(name).uuid)

    def crash_guest(self, name: str) -> None:
        """Let a guest's QEMU die."""
        self.domains.crash(self.domain(name).uuid)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.machine.advance(seconds)

    def die(self) -> None:
        """Do what the kernel does when the process that uses this host is killed: locks go, journals have no owner."""
        self.machine.alive.clear()
        self.keeper.maker_died()
        self.thawing.maker_died()
        self.locks.break_all()
        self.history.interrupt()
        self.machine.events.close()

    def cut_power(self) -> None:
        """Do what a power cut does: nothing runs any more, and of journals is there what was waited for."""
        self.die()
        with self.machine.at_work(changing=True) as world:
            for domain in [one for one in world.domains.values() if one.state.active]:
                self.machine.stop(domain, "destroyed")
            for journal in world.journals.values():
                del journal.records[journal.durable :]

    def state(self) -> dict[str, Any]:
        """Return everything that an operation may leave behind, as plain values: equal when two hosts are equal.

        Left out are what only passes (time, addresses in use, what rests after a release) or is meant to stay (keys of
        sites, the jobs' history).
        """
        with self.machine.at_work() as world:
            links = self.links.links()
            return {
                "domains": {uuid: _domain(domain) for uuid, domain in sorted(world.domains.items())},
                "pools": {name: _pool(pool) for name, pool in sorted(world.pools.items())},
                "links": {link.name: (link.kind, link.master, link.alias, link.addresses) for link in links},
                "routes": sorted(str(route) for route in world.routes),
                "network": (sorted(world.kept), bool(world.guarded and world.guarded.state != "restored"), world.unit),
                "consoles": sorted(world.consoles),
                "namespaces": sorted(world.namespaces),
                "journals": {name: len(journal.records) for name, journal in sorted(world.journals.items())},
                "locks": self.locks.held(),
                "guards": guards_of(world.nft),
                "isolated": tuple(world.isolated),
                "reservations": sorted(item.key for item in world.reservations if item.held),
                "exposed": sorted(world.exposed),
                "timers": (dict(sorted(world.timer_files.items())), world.timer, world.timer_boots),
                "points": sorted(
                    (path, key, stored.published)
                    for path, found in world.repositories.items()
                    for key, stored in found.points.items()
                ),
            }


def layout_in(root: Path) -> Layout:
    """Return a layout whose every part lies in one directory."""
    return Layout(*(root / part for part in ("state", "run", "config", "images", "disks", "logs", "backups")))


def _domain(domain: Domain) -> dict[str, Any]:
    live = ""
    if domain.live_xml:
        root = read(domain.live_xml)
        root.attrib.pop("id", None)
        for numbered in root.iterfind("devices/console"):
            numbered.attrib.pop("tty", None)
        for source in (*root.iterfind("devices/serial/source"), *root.iterfind("devices/console/source")):
            source.attrib.pop("path", None)
        live = write(root)
    return {
        "name": domain.name,
        "state": str(domain.state),
        "xml": domain.xml,
        "live": live,
        "saved": domain.saved_xml,
        "persistent": domain.persistent,
        "autostart": domain.autostart,
        "snapshots": domain.snapshots,
        "backup": (tuple(domain.checkpoints), domain.backup, len(domain.orphaned_bitmaps)),
    }


def _pool(pool: Pool) -> dict[str, Any]:
    volumes = {name: _volume(volume) for name, volume in sorted(pool.volumes.items())}
    return {"path": pool.path, "active": pool.active, "autostart": pool.autostart, "volumes": volumes}


def _volume(volume: Volume) -> dict[str, Any]:
    system = volume.system
    return {
        "capacity": volume.capacity,
        "format": volume.format,
        "backing": (volume.backing, volume.backing_format),
        "sha256": sha256(volume.data).hexdigest(),
        "system": (system.instance_id, system.host_key) if system else None,
    }
