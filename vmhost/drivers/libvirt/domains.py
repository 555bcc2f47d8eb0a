"""Domains: read in bulk, changed one by one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from errno import EBUSY
from math import ceil
from typing import TYPE_CHECKING, Any, Final, TypeVar

import libvirt

from vmhost.drivers.libvirt.connection import Connection, Handle
from vmhost.drivers.libvirt.documents import label_of, unprefixed
from vmhost.drivers.libvirt.domainread import read_all, read_live, read_named, read_one, read_some
from vmhost.drivers.libvirt.errors import code_is, skipping, system_errno, translated
from vmhost.model.disklimits import DiskLimits
from vmhost.model.domains import RawDomain
from vmhost.model.errors import Absent, AlreadyThere, DriverError
from vmhost.model.identity import NAMESPACE
from vmhost.model.snapshots import SNAPSHOTS

if TYPE_CHECKING:
    from vmhost.model.tuning import Tuning

Domain = Any  # libvirt.virDomain
T = TypeVar("T")

_PREFIXES: Final = {NAMESPACE: "vmhost", SNAPSHOTS: "vmhost-snapshots"}
_ASK: Final = libvirt.VIR_DOMAIN_SHUTDOWN_GUEST_AGENT | libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN
_UNDEFINE: Final = libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
_UNDEFINE_ALL: Final = _UNDEFINE | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA


class Domains:
    """The domains of one hypervisor."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def all(self) -> tuple[RawDomain, ...]:
        """Return all domains; one that goes away meanwhile is left out."""
        return self._connection.read(read_all, "domains")

    def one(self, uuid: str) -> RawDomain:
        """Return one domain. :raises Absent: there is none of that UUID."""
        return self._connection.read(lambda handle: read_one(handle.lookupByUUIDString(uuid)), uuid)

    def live_xml(self, uuid: str) -> str:
        """Return the XML of a domain as it runs, or nothing. :raises Absent: there is none of that UUID."""
        return self._connection.read(lambda handle: read_live(handle.lookupByUUIDString(uuid)), uuid)

    def some(self, uuids: Collection[str]) -> tuple[RawDomain, ...]:
        """Return those of these domains that are there."""
        return self._connection.read(lambda handle: read_some(handle, uuids), "domains")

    def named(self, name: str) -> tuple[RawDomain, ...]:
        """Return the domain of that name, or else of that UUID, if there is one."""
        return self._connection.read(lambda handle: read_named(handle, name, read_one), name)

    def uuid_of(self, name: str) -> str:
        """Return the UUID of the domain of that name, or else of that UUID, or empty."""
        found = self._connection.read(lambda handle: read_named(handle, name, lambda one: str(one.UUIDString())), name)
        return found[0] if found else ""

    def define(self, xml: str) -> None:
        """Define or redefine, validated. :raises AlreadyThere: the name or the UUID is another domain's."""
        from vmhost.drivers.schemas import known_valid

        label = label_of(xml)
        if label.name in (".", ".."):
            # libvirt 9.0 removes the snapshot metadata of every other domain before it refuses these names.
            raise DriverError(
                "libvirt would harm other guests for this name", subject=label.name, hint="vmhost guest list"
            )

        # libvirt compiles its schema anew each time that it is to check, which takes longer than all the rest.
        valid = known_valid(xml)

        def call(handle: Handle) -> None:
            _refuse_taken(handle, label.name, label.uuid)
            try:
                handle.defineXMLFlags(xml, 0 if valid else libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
            except libvirt.libvirtError:
                _refuse_taken(handle, label.name, label.uuid)
                raise

        self._connection.change(call, label.name)

    def undefine(self, uuid: str) -> None:
        """Undefine with all that libvirt keeps beside the definition."""
        self._change(uuid, _undefine)

    def start(self, uuid: str) -> None:
        """Start. :raises AlreadyThere: it runs."""
        self._change(uuid, _start)

    def shut_down(self, uuid: str) -> None:
        """Ask the guest to shut down. :raises Absent: it does not run."""
        self._change_running(uuid, lambda domain: _to_its_end(domain, _shut_down))

    def power_off(self, uuid: str) -> None:
        """Take the power away. :raises Absent: it does not run."""
        self._change_running(uuid, lambda domain: _to_its_end(domain, _power_off))

    def discard_managed_save(self, uuid: str) -> None:
        """Remove the saved memory. :raises Absent: there is none."""
        self._change(uuid, _discard_managed_save)

    def set_autostart(self, uuid: str, on: bool) -> None:
        """Start it with the host, or not."""
        self._change(uuid, lambda domain: domain.setAutostart(int(on)))

    def set_metadata(self, uuid: str, xml: str, namespace: str = NAMESPACE) -> None:
        """Replace our metadata wherever the domain exists: in its definition, in the running one, or in both."""
        element = unprefixed(xml, namespace) if xml else None
        self._change(uuid, lambda domain: _set_metadata(domain, element, namespace))

    def snapshot_disks(self, uuid: str, files: Mapping[str, str]) -> None:
        """Let disks of a running guest go on in other files. :raises Absent: it does not run."""
        from vmhost.drivers.libvirt import overlays

        self._change_running(uuid, lambda domain: overlays.snapshot(domain, files))

    def commit_disk(self, uuid: str, target: str, top: str, base: str) -> None:
        """Merge a file of a running guest's disk into the one below. :raises Absent: it does not run."""
        from vmhost.drivers.libvirt import overlays

        self._change_running(uuid, lambda domain: overlays.commit(domain, target, top, base))

    def resize_disk(self, uuid: str, source: str, capacity: int) -> None:
        """Grow the disk of a running guest, named by its source or target. :raises Absent: it does not run."""
        self._change_running(
            uuid, lambda domain: domain.blockResize(source, capacity, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)
        )

    def plug_nic(self, uuid: str, xml: str) -> None:
        """Plug a NIC into a running guest. :raises AlreadyThere: it has one of that MAC."""
        from vmhost.drivers.libvirt import nics

        self._change_running(uuid, lambda domain: nics.plug(domain, xml))

    def unplug_nic(self, uuid: str, mac: str, timeout: float) -> None:
        """Take a NIC out of a running guest. :raises Absent: it has none of that MAC."""
        from vmhost.drivers.libvirt import nics

        self._change_running(uuid, lambda domain: nics.unplug(domain, mac, timeout))

    def set_nic_link(self, uuid: str, mac: str, *, up: bool) -> None:
        """Set the link of a running guest's NIC. :raises Absent: it has none of that MAC."""
        from vmhost.drivers.libvirt import nics

        self._change_running(uuid, lambda domain: nics.set_link(domain, mac, up=up))

    def tune(self, uuid: str, tuning: Tuning) -> None:
        """Hold a running guest so, at once. :raises Absent: it does not run."""
        from vmhost.drivers.libvirt.tuning import tune

        cpus = self._connection.read(_pcpus, uuid)
        self._change_running(uuid, lambda domain: tune(domain, tuning, cpus))

    def set_vcpus(self, uuid: str, count: int) -> None:
        """Plug vCPUs into a running guest, or take some out. :raises Absent: it does not run."""
        self._change_running(uuid, lambda domain: domain.setVcpusFlags(count, libvirt.VIR_DOMAIN_AFFECT_LIVE))

    def set_memory(self, uuid: str, size: int) -> None:
        """Move a running guest's balloon. :raises Absent: it does not run."""
        kib = size // 1024
        self._change_running(uuid, lambda domain: domain.setMemoryFlags(kib, libvirt.VIR_DOMAIN_AFFECT_LIVE))

    def plug_memory(self, uuid: str, alias: str, size: int) -> None:
        """Plug a memory module into a running guest. :raises AlreadyThere: it has one of that alias."""
        from vmhost.drivers.libvirt import memory

        self._change_running(uuid, lambda domain: memory.plug(domain, alias, size))

    def unplug_memory(self, uuid: str, alias: str, timeout: float) -> None:
        """Take a memory module out of a running guest. :raises Absent: it has none of that alias."""
        from vmhost.drivers.libvirt import memory

        self._change_running(uuid, lambda domain: memory.unplug(domain, alias, timeout))

    def limit_disk(self, uuid: str, target: str, limits: DiskLimits) -> None:
        """Limit a disk wherever the domain exists; what fails leaves the definition as it was."""
        from vmhost.drivers.libvirt.disklimits import limit_disk

        self._change(uuid, lambda domain: limit_disk(domain, target, limits))

    def set_bandwidth(self, uuid: str, tap: str, inbound: int, outbound: int) -> None:
        """Limit a NIC both ways, in KiB a second; 0 takes a limit away."""
        limits = {"inbound.average": inbound, "outbound.average": outbound}

        # libvirt-python asks for the present values first, which libvirt answers for one of both only.
        live, config = libvirt.VIR_DOMAIN_AFFECT_LIVE, libvirt.VIR_DOMAIN_AFFECT_CONFIG

        def act(domain: Domain) -> None:
            before = domain.interfaceParameters(tap, config) if domain.isPersistent() else None
            if before is not None:
                domain.setInterfaceParameters(tap, limits, config)
            try:
                if domain.isActive():
                    domain.setInterfaceParameters(tap, limits, live)
            except libvirt.libvirtError:
                if before is not None:
                    domain.setInterfaceParameters(tap, {name: before.get(name, 0) for name in limits}, config)
                raise

        self._change(uuid, act)

    def agent(self, uuid: str, command: str, timeout: float) -> str:
        """Return the guest agent's answer. :raises Silent: no greeting, or none in ``timeout`` seconds."""
        import libvirt_qemu

        seconds = max(1, ceil(timeout))
        return str(
            self._change_running(uuid, lambda domain: libvirt_qemu.qemuAgentCommand(domain, command, seconds, 0))
        )

    def _change(self, uuid: str, act: Callable[[Domain], T]) -> T:
        def call(handle: Handle) -> T:
            domain = handle.lookupByUUIDString(uuid)
            with translated(domain.name()):
                return act(domain)

        return self._connection.change(call, uuid)

    def _change_running(self, uuid: str, act: Callable[[Domain], T]) -> T:
        def call(domain: Domain) -> T:
            _refuse_stopped(domain)  # beforehand, too: libvirt 9.0 accepts a shutdown of what does not run
            try:
                return act(domain)
            except libvirt.libvirtError:
                _refuse_stopped(domain)
                raise

        return self._change(uuid, call)


def _pcpus(handle: Handle) -> int:
    """Return how many pCPUs the host has room for, which is the length of libvirt's CPU maps."""
    return int(handle.getCPUMap(0)[0])


def _refuse_taken(handle: Handle, name: str, uuid: str) -> None:
    """:raises AlreadyThere: another domain has the name, or the UUID under another name."""
    for lookup, key in ((handle.lookupByName, name), (handle.lookupByUUIDString, uuid)):
        if not key:
            continue
        try:
            other = lookup(key)
        except libvirt.libvirtError as error:
            if code_is(error, libvirt.VIR_ERR_NO_DOMAIN):
                continue
            raise
        if (other.name(), other.UUIDString()) != (name, uuid):
            raise AlreadyThere(
                f"there is a domain {other.name()} with UUID {other.UUIDString()}",
                subject=name,
                hint=f"virsh dominfo {other.UUIDString()}",
            )


def _refuse_stopped(domain: Domain) -> None:
    """:raises Absent: the domain does not run (libvirt says by a code of its own if it is gone altogether)."""
    if not domain.isActive():
        name = domain.name()
        raise Absent("it does not run", subject=name, hint=f"vmhost guest start {name}")


def _start(domain: Domain) -> None:
    try:
        domain.create()
    except libvirt.libvirtError as error:
        if domain.isActive():
            name = domain.name()
            raise AlreadyThere("it runs already", subject=name, hint=f"vmhost guest show {name}") from error
        raise


def _to_its_end(domain: Domain, act: Callable[[Domain], None]) -> None:
    """Do what ends a running domain; that it ended by itself meanwhile is as good."""
    try:
        act(domain)
    except libvirt.libvirtError:
        with skipping(libvirt.VIR_ERR_NO_DOMAIN):
            if domain.isActive():
                raise


def _shut_down(domain: Domain) -> None:
    """With both ways allowed libvirt takes the agent if it is connected, else the ACPI power button."""
    try:
        domain.shutdownFlags(_ASK)
    except libvirt.libvirtError as error:
        if not code_is(error, libvirt.VIR_ERR_INVALID_ARG, libvirt.VIR_ERR_NO_SUPPORT):
            raise
        domain.shutdown()  # a driver that knows one way only


def _power_off(domain: Domain) -> None:
    """SIGTERM lets QEMU flush its caches; SIGKILL, which has lost guests' data, only for a QEMU that does not end."""
    try:
        domain.destroyFlags(libvirt.VIR_DOMAIN_DESTROY_GRACEFUL)
    except libvirt.libvirtError as error:
        stuck = system_errno(error) == EBUSY or code_is(
            error, libvirt.VIR_ERR_OPERATION_TIMEOUT, libvirt.VIR_ERR_RESOURCE_BUSY
        )
        if not stuck:
            raise
        domain.destroyFlags(libvirt.VIR_DOMAIN_DESTROY_DEFAULT)


def _undefine(domain: Domain) -> None:
    try:
        domain.undefineFlags(_UNDEFINE_ALL)
    except libvirt.libvirtError as error:
        if not code_is(error, libvirt.VIR_ERR_INVALID_ARG):
            raise
        domain.undefineFlags(_UNDEFINE)  # a driver without NVRAM and checkpoints


def _discard_managed_save(domain: Domain) -> None:
    if not domain.hasManagedSaveImage(0):
        name = domain.name()
        raise Absent("there is no saved memory", subject=name, hint=f"vmhost guest show {name}")
    domain.managedSaveRemove(0)


def _set_metadata(domain: Domain, element: str | None, namespace: str) -> None:
    was_active = bool(domain.isActive())
    flags = libvirt.VIR_DOMAIN_AFFECT_LIVE if was_active else 0
    flags |= libvirt.VIR_DOMAIN_AFFECT_CONFIG if domain.isPersistent() else 0
    try:
        domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, element, _PREFIXES[namespace], namespace, flags)
    except libvirt.libvirtError as error:
        stopped = was_active and code_is(error, libvirt.VIR_ERR_OPERATION_INVALID) and not domain.isActive()
        if not stopped:
            raise
        _set_metadata(domain, element, namespace)
