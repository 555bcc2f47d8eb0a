"""What holds a running guest: set at once, and read back from its definition in use."""

from __future__ import annotations

from dataclasses import replace

import pytest
from lxml.etree import fromstring

from tests.contract.backends import Backend
from vmhost.drivers.kernel import LinuxKernel
from vmhost.engine.hold import differences
from vmhost.model.disklimits import UNLIMITED, DiskLimits
from vmhost.model.errors import Absent, AlreadyThere, DriverError
from vmhost.model.shape import GuestCell, Shape
from vmhost.model.tuning import FREE, Held, Tuning
from vmhost.render.parse.domain import parse_domain
from vmhost.render.parse.tuning import parse_tuning
from vmhost.render.parse.units import size_of
from vmhost.render.shape import parse_shape
from vmhost.render.storage import volume_xml
from vmhost.render.tuning import with_tuning

PINNED = Tuning(pins=((0, "1"),), emulator="0")
LIMITED = Tuning(limit=150_000, vcpu_limit=50_000, emulator_limit=20_000, shares=512)


@pytest.fixture
def running(backend: Backend) -> str:
    """A guest that runs, of two vCPUs at most."""
    uuid = backend.new_uuid()
    xml = backend.domain_xml(f"held-{uuid[:8]}", uuid).replace("<vcpu>1<", "<vcpu current='1'>2<")
    backend.hypervisor.define(xml)
    backend.hypervisor.start(uuid)
    return uuid


def now(backend: Backend, uuid: str) -> Tuning:
    return parse_tuning(backend.hypervisor.domain(uuid).live_xml)


def held(backend: Backend, uuid: str) -> Held | None:
    """What the kernel says, where there is one."""
    if backend.name == "fake":
        assert backend.kernel is not None
        return backend.kernel.held()[uuid]
    return LinuxKernel().held()[uuid] if backend.name == "libvirt" else None


def check(backend: Backend, uuid: str, tuning: Tuning) -> None:
    found = held(backend, uuid)
    if found is not None:
        assert list(differences(tuning, found)) == []


def test_pins_hold_and_are_let_go(backend: Backend, running: str) -> None:
    with backend.can("tune") as possible:
        backend.hypervisor.tune(running, PINNED)
    if not possible:
        return
    assert now(backend, running).pins[:1] == ((0, "1"),)
    assert now(backend, running).emulator == "0"
    check(backend, running, PINNED)
    backend.hypervisor.tune(running, replace(PINNED, pins=((0, "0"),), emulator="1"))
    check(backend, running, replace(PINNED, pins=((0, "0"),), emulator="1"))
    backend.hypervisor.tune(running, FREE)
    found = held(backend, running)
    if found is not None:
        assert dict(found.vcpus)[0] == found.emulator
        assert len(found.emulator or ()) > 1
    assert parse_tuning(backend.hypervisor.domain(running).xml) == FREE, "the definition is another step's"


def test_quotas_hold_and_are_let_go(backend: Backend, running: str) -> None:
    with backend.can("limit") as possible:
        backend.hypervisor.tune(running, LIMITED)
    if not possible:
        return
    assert replace(now(backend, running), pins=(), emulator="") == LIMITED
    check(backend, running, LIMITED)
    lower = replace(LIMITED, limit=30_000, vcpu_limit=30_000)
    for tuning in (lower, LIMITED, replace(LIMITED, vcpu_limit=0), FREE):
        backend.hypervisor.tune(running, tuning)
        check(backend, running, tuning)


def test_io_threads_are_pinned_and_let_go(backend: Backend) -> None:
    uuid = backend.new_uuid()
    xml = backend.domain_xml(f"io-{uuid[:8]}", uuid).replace("<vcpu", "<iothreads>2</iothreads><vcpu")
    backend.hypervisor.define(xml)
    backend.hypervisor.start(uuid)
    both = Tuning(iothreads=2, io=((1, "1"), (2, "0")))
    with backend.can("pin I/O threads") as possible:
        backend.hypervisor.tune(uuid, both)
    if not possible or backend.name == "test":
        return  # the test driver takes such pins and forgets them
    assert now(backend, uuid) == both
    check(backend, uuid, both)
    backend.hypervisor.tune(uuid, replace(both, io=((2, "1"),)))
    check(backend, uuid, replace(both, io=((2, "1"),)))
    found = held(backend, uuid)
    assert found is None or len(dict(found.iothreads)[1]) > 1, "the first may run anywhere again"
    backend.hypervisor.tune(uuid, replace(both, emulator="0", io=()))
    check(backend, uuid, replace(both, emulator="0", io=((1, "0"), (2, "0"))))


def test_what_a_guest_sees_of_its_place_is_kept(backend: Backend) -> None:
    uuid, half = backend.new_uuid(), 32 << 20
    cells = GuestCell("0-3", half, 0, (10, 21)), GuestCell("", half, 0, (21, 10))  # of memory only
    shape = Shape(sockets=2, threads=2, cells=cells)
    xml = backend.domain_xml(f"seer-{uuid[:8]}", uuid, memory=64).replace("<vcpu>1<", "<vcpu>4<")
    backend.hypervisor.define(with_tuning(xml, Tuning(cells="0", cell_mode="strict", shape=shape)))
    assert parse_shape(backend.hypervisor.domain(uuid).xml) == shape
    backend.hypervisor.start(uuid)
    assert parse_shape(backend.hypervisor.domain(uuid).live_xml) == shape


def test_only_what_runs_is_held(backend: Backend) -> None:
    domain = backend.defined()
    for call in (
        lambda: backend.hypervisor.tune(domain.uuid, PINNED),
        lambda: backend.hypervisor.set_vcpus(domain.uuid, 1),
        lambda: backend.hypervisor.set_memory(domain.uuid, 16 << 20),
    ):
        with pytest.raises(Absent):
            call()


def test_vcpus_are_plugged_up_to_the_maximum(backend: Backend, running: str) -> None:
    backend.hypervisor.set_vcpus(running, 2)
    assert parse_domain(backend.hypervisor.domain(running).live_xml).vcpus == 2
    with pytest.raises(DriverError):
        backend.hypervisor.set_vcpus(running, 3)
    assert parse_domain(backend.hypervisor.domain(running).live_xml).vcpus == 2


def test_the_balloon_takes_no_more_than_there_is(backend: Backend, running: str) -> None:
    backend.hypervisor.set_memory(running, 24 << 20)
    with pytest.raises(DriverError):
        backend.hypervisor.set_memory(running, 64 << 20)


def test_a_pcpu_that_is_not_there_is_refused(backend: Backend, running: str) -> None:
    if backend.name == "test":
        return  # its pCPUs are made up: it takes any of them
    with pytest.raises(DriverError):
        backend.hypervisor.tune(running, Tuning(pins=((0, "4000"),)))
    check(backend, running, Tuning())


def test_memory_is_plugged_in_up_to_the_maximum(backend: Backend) -> None:
    uuid = backend.new_uuid()
    room = "<maxMemory unit='MiB' slots='2'>320</maxMemory>"
    cell = "<cpu><numa><cell id='0' cpus='0' memory='64' unit='MiB'/></numa></cpu>"
    xml = backend.domain_xml(f"grows-{uuid[:8]}", uuid, memory=64).replace("<memory", f"{room}{cell}<memory", 1)
    backend.hypervisor.define(xml)
    with pytest.raises(Absent):
        backend.hypervisor.plug_memory(uuid, "ua-memory-1", 128 << 20)
    backend.hypervisor.start(uuid)
    with backend.can("plug_memory") as possible:
        backend.hypervisor.plug_memory(uuid, "ua-memory-1", 128 << 20)
    if not possible:
        return
    raw = backend.hypervisor.domain(uuid)
    assert (memory(raw.live_xml), memory(raw.xml)) == (192 << 20, 64 << 20)
    with pytest.raises(AlreadyThere):
        backend.hypervisor.plug_memory(uuid, "ua-memory-1", 128 << 20)
    backend.hypervisor.plug_memory(uuid, "ua-memory-2", 128 << 20)
    with pytest.raises(DriverError):
        backend.hypervisor.plug_memory(uuid, "ua-memory-3", 128 << 20)
    with pytest.raises(Absent):
        backend.hypervisor.unplug_memory(uuid, "ua-memory-3", timeout=1)
    assert memory(backend.hypervisor.domain(uuid).live_xml) == 320 << 20


def memory(xml: str) -> int:
    return size_of(fromstring(xml).find("memory"), "KiB")


def test_limits_of_a_disk_hold_at_once_and_at_the_next_boot(backend: Backend) -> None:
    pool = backend.pool()
    backend.hypervisor.create_volume(pool, volume_xml("slow", 1 << 20, format="qcow2"))
    path = backend.directory / pool / "slow"
    guest = backend.defined(
        devices="<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>"
        f"<source file='{path}'/><target dev='vdc' bus='virtio'/></disk>"
    )
    both = DiskLimits(total_bytes_sec=50 << 20, total_iops_sec=500)
    with backend.can("limit disks") as possible:
        backend.hypervisor.limit_disk(guest.uuid, "vdc", both)
    if not possible:
        return
    assert limits(backend.hypervisor.domain(guest.uuid).xml) == both
    backend.hypervisor.start(guest.uuid)
    for wanted in (DiskLimits(read_bytes_sec=1 << 20, write_bytes_sec=2 << 20, write_iops_sec=7), both, UNLIMITED):
        backend.hypervisor.limit_disk(guest.uuid, "vdc", wanted)
        raw = backend.hypervisor.domain(guest.uuid)
        assert limits(raw.xml) == limits(raw.live_xml) == wanted
    with pytest.raises(DriverError):
        backend.hypervisor.limit_disk(guest.uuid, "vdx", both)


def limits(xml: str) -> DiskLimits:
    return next(disk.limits for disk in parse_domain(xml).disks if disk.target == "vdc")


def test_what_the_kernel_does_otherwise_is_named() -> None:
    held = Held(7, iothreads=((1, frozenset({0})),), locked=0)
    found = list(differences(Tuning(iothreads=2, io=((1, "1"), (2, "1")), locked=True), held))
    assert found == [
        "I/O thread 1 may run on 0, should be 1",
        "QEMU has 1 of 2 I/O threads",
        "its memory is not locked",
    ]
    assert list(differences(Tuning(locked=True), replace(held, locked=64 << 20))) == []
