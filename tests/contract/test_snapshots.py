"""Disks that go on in other files, files that are merged, and metadata of a second namespace."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.contract.backends import Backend, volume_xml
from vmhost.model.errors import Absent, AlreadyThere, DriverError
from vmhost.model.snapshots import SNAPSHOTS
from vmhost.render.parse.domain import parse_domain
from vmhost.render.parse.snapshots import parse_snapshots
from vmhost.render.parse.storage import parse_pool

MIB = 1 << 20
RECORDS = f'<s:snapshots xmlns:s="{SNAPSHOTS}" version="1" next="{{}}"/>'


@pytest.fixture
def written(backend: Backend) -> tuple[str, str]:
    """A guest with a disk ``0.qcow2``, with overlays ``1`` and ``2`` on it, that nobody uses; its UUID and the pool."""
    pool = backend.pool()
    for number in range(3):
        below = f"{backend.directory}/{pool}/{number - 1}.qcow2" if number else ""
        backend.hypervisor.create_volume(pool, volume_xml(f"{number}.qcow2", 4 * MIB, backing=below))
    disk = (
        "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>"
        f"<source file='{backend.directory}/{pool}/0.qcow2'/><target dev='vda' bus='virtio'/></disk>"
    )
    return backend.defined("written", devices=disk).uuid, f"{backend.directory}/{pool}"


def sources(backend: Backend, uuid: str) -> set[str]:
    """Where its disk lies, in the definition and in what runs, by the number of the file."""
    raw = backend.hypervisor.domain(uuid)
    found = [disk.source for xml in (raw.xml, raw.live_xml) if xml for disk in parse_domain(xml).disks]
    return {source.rpartition("/")[2].partition(".")[0] for source in found}


def test_a_running_guest_goes_on_in_other_files_and_back(backend: Backend, written: tuple[str, str]) -> None:
    uuid, place = written
    hypervisor, files = backend.hypervisor, backend.files
    with pytest.raises(DriverError):
        hypervisor.snapshot_disks(uuid, {"vda": f"{place}/1.qcow2"})
    hypervisor.start(uuid)
    with backend.can("snapshot_disks") as possible:
        hypervisor.snapshot_disks(uuid, {"vda": f"{place}/1.qcow2"})
    with backend.can("commit_disk"):
        hypervisor.commit_disk(uuid, "vda", f"{place}/1.qcow2", f"{place}/0.qcow2")
    if not possible:
        assert sources(backend, uuid) == {"0"}
        return
    assert files is not None
    assert sources(backend, uuid) == {"0"}
    hypervisor.snapshot_disks(uuid, {"vda": f"{place}/1.qcow2"})
    hypervisor.snapshot_disks(uuid, {"vda": f"{place}/2.qcow2"})
    assert sources(backend, uuid) == {"2"}
    with pytest.raises(DriverError):
        files.commit(f"{place}/1.qcow2", f"{place}/0.qcow2")
    with pytest.raises(DriverError):
        hypervisor.snapshot_disks(uuid, {"vda": f"{place}/nowhere.qcow2"})
    hypervisor.commit_disk(uuid, "vda", f"{place}/1.qcow2", f"{place}/0.qcow2")
    assert sources(backend, uuid) == {"2"}, "the file in the middle went"
    assert files.backing(f"{place}/2.qcow2") == f"{place}/0.qcow2"
    with pytest.raises(DriverError):
        hypervisor.commit_disk(uuid, "vda", f"{place}/1.qcow2", f"{place}/0.qcow2")
    hypervisor.commit_disk(uuid, "vda", f"{place}/2.qcow2", f"{place}/0.qcow2")
    assert sources(backend, uuid) == {"0"}
    hypervisor.power_off(uuid)
    with pytest.raises(Absent):
        hypervisor.commit_disk(uuid, "vda", f"{place}/2.qcow2", f"{place}/0.qcow2")
    with pytest.raises(Absent):
        hypervisor.snapshot_disks(uuid, {"vda": f"{place}/2.qcow2"})


def test_files_that_nobody_uses_are_merged_and_moved(backend: Backend, written: tuple[str, str]) -> None:
    _, place = written
    files = backend.files
    if files is None:
        assert backend.name == "test", "it has no files"
        return
    assert files.backing(f"{place}/0.qcow2") == ""
    assert not any(files.written(f"{place}/{name}.qcow2") for name in (0, 1, 2, "nowhere"))
    assert files.backing(f"{place}/2.qcow2") == f"{place}/1.qcow2"
    files.commit(f"{place}/1.qcow2", f"{place}/0.qcow2")
    assert files.backing(f"{place}/1.qcow2") == f"{place}/0.qcow2", "it stays as it is"
    files.rebase(f"{place}/2.qcow2", f"{place}/0.qcow2")
    assert files.backing(f"{place}/2.qcow2") == f"{place}/0.qcow2"
    with pytest.raises(DriverError):
        files.commit(f"{place}/nowhere.qcow2", f"{place}/0.qcow2")
    with pytest.raises(Absent):
        files.backing(f"{place}/nowhere.qcow2")


def test_an_empty_overlay_is_made_beside_libvirt(backend: Backend, written: tuple[str, str]) -> None:
    uuid, place = written
    hypervisor, files = backend.hypervisor, backend.files
    if files is None:
        assert backend.name == "test", "it has no files"
        return
    new, base = f"{place}/new.qcow2", f"{place}/0.qcow2"
    files.make_overlay(new, base, 4 * MIB)
    assert files.backing(new) == base
    (pool,) = hypervisor.holding([new, f"{place}/nowhere.qcow2"])
    (volume,) = parse_pool(pool.xml, pool.active, pool.volumes).volumes
    assert (volume.path, volume.backing, volume.capacity, volume.format) == (new, base, 4 * MIB, "qcow2")
    with pytest.raises(AlreadyThere):
        files.make_overlay(new, base, 4 * MIB)
    with pytest.raises(Absent):
        files.make_overlay(f"{place}/other.qcow2", f"{place}/nowhere.qcow2", 4 * MIB)
    hypervisor.start(uuid)
    hypervisor.snapshot_disks(uuid, {"vda": new})
    assert sources(backend, uuid) == {"new"}
    hypervisor.commit_disk(uuid, "vda", new, base)
    assert sources(backend, uuid) == {"0"}
    hypervisor.delete_volume(place.rpartition("/")[2], "new.qcow2")
    assert hypervisor.holding([new]) == ()
    files.make_overlay(new, base, 4 * MIB)
    hypervisor.delete_volume(place.rpartition("/")[2], "new.qcow2")  # which libvirt has not seen yet


def test_variables_of_uefi_are_kept_and_put_back(backend: Backend, written: tuple[str, str]) -> None:
    uuid, place = written
    files = backend.files
    if files is None:
        assert backend.name == "test", "it has no files"
        return
    domain = replace(backend.hypervisor.domain(uuid), name=f"never-{uuid}")
    files.keep_nvram(domain, f"{place}/empty.fd")
    assert files.same_nvram(domain, f"{place}/empty.fd"), "a guest that never ran has none"
    assert files.nvram(domain) == b""
    with pytest.raises(AlreadyThere):
        files.keep_nvram(domain, f"{place}/empty.fd")
    files.put_nvram(domain, f"{place}/empty.fd")
    assert files.same_nvram(domain, f"{place}/empty.fd")
    with pytest.raises(DriverError):
        files.put_nvram(domain, f"{place}/nowhere.fd")
    backend.hypervisor.start(uuid)
    with pytest.raises(DriverError, match="it runs"):
        files.put_nvram(replace(backend.hypervisor.domain(uuid), name=domain.name), f"{place}/empty.fd")


def test_records_of_snapshots_stand_beside_our_metadata(backend: Backend) -> None:
    uuid = backend.defined("records").uuid
    backend.hypervisor.set_metadata(uuid, RECORDS.format(3), SNAPSHOTS)
    assert parse_snapshots(backend.hypervisor.domain(uuid).xml).next == 3
    backend.hypervisor.start(uuid)
    backend.hypervisor.set_metadata(uuid, RECORDS.format(4), SNAPSHOTS)
    raw = backend.hypervisor.domain(uuid)
    assert [parse_snapshots(xml).next for xml in (raw.xml, raw.live_xml)] == [4, 4]
    backend.hypervisor.set_metadata(uuid, "", SNAPSHOTS)
    raw = backend.hypervisor.domain(uuid)
    assert SNAPSHOTS not in raw.xml + raw.live_xml
