"""``ports.Hypervisor`` on libvirt."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING

from vmhost.drivers.libvirt.connection import Connection, is_privileged
from vmhost.drivers.libvirt.documents import disks_of
from vmhost.drivers.libvirt.domains import Domains
from vmhost.model.identity import NAMESPACE

if TYPE_CHECKING:
    from vmhost.drivers.libvirt.backup import BackupJobs
    from vmhost.drivers.libvirt.events import Subscriptions
    from vmhost.drivers.libvirt.host import HostReader
    from vmhost.drivers.libvirt.storage import Pools
    from vmhost.model.disklimits import DiskLimits
    from vmhost.model.domains import RawDomain
    from vmhost.model.points import BackupProgress, Tracking
    from vmhost.model.stats import DomainStats
    from vmhost.model.tuning import Tuning
    from vmhost.ports import DomainEvent, RawDaemon, RawHost, RawLook, RawPool


def connect(uri: str | None = None) -> LibvirtHypervisor:
    """Connect to a hypervisor.

    :param uri: any URI that libvirt knows; None: ``LIBVIRT_DEFAULT_URI``, libvirt's ``uri_default``, the system's
        hypervisor if it answers, the user's own.
    :raises Unreachable: none answers; :raises PermissionDenied: it does not let us in.
    """
    return LibvirtHypervisor(Connection(uri))


class LibvirtHypervisor:
    """One libvirt connection; safe to use from several threads.

    After a restart of the daemon reading calls reconnect by themselves, and so do changing calls that have not begun.
    A connection that breaks inside a changing call raises ``Unreachable``: the daemon may have done it, so look.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._domains = Domains(connection)
        self._subscriptions: Subscriptions | None = None
        self._lock = Lock()

    @property
    def privileged(self) -> bool:
        """Whether it is the system's hypervisor; next to nothing beside all that :meth:`host` asks for."""
        return self._connection.read(is_privileged, "host", asks=False)

    @property
    def uri(self) -> str:
        """What another process reaches the same hypervisor by."""
        return self._connection.read(lambda handle: str(handle.getURI()), "URI", asks=False)

    def daemon(self) -> RawDaemon:
        return self._reader.daemon()

    def host(self) -> RawHost:
        return self._reader.read()

    def domains(self) -> tuple[RawDomain, ...]:
        return self._domains.all()

    def domain(self, uuid: str) -> RawDomain:
        return self._domains.one(uuid)

    def live_xml(self, uuid: str) -> str:
        return self._domains.live_xml(uuid)

    def stats(self, dear: Collection[str] | None = None) -> tuple[DomainStats, ...]:
        from vmhost.drivers.libvirt.stats import read_stats

        return self._connection.read(lambda handle: read_stats(handle, dear), "statistics")

    def pools(self) -> tuple[RawPool, ...]:
        return self._pools.all()

    def look(self) -> Callable[[], RawLook]:
        from vmhost.drivers.background import begun
        from vmhost.ports import RawLook

        host = begun(self.host, "look at the host")
        guests = begun(lambda: (self.domains(), self.pools()), "look")
        return lambda: RawLook(*guests(), host())

    def look_at(self, uuids: Collection[str]) -> RawLook:
        from vmhost.ports import RawLook

        domains = self._domains.some(uuids)
        return RawLook(domains, self._pools.holding([disk for raw in domains for disk in disks_of(raw.xml)]), None)

    def named(self, name: str) -> tuple[RawDomain, ...]:
        return self._domains.named(name)

    def uuid_of(self, name: str) -> str:
        return self._domains.uuid_of(name)

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
        self._domains.snapshot_disks(uuid, files)

    def commit_disk(self, uuid: str, target: str, top: str, base: str) -> None:
        self._domains.commit_disk(uuid, target, top, base)

    def plug_nic(self, uuid: str, xml: str) -> None:
        self._domains.plug_nic(uuid, xml)

    def unplug_nic(self, uuid: str, mac: str, *, timeout: float) -> None:
        self._domains.unplug_nic(uuid, mac, timeout)

    def set_nic_link(self, uuid: str, mac: str, *, up: bool) -> None:
        self._domains.set_nic_link(uuid, mac, up=up)

    def resize_disk(self, uuid: str, source: str, capacity: int) -> None:
        self._domains.resize_disk(uuid, source, capacity)

    def tune(self, uuid: str, tuning: Tuning) -> None:
        self._domains.tune(uuid, tuning)

    def set_vcpus(self, uuid: str, count: int) -> None:
        self._domains.set_vcpus(uuid, count)

    def set_memory(self, uuid: str, size: int) -> None:
        self._domains.set_memory(uuid, size)

    def plug_memory(self, uuid: str, alias: str, size: int) -> None:
        self._domains.plug_memory(uuid, alias, size)

    def unplug_memory(self, uuid: str, alias: str, *, timeout: float) -> None:
        self._domains.unplug_memory(uuid, alias, timeout)

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
        return self._domains.agent(uuid, command, timeout)

    def tracking(self, uuid: str) -> Tracking:
        return self._backups.tracking(uuid)

    def begin_backup(self, uuid: str, xml: str, checkpoint_xml: str, *, reuse: bool, rate: int = 0) -> None:
        self._backups.begin(uuid, xml, checkpoint_xml, reuse=reuse, rate=rate)

    def backup_progress(self, uuid: str) -> BackupProgress:
        return self._backups.progress(uuid)

    def end_backup(self, uuid: str) -> None:
        self._backups.end(uuid)

    def drop_checkpoint(self, uuid: str, name: str, *, lost: bool = False) -> None:
        self._backups.drop(uuid, name, lost=lost)

    def drop_bitmap(self, uuid: str, source: str, name: str) -> None:
        self._backups.drop_bitmap(uuid, source, name)

    def subscribe(self, listener: Callable[[DomainEvent], None]) -> Callable[[], None]:
        from vmhost.drivers.libvirt.events import Subscriptions

        with self._lock:
            if self._subscriptions is None:
                self._subscriptions = Subscriptions(self._connection)
        return self._subscriptions.add(listener)

    def close(self) -> None:
        if self._subscriptions is not None:
            self._subscriptions.close()
        self._connection.close()

    # Loaded when they are needed: the cold start of a list of guests is counted in milliseconds.

    @cached_property
    def _reader(self) -> HostReader:
        from vmhost.drivers.libvirt.host import HostReader

        return HostReader(self._connection)

    @cached_property
    def _pools(self) -> Pools:
        from vmhost.drivers.libvirt.storage import Pools

        return Pools(self._connection)

    @cached_property
    def _backups(self) -> BackupJobs:
        from vmhost.drivers.libvirt.backup import BackupJobs

        return BackupJobs(self._connection)

    def __enter__(self) -> LibvirtHypervisor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()
