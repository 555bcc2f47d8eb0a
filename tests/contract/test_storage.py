"""Storage pools and volumes."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4
from xml.etree.ElementTree import fromstring

import pytest

from tests.contract.backends import Backend, volume_xml
from vmhost.model.errors import Absent, AlreadyThere, DriverError

MIB = 1 << 20


def test_a_new_pool_is_active_and_empty(backend: Backend) -> None:
    name = backend.pool()
    (pool,) = [raw for raw in backend.hypervisor.pools() if raw.name == name]
    assert (pool.active, pool.volumes) == (True, ())
    root = fromstring(pool.xml)
    assert (root.get("type"), root.findtext("name")) == ("dir", name)
    assert root.findtext("target/path") == str(backend.directory / name)
    assert int(root.findtext("available") or 0) > 0


def test_a_pool_that_is_there_first_wins(backend: Backend) -> None:
    name = backend.pool()
    before = backend.hypervisor.pools()
    with pytest.raises(AlreadyThere) as caught:
        backend.hypervisor.create_pool(name, str(backend.directory / "elsewhere"))
    assert (caught.value.subject, bool(caught.value.hint)) == (name, True)
    assert [raw.name for raw in backend.hypervisor.pools()] == [raw.name for raw in before]
    assert not (backend.directory / "elsewhere").exists()


def test_a_second_pool_in_the_same_place_is_refused(backend: Backend) -> None:
    name = backend.pool()
    with pytest.raises(DriverError):
        backend.hypervisor.create_pool(f"{name}-2", str(backend.directory / name))
    assert f"{name}-2" not in {raw.name for raw in backend.hypervisor.pools()}
    assert backend.lacks("files") or (backend.directory / name).is_dir()


def test_an_empty_pool_is_deleted_with_its_directory(backend: Backend) -> None:
    name = backend.pool()
    backend.hypervisor.delete_pool(name)
    assert name not in {raw.name for raw in backend.hypervisor.pools()}
    assert not (backend.directory / name).exists()
    with pytest.raises(Absent):
        backend.hypervisor.delete_pool(name)


def test_a_pool_with_volumes_is_not_deleted(backend: Backend) -> None:
    name = backend.pool()
    backend.hypervisor.create_volume(name, volume_xml("disk", MIB))
    with pytest.raises(AlreadyThere):
        backend.hypervisor.delete_pool(name)
    assert list(backend.volumes(name)) == ["disk"]


def test_a_volume_comes_and_goes(backend: Backend) -> None:
    pool = backend.pool()
    backend.hypervisor.create_volume(pool, volume_xml("disk.qcow2", 8 * MIB))
    root = fromstring(backend.volumes(pool)["disk.qcow2"])
    assert int(root.findtext("capacity") or 0) == 8 * MIB
    assert root.findtext("target/path") == str(backend.directory / pool / "disk.qcow2")
    form = root.find("target/format")
    assert form is not None
    assert form.get("type") == "qcow2"
    backend.hypervisor.delete_volume(pool, "disk.qcow2")
    assert backend.volumes(pool) == {}
    with pytest.raises(Absent):
        backend.hypervisor.delete_volume(pool, "disk.qcow2")


def test_a_volume_that_is_there_first_wins(backend: Backend) -> None:
    pool = backend.pool()
    backend.hypervisor.create_volume(pool, volume_xml("disk", 8 * MIB))
    with pytest.raises(AlreadyThere) as caught:
        backend.hypervisor.create_volume(pool, volume_xml("disk", MIB))
    assert (caught.value.subject, bool(caught.value.hint)) == ("disk", True)
    assert int(fromstring(backend.volumes(pool)["disk"]).findtext("capacity") or 0) == 8 * MIB


def test_a_volume_knows_what_it_lies_on(backend: Backend) -> None:
    pool = backend.pool()
    backend.hypervisor.create_volume(pool, volume_xml("base", MIB))
    base = fromstring(backend.volumes(pool)["base"]).findtext("target/path") or ""
    backend.hypervisor.create_volume(pool, volume_xml("overlay", 2 * MIB, backing=base))
    overlay = fromstring(backend.volumes(pool)["overlay"])
    assert overlay.findtext("backingStore/path") == base
    assert int(overlay.findtext("capacity") or 0) == 2 * MIB


def test_a_volume_grows(backend: Backend) -> None:
    pool = backend.pool()
    backend.hypervisor.create_volume(pool, volume_xml("disk", MIB))
    with backend.can("resize_volume") as able:
        backend.hypervisor.resize_volume(pool, "disk", 4 * MIB)
    size = 4 * MIB if able else MIB
    assert int(fromstring(backend.volumes(pool)["disk"]).findtext("capacity") or 0) == size


@pytest.mark.parametrize(("form", "refused"), [("qcow2", True), ("raw", False)])
def test_a_volume_that_a_running_guest_has_open_grows_only_if_nothing_locks_it(
    backend: Backend, form: str, refused: bool
) -> None:
    pool = backend.pool()
    backend.hypervisor.create_volume(pool, volume_xml("disk", MIB, format=form))
    path = fromstring(backend.volumes(pool)["disk"]).findtext("target/path")
    disk = f"<driver name='qemu' type='{form}'/><source file='{path}'/><target dev='vda' bus='virtio'/>"
    uuid = backend.defined(devices=f"<disk type='file' device='disk'>{disk}</disk>").uuid
    backend.hypervisor.start(uuid)
    with backend.can("resize_volume") as able:
        if refused and able:
            with pytest.raises(DriverError):
                backend.hypervisor.resize_volume(pool, "disk", 4 * MIB)
        else:
            backend.hypervisor.resize_volume(pool, "disk", 4 * MIB)
    grown = MIB if refused or not able else 4 * MIB
    assert int(fromstring(backend.volumes(pool)["disk"]).findtext("capacity") or 0) == grown
    backend.hypervisor.power_off(uuid)
    with backend.can("resize_volume"):
        backend.hypervisor.resize_volume(pool, "disk", 8 * MIB)


def test_a_volume_that_a_running_guest_has_open_is_not_deleted(backend: Backend) -> None:
    """Nor is what it lies on."""
    pool = backend.pool()
    backend.hypervisor.create_volume(pool, volume_xml("below", MIB))
    below = fromstring(backend.volumes(pool)["below"]).findtext("target/path") or ""
    backend.hypervisor.create_volume(pool, volume_xml("disk", MIB, backing=below))
    path = fromstring(backend.volumes(pool)["disk"]).findtext("target/path")
    disk = f"<driver name='qemu' type='qcow2'/><source file='{path}'/><target dev='vda' bus='virtio'/>"
    uuid = backend.defined(devices=f"<disk type='file' device='disk'>{disk}</disk>").uuid
    backend.hypervisor.start(uuid)
    if not backend.lacks("locks on images"):
        for name in ("disk", "below"):
            with pytest.raises(DriverError, match="has this volume open"):
                backend.hypervisor.delete_volume(pool, name)
        assert set(backend.volumes(pool)) == {"below", "disk"}
    backend.hypervisor.power_off(uuid)
    for name in ("disk", "below"):
        backend.hypervisor.delete_volume(pool, name)
    assert backend.volumes(pool) == {}


def test_who_has_a_volume_by_a_definition_is_known(backend: Backend) -> None:
    """Whether it runs or not, whatever the definition calls it, and also what its disk lies on."""
    pool, users = backend.pool(), backend.hypervisor.users
    for name, on in (("below", ""), ("disk", "below"), ("spare", "below")):
        place = fromstring(backend.volumes(pool)[on]).findtext("target/path") or "" if on else ""
        backend.hypervisor.create_volume(pool, volume_xml(name, MIB, backing=place))
    path = fromstring(backend.volumes(pool)["disk"]).findtext("target/path")
    driver, target = "<driver name='qemu' type='qcow2'/>", "<target dev='vda' bus='virtio'/>"
    for kind, source in (("file", f"file='{path}'"), ("volume", f"pool='{pool}' volume='disk'")):
        guest = backend.defined(devices=f"<disk type='{kind}'>{driver}<source {source}/>{target}</disk>")
        below = () if backend.lacks("locks on images") else (guest.name,)
        assert (users(pool, "disk"), users(pool, "below"), users(pool, "spare")) == ((guest.name,), below, ())
        if kind == "file":
            backend.hypervisor.start(guest.uuid)
            assert (users(pool, "disk"), users(pool, "below")) == ((guest.name,), below)
            backend.hypervisor.power_off(guest.uuid)
        backend.hypervisor.undefine(guest.uuid)
        assert users(pool, "disk") == ()
    with pytest.raises(Absent):
        users(pool, "none")


def test_a_volume_is_written(backend: Backend) -> None:
    pool = backend.pool()
    data = bytes(range(256)) * 8192
    backend.hypervisor.create_volume(pool, volume_xml("seed", len(data), format="raw"))
    with backend.can("upload_volume"):
        backend.hypervisor.upload_volume(pool, "seed", data)
    if not backend.lacks("files"):
        assert Path(backend.directory / pool / "seed").read_bytes() == data


def test_more_than_a_volume_holds_is_refused(backend: Backend) -> None:
    pool = backend.pool()
    backend.hypervisor.create_volume(pool, volume_xml("seed", 4096, format="raw"))
    with pytest.raises(DriverError):
        backend.hypervisor.upload_volume(pool, "seed", bytes(4097))
    assert int(fromstring(backend.volumes(pool)["seed"]).findtext("capacity") or 0) == 4096


def test_what_is_not_there_is_absent(backend: Backend) -> None:
    hypervisor, pool, missing = backend.hypervisor, backend.pool(), f"pool-{uuid4().hex[:8]}"
    for call in (
        lambda: hypervisor.delete_pool(missing),
        lambda: hypervisor.create_volume(missing, volume_xml("disk", MIB)),
        lambda: hypervisor.delete_volume(missing, "disk"),
        lambda: hypervisor.delete_volume(pool, "disk"),
        lambda: hypervisor.resize_volume(pool, "disk", MIB),
        lambda: hypervisor.upload_volume(pool, "disk", b"data"),
    ):
        with pytest.raises(Absent) as caught:
            call()
        assert caught.value.subject
        assert caught.value.hint


@pytest.mark.parametrize("xml", ["", "<volume>", "not XML", "<volume><name>x</name></volume>"])
def test_what_is_no_volume_is_refused(backend: Backend, xml: str) -> None:
    pool = backend.pool()
    with pytest.raises(DriverError):
        backend.hypervisor.create_volume(pool, xml)
    assert backend.volumes(pool) == {}
