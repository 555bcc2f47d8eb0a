"""The libvirt driver on a real libvirtd, as far as only a real one shows it; the rest is tests/contract."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Thread
from xml.etree.ElementTree import fromstring

import pytest

from tests.contract.backends import Backend, eventually, real_libvirt, volume_xml
from tests.labfixture import InLab
from vmhost.drivers.command import run
from vmhost.drivers.imagelock import is_open
from vmhost.drivers.libvirt import storage
from vmhost.model.errors import AlreadyThere, DriverError, Unreachable
from vmhost.model.observed import DomainState

pytestmark = pytest.mark.lab

MIB = 1 << 20
AGENT_CHANNEL = "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"

UEFI = """\
<os>
  <type machine='q35'>hvm</type>
  <loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.fd</loader>
  <nvram template='/usr/share/OVMF/OVMF_VARS_4M.fd'/>
</os>"""


def disk_xml(path: Path, kind: str = "qcow2") -> str:
    return f"""\
<disk type='file' device='disk'>
  <driver name='qemu' type='{kind}'/><source file='{path}'/><target dev='vda' bus='virtio'/>
</disk>"""


def qemu_of(name: str) -> int:
    return int(Path(f"/run/libvirt/qemu/{name}.pid").read_text())


def test_the_system_is_privileged_and_without_kvm_in_a_lab(real: Backend) -> None:
    host = real.hypervisor.host()
    assert (host.uri, host.driver, host.privileged) == ("qemu:///system", "QEMU", True)
    assert host.kvm is Path("/dev/kvm").exists()
    assert fromstring(host.domain_capabilities).findtext("path") == "/usr/bin/qemu-system-x86_64"


def test_content_permissions_and_the_rest_of_a_volume(real: Backend) -> None:
    pool = real.pool()
    path = real.directory / pool / "seed"
    real.hypervisor.create_volume(pool, volume_xml("seed", MIB, format="raw"))
    secret = os.urandom(MIB)
    real.hypervisor.upload_volume(pool, "seed", secret)
    assert path.read_bytes() == secret
    status = path.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o600, 0)
    real.hypervisor.upload_volume(pool, "seed", b"no secrets")
    assert path.read_bytes() == b"no secrets".ljust(MIB, b"\0")


def test_nothing_is_written_when_the_data_is_too_long(real: Backend) -> None:
    pool = real.pool()
    real.hypervisor.create_volume(pool, volume_xml("seed", 512, format="raw"))
    real.hypervisor.upload_volume(pool, "seed", b"x" * 512)
    with pytest.raises(DriverError, match="do not fit"):
        real.hypervisor.upload_volume(pool, "seed", b"y" * 513)
    assert (real.directory / pool / "seed").read_bytes() == b"x" * 512


def test_an_overlay_is_what_qemu_img_says(real: Backend) -> None:
    pool = real.pool()
    real.hypervisor.create_volume(pool, volume_xml("base", MIB))
    base = real.directory / pool / "base"
    real.hypervisor.create_volume(pool, volume_xml("overlay", 3 * MIB, backing=str(base)))
    told = run(["qemu-img", "info", str(real.directory / pool / "overlay")], timeout=20).text
    assert f"backing file: {base}" in told
    assert "backing file format: qcow2" in told
    assert "virtual size: 3 MiB" in told


def test_a_volume_is_deleted_as_soon_as_the_program_that_has_it_open_has_ended(real: Backend) -> None:
    """libvirt's own ``qemu-img``, which works on for a client that was killed, looks just like that."""
    pool = real.pool()
    real.hypervisor.create_volume(pool, volume_xml("disk", MIB))
    path = real.directory / pool / "disk"
    opened, deleted = Event(), Event()
    with subprocess.Popen(["qemu-io", str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        assert program.stdin is not None
        while not is_open(str(path)):
            assert program.poll() is None
            time.sleep(0.01)

        def delete() -> None:
            opened.set()
            real.hypervisor.delete_volume(pool, "disk")
            deleted.set()

        thread = Thread(target=delete)
        thread.start()
        assert opened.wait(20)
        assert not deleted.wait(0.5)
        assert path.exists()
        program.stdin.close()
        thread.join(30)
    assert deleted.is_set()
    assert real.volumes(pool) == {}


def test_files_of_others_are_seen_and_never_overwritten(real: Backend) -> None:
    pool = real.pool()
    foreign = real.directory / pool / "foreign"
    foreign.write_bytes(b"precious")
    with pytest.raises(AlreadyThere):
        real.hypervisor.create_volume(pool, volume_xml("foreign", MIB))
    assert foreign.read_bytes() == b"precious"
    (real.directory / pool / "later").write_bytes(b"x")
    assert set(real.volumes(pool)) == {"foreign", "later"}
    with pytest.raises(AlreadyThere):
        real.hypervisor.delete_pool(pool)
    assert foreign.read_bytes() == b"precious"


def test_a_pool_with_something_that_is_no_volume_stays(real: Backend) -> None:
    pool = real.pool()
    pipe = real.directory / pool / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(AlreadyThere):
        real.hypervisor.delete_pool(pool)
    assert [raw.active for raw in real.hypervisor.pools() if raw.name == pool] == [True]
    pipe.unlink()


def test_a_pool_whose_directory_is_gone_can_be_deleted(real: Backend, lab: InLab) -> None:
    pool = real.pool()
    lab.virsh("pool-destroy", pool)
    (real.directory / pool).rmdir()
    assert [raw.active for raw in real.hypervisor.pools() if raw.name == pool] == [False]
    real.hypervisor.delete_pool(pool)
    assert pool not in {raw.name for raw in real.hypervisor.pools()}


def test_a_directory_that_was_there_keeps_its_mode_and_content(real: Backend, lab: InLab) -> None:
    directory = real.directory / "old"
    directory.mkdir(mode=0o755)
    (directory / "file").write_text("x")
    real.hypervisor.create_pool("old", str(directory))
    assert stat.S_IMODE(directory.stat().st_mode) == 0o755
    assert list(real.volumes("old")) == ["file"]
    assert "autostart: yes" in " ".join(lab.virsh("pool-info", "old").text.lower().split())
    lab.virsh("pool-destroy", "old")
    lab.virsh("pool-undefine", "old")


def test_a_pool_that_cannot_be_made_leaves_nothing(real: Backend) -> None:
    (real.directory / "file").write_text("x")
    with pytest.raises(DriverError):
        real.hypervisor.create_pool("broken", str(real.directory / "file" / "pool"))
    assert "broken" not in {raw.name for raw in real.hypervisor.pools()}
    assert (real.directory / "file").read_text() == "x"


@pytest.mark.parametrize("call", ["setAutostart", "create"])
def test_a_pool_is_unmade_when_a_later_part_fails(real: Backend, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def fail(*_: object) -> None:
        raise storage.libvirt.libvirtError("made to fail")

    monkeypatch.setattr(storage.libvirt.virStoragePool, call, fail)
    with pytest.raises(DriverError):
        real.hypervisor.create_pool("half", str(real.directory / "half"))
    assert "half" not in {raw.name for raw in real.hypervisor.pools()}
    assert not (real.directory / "half").exists()


def test_delete_waits_for_whoever_builds_the_volume(real: Backend, lab: InLab) -> None:
    pool = real.pool()
    with (real.directory / pool / "source").open("wb") as file:
        for _ in range(400):
            file.write(os.urandom(MIB // 4) * 4)
    lab.virsh("pool-refresh", pool)
    copy = Thread(target=lambda: lab.virsh("vol-clone", "--pool", pool, "source", "copy", check=False))
    copy.start()
    assert eventually(lambda: lab.virsh("vol-info", "--pool", pool, "copy", check=False).code == 0)
    assert "copy" in real.volumes(pool)
    # Both ends of the copy are busy; neither call may fail for that.
    real.hypervisor.delete_volume(pool, "copy")
    real.hypervisor.delete_volume(pool, "source")
    copy.join()
    assert real.volumes(pool) == {}


def test_the_disk_of_a_running_guest_grows(real: Backend, lab: InLab) -> None:
    pool = real.pool()
    real.hypervisor.create_volume(pool, volume_xml("disk", MIB))
    path = real.directory / pool / "disk"
    domain = real.defined(devices=disk_xml(path))
    real.hypervisor.start(domain.uuid)
    real.hypervisor.resize_disk(domain.uuid, str(path), 8 * MIB)
    assert lab.virsh("domblkinfo", domain.name, "vda").text.split()[:2] == ["Capacity:", str(8 * MIB)]
    with pytest.raises(DriverError):
        real.hypervisor.resize_volume(pool, "disk", 16 * MIB)
    with pytest.raises(DriverError):
        real.hypervisor.resize_disk(domain.uuid, "/nowhere", 8 * MIB)
    assert lab.virsh("domblkinfo", domain.name, "vda").text.split()[1] == str(8 * MIB)


@pytest.mark.full  # libvirt gives QEMU 15 s
def test_power_off_lets_qemu_write_and_forces_one_that_does_not_end(real: Backend) -> None:
    domain = real.defined()
    real.hypervisor.start(domain.uuid)
    pid = qemu_of(domain.name)
    os.kill(pid, signal.SIGSTOP)
    real.hypervisor.power_off(domain.uuid)
    assert real.hypervisor.domain(domain.uuid).state is DomainState.SHUTOFF
    assert not Path(f"/proc/{pid}").exists()


def test_start_tells_what_qemu_said(real: Backend) -> None:
    missing = real.directory / "missing.qcow2"
    domain = real.defined(devices=disk_xml(missing))
    with pytest.raises(DriverError, match=r"missing\.qcow2") as caught:
        real.hypervisor.start(domain.uuid)
    assert caught.value.subject == domain.name
    assert real.hypervisor.domain(domain.uuid) == domain


def test_snapshots_are_counted_and_go_with_the_definition(real: Backend, lab: InLab) -> None:
    pool = real.pool()
    real.hypervisor.create_volume(pool, volume_xml("disk", MIB))
    domain = real.defined(devices=disk_xml(real.directory / pool / "disk"))
    lab.virsh("snapshot-create-as", domain.name, "one")
    lab.virsh("snapshot-create-as", domain.name, "two")
    assert real.hypervisor.domain(domain.uuid).snapshots == 2
    assert {raw.uuid: raw.snapshots for raw in real.hypervisor.domains()}[domain.uuid] == 2
    real.hypervisor.undefine(domain.uuid)
    assert not Path("/var/lib/libvirt/qemu/snapshot", domain.name).exists()


def test_undefine_takes_the_variables_of_uefi_along(real: Backend) -> None:
    uuid = real.new_uuid()
    name = f"uefi-{uuid[:8]}"
    real.hypervisor.define(real.domain_xml(name, uuid).replace("<os><type>hvm</type></os>", UEFI))
    real.hypervisor.start(uuid)
    variables = Path("/var/lib/libvirt/qemu/nvram", f"{name}_VARS.fd")
    assert variables.exists()
    real.hypervisor.power_off(uuid)
    real.hypervisor.undefine(uuid)
    assert not variables.exists()


def test_an_agent_that_is_not_connected_is_unreachable(real: Backend) -> None:
    domain = real.defined(devices=AGENT_CHANNEL)
    real.hypervisor.start(domain.uuid)
    with pytest.raises(Unreachable) as caught:
        real.hypervisor.agent(domain.uuid, '{"execute":"guest-ping"}', 1.0)
    assert (caught.value.retryable, caught.value.subject) == (True, domain.name)
    assert caught.value.hint == f"vmhost guest exec {domain.name} -- systemctl status qemu-guest-agent"


def test_what_comes_and_goes_while_it_is_read_is_left_out(real: Backend) -> None:
    pool, stop = real.pool(), Event()
    uuids = [real.new_uuid() for _ in range(4)]

    def churn() -> None:
        while not stop.is_set():
            for number, uuid in enumerate(uuids):
                real.hypervisor.define(real.domain_xml(f"churn-{number}", uuid))
                real.hypervisor.create_volume(pool, volume_xml(f"v{number}", MIB, format="raw"))
            for number, uuid in enumerate(uuids):
                real.hypervisor.undefine(uuid)
                real.hypervisor.delete_volume(pool, f"v{number}")

    with ThreadPoolExecutor(1) as threads:
        churning = threads.submit(churn)
        deadline = time.monotonic() + 4
        try:
            while time.monotonic() < deadline and not churning.done():
                real.hypervisor.domains()
                real.hypervisor.pools()
        finally:
            stop.set()
        churning.result()


def test_without_libvirtd_every_call_is_unreachable_and_says_the_remedy(real: Backend, lab: InLab) -> None:
    domain = real.defined()
    lab.stop_libvirtd()
    try:
        calls: list[Callable[[], object]] = [
            real.hypervisor.domains,
            real.hypervisor.pools,
            real.hypervisor.host,
            lambda: real.hypervisor.start(domain.uuid),
            lambda: real.hypervisor.undefine(domain.uuid),
            lambda: real_libvirt(real.directory),
        ]
        for call in calls:
            with pytest.raises(Unreachable) as caught:
                call()
            assert caught.value.hint == "systemctl start libvirtd"
            assert "libvirt-sock" in caught.value.message
    finally:
        lab.start_libvirtd()
    assert real.hypervisor.domain(domain.uuid) == domain


@pytest.mark.parametrize("kill", [False, True], ids=["restarted", "crashed"])
def test_after_a_restart_reads_and_changes_go_on(real: Backend, lab: InLab, kill: bool) -> None:
    domain = real.defined()
    real.hypervisor.start(domain.uuid)
    running = real.hypervisor.domain(domain.uuid)
    lab.restart_libvirtd(kill=kill)
    assert real.hypervisor.domain(domain.uuid) == running
    lab.restart_libvirtd(kill=kill)
    real.hypervisor.set_autostart(domain.uuid, True)
    lab.restart_libvirtd(kill=kill)
    real.hypervisor.power_off(domain.uuid)
    assert real.hypervisor.domain(domain.uuid).state is DomainState.SHUTOFF


def test_a_read_that_breaks_in_the_middle_is_done_again(real: Backend, lab: InLab) -> None:
    domain = real.defined()
    runs: list[int] = []

    def read(handle: object) -> list[str]:
        runs.append(1)
        found = handle.listAllDomains(0)
        if len(runs) == 1:
            lab.restart_libvirtd(kill=True)
        return [one.XMLDesc(0) and one.UUIDString() for one in found]

    assert domain.uuid in real.hypervisor._connection.read(read)
    assert len(runs) == 2


def test_a_change_that_breaks_in_the_middle_is_never_done_again(real: Backend, lab: InLab) -> None:
    domain = real.defined()
    real.hypervisor.start(domain.uuid)
    os.kill(qemu_of(domain.name), signal.SIGSTOP)  # so that the call takes a while
    outcome: list[BaseException] = []

    def power_off() -> None:
        try:
            real.hypervisor.power_off(domain.uuid)
        except DriverError as error:
            outcome.append(error)

    thread = Thread(target=power_off)
    thread.start()
    assert not eventually(lambda: not thread.is_alive(), seconds=1.0)
    lab.stop_libvirtd(kill=True)
    thread.join(10)
    os.kill(qemu_of(domain.name), signal.SIGCONT)
    lab.start_libvirtd()
    assert [type(error) for error in outcome] == [Unreachable]
    assert outcome[0].retryable
    # QEMU had been asked to end before libvirtd died.
    assert eventually(lambda: real.hypervisor.domain(domain.uuid).state is DomainState.SHUTOFF)


def test_a_file_that_vanished_is_left_out(real: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = real.pool()
    for name in ("stays", "goes"):
        real.hypervisor.create_volume(pool, volume_xml(name, MIB))
    (real.directory / pool / "goes").unlink()
    monkeypatch.setattr(storage, "_refresh", lambda _: None)  # as when it went right after libvirt had looked
    assert set(real.volumes(pool)) == {"stays"}


@pytest.mark.parametrize("kind", ["qcow2", "raw"])
def test_a_full_disk_leaves_no_volume(real: Backend, lab: InLab, kind: str) -> None:
    """And it is no reason to believe that the volume was there before."""
    pool = real.pool()
    directory = real.directory / pool
    run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(directory)], timeout=10)
    try:
        (directory / "ballast").write_bytes(bytes(60 << 10))
        with pytest.raises(DriverError) as caught:
            real.hypervisor.create_volume(pool, volume_xml("disk", MIB, format=kind))
        assert not isinstance(caught.value, AlreadyThere)
        assert set(real.volumes(pool)) == {"ballast"}
        assert [path.name for path in directory.iterdir()] == ["ballast"]
    finally:
        run(["umount", str(directory)], timeout=10)


def test_only_directories_are_deleted(real: Backend, lab: InLab) -> None:
    (real.directory / "fs.xml").write_text(
        f"<pool type='fs'><name>other</name><source><device path='/dev/null'/></source>"
        f"<target><path>{real.directory}/mount</path></target></pool>"
    )
    lab.virsh("pool-define", str(real.directory / "fs.xml"))
    try:
        with pytest.raises(AlreadyThere):
            real.hypervisor.delete_pool("other")
        assert [raw.active for raw in real.hypervisor.pools() if raw.name == "other"] == [False]
    finally:
        lab.virsh("pool-undefine", "other")


def test_a_full_disk_is_told_while_writing(real: Backend, lab: InLab) -> None:
    """A file without blocks of its own finds no room when its content comes."""
    pool = real.pool()
    directory = real.directory / pool
    run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(directory)], timeout=10)
    try:
        xml = volume_xml("seed", MIB, format="raw").replace("</capacity>", "</capacity><allocation>0</allocation>")
        real.hypervisor.create_volume(pool, xml)
        with pytest.raises(DriverError, match="No space left"):
            real.hypervisor.upload_volume(pool, "seed", b"x" * MIB)
        real.hypervisor.delete_volume(pool, "seed")
        assert list(directory.iterdir()) == []
    finally:
        run(["umount", str(directory)], timeout=10)
