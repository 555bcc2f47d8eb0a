"""``ports.Hypervisor`` on a fake host."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from importlib.resources import files

from vmhost.model.disklimits import DiskLimits
from vmhost.model.identity import NAMESPACE
from vmhost.model.observed import RawDomain
from vmhost.model.points import BackupProgress, Tracking
from vmhost.model.stats import DomainStats
from vmhost.model.tuning import Tuning
from vmhost.ports import DomainEvent, RawDaemon, RawHost, RawLook, RawPool
from vmhost.testing.agent import FakeAgents
from vmhost.testing.domains import FakeDomains
from vmhost.testing.guests import facts_in
from vmhost.testing.load import stats_of
from vmhost.testing.machine import Machine
from vmhost.testing.memory import FakeMemory
from vmhost.testing.nics import FakeNics
from vmhost.testing.overlays import FakeOverlays
from vmhost.testing.repository import FakeBackups
from vmhost.testing.storage import FakePools
from vmhost.testing.xml import E, read, write


class FakeHypervisor:
    """One connection to a fake host; safe to use from several threads."""

    def __init__(self, machine: Machine, domains: FakeDomains, pools: FakePools, agents: FakeAgents) -> None:
        self._machine = machine
        self._domains = domains
        self._pools = pools
        self._agents = agents
        self._nics = FakeNics(machine)
        self._memory = FakeMemory(machine)
        self._overlays = FakeOverlays(machine)
        self._backups = FakeBackups(machine)

    def daemon(self) -> RawDaemon:
        return self.host()

    def host(self) -> RawHost:
        with self._machine.at_work() as world:
            return RawHost(
                uri=world.uri,
                driver="fake",
                hostname=world.hostname,
                libvirt_version=9_000_000,
                hypervisor_version=7_002_000,
                capabilities=world.capabilities or _capabilities(world.cpus, world.memory),
                domain_capabilities=captured("domain-capabilities.xml").replace(
                    "<domain>qemu<", "<domain>kvm<" if world.kvm else "<domain>qemu<"
                ),
                local=True,
                privileged=True,
                kvm=world.kvm,
            )

    def domains(self) -> tuple[RawDomain, ...]:
        return self._domains.all()

    def domain(self, uuid: str) -> RawDomain:
        return self._domains.one(uuid)

    def live_xml(self, uuid: str) -> str:
        raw = self._domains.one(uuid)
        return raw.live_xml if raw.state.active else ""

    def stats(self, dear: Collection[str] | None = None) -> tuple[DomainStats, ...]:
        with self._machine.at_work() as world:
            return stats_of(world, dear)

    def pools(self) -> tuple[RawPool, ...]:
        return self._pools.all()

    def look(self) -> Callable[[], RawLook]:
        seen = RawLook(self.domains(), self.pools(), self.host())
        return lambda: seen

    def look_at(self, uuids: Collection[str]) -> RawLook:
        domains = tuple(raw for raw in self.domains() if raw.uuid in uuids)
        disks = {disk.source for raw in domains for disk in facts_in(raw.xml).disks}
        return RawLook(domains, self._pools.holding(disks), None)

    def named(self, name: str) -> tuple[RawDomain, ...]:
        domains = self.domains()
        found = [raw for raw in domains if raw.name == name] or [raw for raw in domains if raw.uuid == name.lower()]
        return tuple(found)

    def uuid_of(self, name: str) -> str:
        return next((raw.uuid for raw in self.named(name)), "")

    def holding(self, paths: Collection[str]) -> tuple[RawPool, ...]:
        return self._pools.holding(paths)

    def define(self, xml: str) -> None:
        self._domains.define(xml)

    def undefine(self, uuid: str) -> None:
        self._domains.undefine(uuid)

    def start(self, uuid: str) -> None:
        self._domains.start(uuid)

    def shut_down(self, uuid: str) -> None:
        self._domains.shut_down(uuid)

    def power_off(self, uuid: str) -> None:
        self._domains.power_off(uuid)

    def discard_managed_save(self, uuid: str) -> None:
        self._domains.discard_managed_save(uuid)

    def set_autostart(self, uuid: str, on: bool) -> None:
        self._domains.set_autostart(uuid, on)

    def set_metadata(self, uuid: str, xml: str, namespace: str = NAMESPACE) -> None:
        self._domains.set_metadata(uuid, xml, namespace)

    def snapshot_disks(self, uuid: str, files: Mapping[str, str]) -> None:
        self._overlays.snapshot(uuid, files)

    def commit_disk(self, uuid: str, target: str, top: str, base: str) -> None:
        self._overlays.commit(uuid, target, top, base)

    def plug_nic(self, uuid: str, xml: str) -> None:
        self._nics.plug(uuid, xml)

    def unplug_nic(self, uuid: str, mac: str, *, timeout: float) -> None:
        self._nics.unplug(uuid, mac, timeout)

    def set_nic_link(self, uuid: str, mac: str, *, up: bool) -> None:
        self._nics.set_link(uuid, mac, up=up)

    def resize_disk(self, uuid: str, source: str, capacity: int) -> None:
        self._domains.resize_disk(uuid, source, capacity)

    def tune(self, uuid: str, tuning: Tuning) -> None:
        self._domains.tune(uuid, tuning)

    def set_vcpus(self, uuid: str, count: int) -> None:
        self._domains.set_vcpus(uuid, count)

    def set_memory(self, uuid: str, size: int) -> None:
        self._domains.set_memory(uuid, size)

    def plug_memory(self, uuid: str, alias: str, size: int) -> None:
        self._memory.plug(uuid, alias, size)

    def unplug_memory(self, uuid: str, alias: str, *, timeout: float) -> None:
        self._memory.unplug(uuid, alias, timeout)

    def limit_disk(self, uuid: str, target: str, limits: DiskLimits) -> None:
        self._domains.limit_disk(uuid, target, limits)

    def set_bandwidth(self, uuid: str, tap: str, inbound: int, outbound: int) -> None:
        self._domains.set_bandwidth(uuid, tap, inbound, outbound)

    def create_pool(self, name: str, path: str) -> None:
        self._pools.create(name, path)

    def delete_pool(self, name: str) -> None:
        self._pools.delete(name)

    def create_volume(self, pool: str, xml: str) -> None:
        self._pools.create_volume(pool, xml)

    def upload_volume(self, pool: str, name: str, data: bytes) -> None:
        self._pools.upload(pool, name, data)

    def resize_volume(self, pool: str, name: str, capacity: int) -> None:
        self._pools.resize(pool, name, capacity)

    def delete_volume(self, pool: str, name: str) -> None:
        self._pools.delete_volume(pool, name)

    def users(self, pool: str, name: str) -> tuple[str, ...]:
        return self._pools.users(pool, name)

    def agent(self, uuid: str, command: str, timeout: float) -> str:
        return self._agents.ask(uuid, command, timeout)

    def tracking(self, uuid: str) -> Tracking:
        return self._backups.tracking(uuid)

    def begin_backup(self, uuid: str, xml: str, checkpoint_xml: str, *, reuse: bool, rate: int = 0) -> None:
        self._backups.begin(uuid, xml, checkpoint_xml)

    def backup_progress(self, uuid: str) -> BackupProgress:
        return self._backups.progress(uuid)

    def end_backup(self, uuid: str) -> None:
        self._backups.end(uuid)

    def drop_checkpoint(self, uuid: str, name: str, *, lost: bool = False) -> None:
        self._backups.drop(uuid, name)

    def drop_bitmap(self, uuid: str, source: str, name: str) -> None:
        self._backups.drop_bitmap(uuid, source, name)

    def subscribe(self, listener: Callable[[DomainEvent], None]) -> Callable[[], None]:
        return self._machine.events.subscribe(listener)

    def close(self) -> None:
        self._machine.events.close()


def captured(name: str) -> str:
    """Return a document of a real host."""
    return (files("vmhost.testing") / "captured" / name).read_text(encoding="utf-8")


def _capabilities(cpus: int, memory: int) -> str:
    """Return the capabilities of a real host with other numbers of CPUs and bytes of memory."""
    root = read(captured("capabilities.xml"))
    for size in root.iterfind("host/topology/cells/cell/memory"):
        size.text = str(memory // 1024)
    for found in root.iterfind("host/topology/cells/cell/cpus"):
        found.set("num", str(cpus))
        found[:] = [E.cpu(id=n, socket_id="0", die_id="0", core_id=n, siblings=n) for n in map(str, range(cpus))]
    for bank in root.iterfind("host/cache/bank"):
        bank.set("cpus", f"0-{cpus - 1}")
    return write(root)
