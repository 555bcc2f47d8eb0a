"""Domains of the fake host, as libvirt 9.0 treats them; its messages are libvirt's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from vmhost.model.disklimits import DiskLimits
from vmhost.model.errors import Absent, AlreadyThere, DriverError
from vmhost.model.identity import NAMESPACE
from vmhost.model.observed import DomainState, RawDomain
from vmhost.model.tuning import Tuning
from vmhost.render.parse.tuning import parse_tuning
from vmhost.testing import guests
from vmhost.testing.chance import drawn_uuid
from vmhost.testing.hook import at_start
from vmhost.testing.machine import Machine
from vmhost.testing.normal import live_form, normal_form, with_disk_limits, with_limits, with_metadata
from vmhost.testing.overlays import forget_nvram, write_nvram
from vmhost.testing.topologies import online_of
from vmhost.testing.tuning import check_pins, tuned
from vmhost.testing.world import Domain, World
from vmhost.testing.xml import ensure, read, write


class FakeDomains:
    """The domains of a fake host."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def all(self) -> tuple[RawDomain, ...]:
        """Return all domains."""
        with self._machine.at_work() as world:
            return tuple(_raw(world, domain) for domain in world.domains.values())

    def one(self, uuid: str) -> RawDomain:
        """Return one domain. :raises Absent: there is none of that UUID."""
        with self._machine.at_work() as world:
            return _raw(world, _find(world, uuid))

    def define(self, xml: str) -> None:
        """Define or redefine. :raises AlreadyThere: the name or the UUID is another domain's."""
        with self._machine.at_work(changing=True) as world:
            root = normal_form(xml, drawn_uuid(world))
            name, uuid = root.findtext("name", "").strip(), root.findtext("uuid", "").strip().lower()
            _refuse_taken(world, name, uuid)
            known = world.domains.get(uuid)
            if known is None:
                known = world.domains[uuid] = Domain(uuid=uuid, name=name, xml=write(root))
                self._machine.emit(known, "defined", "added")
            else:
                known.xml, known.persistent = write(root), True
                self._machine.emit(known, "defined", "updated")

    def undefine(self, uuid: str) -> None:
        """Undefine; a domain that runs goes on without its definition."""
        with self._machine.at_work(changing=True) as world:
            domain = _find(world, uuid)
            domain.saved_xml, domain.autostart, domain.snapshots = "", False, 0
            forget_nvram(world, domain)
            self._machine.emit(domain, "undefined", "removed")
            if domain.state.active:
                domain.persistent = False
            else:
                del world.domains[uuid]

    def start(self, uuid: str) -> None:
        """Start. :raises AlreadyThere: it runs."""
        with self._machine.at_work(changing=True) as world:
            domain = _find(world, uuid)
            if domain.state.active:
                raise AlreadyThere("it runs already", subject=domain.name, hint=f"vmhost guest show {domain.name}")
            saved = domain.saved_xml
            _check_start(world, domain, saved or domain.xml)
            check_pins(world, domain.name, parse_tuning(saved or domain.xml))
            world.started += 1
            domain.number, domain.state, domain.saved_xml = world.started, DomainState.RUNNING, ""
            domain.live_xml = live_form(saved or domain.xml, domain.number, connected=False)
            try:
                at_start(world, domain)
            except DriverError:
                domain.state, domain.live_xml, domain.saved_xml = DomainState.SHUTOFF, "", saved
                raise
            write_nvram(world, domain)
            self._begin(world, domain, restored=bool(saved))

    def _begin(self, world: World, domain: Domain, *, restored: bool) -> None:
        self._machine.emit(domain, "resumed", "unpaused")
        self._machine.emit(domain, "started", "restored" if restored else "booted")
        behaviour = world.behaviour(domain.name)
        if behaviour.boots:
            domain.up_at = world.now + (0.0 if restored else behaviour.boot_seconds)
            self._machine.advance(0)

    def shut_down(self, uuid: str) -> None:
        """Ask the guest to shut down; it does if it is up and obeys. :raises Absent: it does not run."""
        with self._running(uuid) as (world, domain):
            behaviour = world.behaviour(domain.name)
            if domain.up and behaviour.obeys and not domain.down_at:
                domain.down_at = world.now + behaviour.shutdown_seconds
                self._machine.advance(0)

    def power_off(self, uuid: str) -> None:
        """Take the power away. :raises Absent: it does not run."""
        with self._running(uuid) as (_, domain):
            self._machine.emit(domain, "shutdown", "by the host")
            self._machine.stop(domain, "destroyed")

    def save(self, uuid: str) -> None:
        """Save its memory and stop it, as ``virsh managedsave`` does."""
        with self._running(uuid) as (_, domain):
            domain.saved_xml = domain.xml
            self._machine.emit(domain, "suspended", "paused")
            self._machine.stop(domain, "saved")

    def crash(self, uuid: str) -> None:
        """Let its QEMU die."""
        with self._running(uuid) as (_, domain):
            self._machine.stop(domain, "crashed")

    def discard_managed_save(self, uuid: str) -> None:
        """Remove the saved memory. :raises Absent: there is none."""
        with self._machine.at_work(changing=True) as world:
            domain = _find(world, uuid)
            if not domain.saved_xml:
                hint = f"vmhost guest show {domain.name}"
                raise Absent("there is no saved memory", subject=domain.name, hint=hint)
            domain.saved_xml = ""

    def set_autostart(self, uuid: str, on: bool) -> None:
        """Start it with the host, or not."""
        with self._machine.at_work(changing=True) as world:
            domain = _find(world, uuid)
            if not domain.persistent:
                text = "Requested operation is not valid: cannot set autostart for transient domain"
                raise DriverError(text, subject=domain.name)
            domain.autostart = on

    def set_metadata(self, uuid: str, xml: str, namespace: str = NAMESPACE) -> None:
        """Replace our metadata wherever the domain exists."""
        with self._machine.at_work(changing=True) as world:
            domain = _find(world, uuid)
            if domain.persistent:
                domain.xml = with_metadata(domain.xml, xml, namespace)
            if domain.live_xml:
                domain.live_xml = with_metadata(domain.live_xml, xml, namespace)

    def set_bandwidth(self, uuid: str, tap: str, inbound: int, outbound: int) -> None:
        """Limit a NIC, in the definition and in what runs."""
        with self._machine.at_work(changing=True) as world:
            domain = _find(world, uuid)
            if all(nic.tap != tap for nic in guests.facts_of(domain).nics):
                raise DriverError(f"invalid argument: cannot find interface {tap}", subject=domain.name)
            domain.xml = with_limits(domain.xml, tap, inbound, outbound)
            if domain.live_xml:
                domain.live_xml = with_limits(domain.live_xml, tap, inbound, outbound)

    def limit_disk(self, uuid: str, target: str, limits: DiskLimits) -> None:
        """Limit a disk, in the definition and in what runs."""
        with self._machine.at_work(changing=True) as world:
            domain = _find(world, uuid)
            if all(disk.target != target for disk in guests.facts_of(domain).disks):
                raise DriverError(f"invalid argument: disk '{target}' was not found", subject=domain.name)
            domain.xml = with_disk_limits(domain.xml, target, limits)
            if domain.live_xml:
                domain.live_xml = with_disk_limits(domain.live_xml, target, limits)

    def resize_disk(self, uuid: str, source: str, capacity: int) -> None:
        """Resize a disk of a running guest, named by its source or target. :raises Absent: it does not run."""
        with self._running(uuid) as (world, domain):
            disks = guests.facts_of(domain).disks
            path = next((disk.source for disk in disks if source in (disk.source, disk.target)), "")
            volume = world.volume_at(path)
            if volume is None:
                text = f"invalid argument: disk '{source}' was not found in the domain config"
                raise DriverError(text, subject=domain.name)
            volume.capacity = capacity

    def tune(self, uuid: str, tuning: Tuning) -> None:
        """Hold a running guest so. :raises Absent: it does not run."""
        with self._running(uuid) as (world, domain):
            check_pins(world, domain.name, tuning)
            domain.live_xml = tuned(domain.live_xml, tuning, online_of(world))

    def set_vcpus(self, uuid: str, count: int) -> None:
        """Plug vCPUs into a running guest, or take some out. :raises Absent: it does not run."""
        with self._running(uuid) as (_, domain):
            root = read(domain.live_xml)
            vcpu = ensure(root, "vcpu", "1")
            if count > int(vcpu.text or "1"):
                text = f"invalid argument: requested vcpus is greater than max allowable vcpus: {count} > {vcpu.text}"
                raise DriverError(text, subject=domain.name)
            vcpu.set("current", str(count))
            domain.live_xml = write(root)

    def set_memory(self, uuid: str, size: int) -> None:
        """Move a running guest's balloon. :raises Absent: it does not run."""
        with self._running(uuid) as (_, domain):
            root = read(domain.live_xml)
            if size // 1024 > int(ensure(root, "memory").text or "0"):
                text = "invalid argument: cannot set memory higher than max memory"
                raise DriverError(text, subject=domain.name)
            ensure(root, "currentMemory").text = str(size // 1024)
            domain.live_xml = write(root)

    @contextmanager
    def _running(self, uuid: str) -> Iterator[tuple[World, Domain]]:
        """Give the world and a domain that runs. :raises Absent: it does not."""
        with self._machine.at_work(changing=True) as world:
            domain = _find(world, uuid)
            if not domain.state.active:
                raise Absent("it does not run", subject=domain.name, hint=f"vmhost guest start {domain.name}")
            yield world, domain


def _find(world: World, uuid: str) -> Domain:
    if uuid not in world.domains:
        text = f"Domain not found: no domain with matching uuid '{uuid}'"
        raise Absent(text, subject=uuid, hint="vmhost guest list")
    return world.domains[uuid]


def _refuse_taken(world: World, name: str, uuid: str) -> None:
    for other in world.domains.values():
        if (other.name == name) != (other.uuid == uuid):
            text = f"there is a domain {other.name} with UUID {other.uuid}"
            raise AlreadyThere(text, subject=name, hint=f"virsh dominfo {other.uuid}")


def _check_start(world: World, domain: Domain, xml: str) -> None:
    """Refuse what libvirt and QEMU refuse: files and bridges that are not there, taps and forwarded ports that are."""
    facts = guests.facts_in(xml)
    for disk in facts.disks:
        if disk.source.startswith("/") and not world.file_exists(disk.source):
            text = f"Cannot access storage file '{disk.source}' (as uid:64055, gid:64055): No such file or directory"
            raise DriverError(text, subject=domain.name)
    running = [nic for other in world.domains.values() if other.live_xml for nic in guests.facts_of(other).nics]
    taps = {nic.tap for nic in running if nic.tap}
    forwarded = {nic.source for nic in running if nic.type == "user" and nic.source}
    for nic in facts.nics:
        if nic.type == "bridge" and nic.source not in world.links:
            raise DriverError(f"Cannot get interface MTU on '{nic.source}': No such device", subject=domain.name)
        if nic.type == "user" and nic.source in forwarded:
            text = f"Could not set up host forwarding rule 'tcp:{nic.source}-:22'"
            raise DriverError(
                f"internal error: process exited while connecting to monitor: {text}", subject=domain.name
            )
        if nic.tap in taps:
            text = f"Requested operation is not valid: The {nic.tap} interface already exists"
            raise DriverError(text, subject=domain.name)


def _raw(world: World, domain: Domain) -> RawDomain:
    connected = domain.up and world.behaviour(domain.name).agent
    live = domain.live_xml.replace('state="disconnected"', 'state="connected"') if connected else domain.live_xml
    return RawDomain(
        uuid=domain.uuid,
        name=domain.name,
        state=domain.state,
        xml=domain.xml,
        live_xml=live,
        persistent=domain.persistent,
        autostart=domain.autostart,
        managed_save=bool(domain.saved_xml),
        snapshots=domain.snapshots,
    )
