"""Storage pools and volumes of the fake host, with the XML that libvirt 9.0 gives of them."""

from __future__ import annotations

from collections.abc import Collection
from copy import deepcopy
from dataclasses import replace
from typing import Final

from lxml import etree

from vmhost.model.errors import Absent, AlreadyThere, DriverError
from vmhost.ports import RawPool
from vmhost.render.parse.units import size_of
from vmhost.testing.chance import drawn_uuid
from vmhost.testing.guests import facts_in
from vmhost.testing.machine import Machine
from vmhost.testing.overlays import user_of, users_of
from vmhost.testing.seed import MAGIC
from vmhost.testing.world import Pool, Volume, World
from vmhost.testing.xml import E, read, write

_EMPTY_QCOW2: Final = 200_704
"""What libvirt 9.0 gives as the allocation of a new qcow2 volume."""


class FakePools:
    """The storage pools of a fake host."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def all(self) -> tuple[RawPool, ...]:
        """Return all pools with their volumes."""
        with self._machine.at_work() as world:
            return tuple(_raw(world, pool) for _, pool in sorted(world.pools.items()))

    def holding(self, paths: Collection[str]) -> tuple[RawPool, ...]:
        """Return the pools that hold one of these volumes, with these volumes alone."""
        with self._machine.at_work() as world:
            pools = [_holding(pool, paths) for _, pool in sorted(world.pools.items()) if pool.active]
            return tuple(_raw(world, pool) for pool in pools if pool.volumes)

    def create(self, name: str, path: str) -> None:
        """Make a directory pool. :raises AlreadyThere: the name is taken."""
        with self._machine.at_work(changing=True) as world:
            if name in world.pools:
                hint = f"virsh pool-info {name}"
                raise AlreadyThere("there is a storage pool of that name", subject=name, hint=hint)
            other = next((pool.name for pool in world.pools.values() if pool.path == path), None)
            if other:
                raise DriverError(f"operation failed: Storage source conflict with pool: '{other}'", subject=name)
            world.pools[name] = Pool(name=name, uuid=drawn_uuid(world), path=path)

    def delete(self, name: str) -> None:
        """Delete an empty pool. :raises AlreadyThere: it holds something."""
        with self._machine.at_work(changing=True) as world:
            count = len(_pool(world, name).volumes)
            if count:
                text = f"the storage pool is not empty: it holds {count} volume{'' if count == 1 else 's'}"
                raise AlreadyThere(text, subject=name, hint=f"virsh vol-list {name}")
            del world.pools[name]

    def create_volume(self, pool: str, xml: str) -> None:
        """Create a volume. :raises AlreadyThere: one of that name is there."""
        volume = _described(read(xml))
        with self._machine.at_work(changing=True) as world:
            found = _active(world, pool)
            if volume.name in found.volumes:
                hint = f"virsh vol-info --pool {pool} {volume.name}"
                raise AlreadyThere(f"storage volume '{volume.name}' exists already", subject=volume.name, hint=hint)
            if volume.backing and not world.file_exists(volume.backing):
                text = f"inaccessible backing store volume {volume.backing}: No such file or directory"
                raise DriverError(text, subject=volume.name)
            below = world.volume_at(volume.backing) if volume.backing else None
            volume.system = deepcopy(below.system) if below else None
            found.volumes[volume.name] = volume

    def upload(self, pool: str, name: str, data: bytes) -> None:
        """Replace a raw volume's content."""
        with self._machine.at_work(changing=True) as world:
            volume = _volume(world, pool, name)
            if len(data) > volume.capacity:
                text = f"{len(data)} bytes do not fit into a volume of {volume.capacity}"
                raise DriverError(text, subject=name, hint=f"virsh vol-info --pool {pool} {name}")
            volume.data = data

    def resize(self, pool: str, name: str, capacity: int) -> None:
        """Grow a volume that no running guest has open."""
        with self._machine.at_work(changing=True) as world:
            volume = _volume(world, pool, name)
            _refuse_open(world, pool, volume)
            if capacity < volume.capacity:
                text = "Can't shrink capacity below current capacity unless shrink flag explicitly specified"
                raise DriverError(f"invalid argument: {text}", subject=f"{pool}/{name}")
            volume.capacity = capacity

    def users(self, pool: str, name: str) -> tuple[str, ...]:
        """Return the guests, running or not, whose definitions name a volume, or what lies on it."""
        with self._machine.at_work() as world:
            _volume(world, pool, name)
            return users_of(world, world.pools[pool].path_of(name))

    def delete_volume(self, pool: str, name: str) -> None:
        """Delete a volume. :raises DriverError: a running guest has it open."""
        with self._machine.at_work(changing=True) as world:
            _volume(world, pool, name)
            if user_of(world, f"{world.pools[pool].path}/{name}"):
                raise DriverError("a running guest has this volume open; it stays", subject=name, retryable=True)
            del world.pools[pool].volumes[name]


def _pool(world: World, name: str) -> Pool:
    if name not in world.pools:
        text = f"Storage pool not found: no storage pool with matching name '{name}'"
        raise Absent(text, subject=name, hint="virsh pool-list --all")
    return world.pools[name]


def _active(world: World, name: str) -> Pool:
    pool = _pool(world, name)
    if not pool.active:
        text = f"Requested operation is not valid: storage pool '{name}' is not active"
        raise DriverError(text, subject=name, hint=f"virsh pool-start {name}")
    return pool


def _volume(world: World, pool: str, name: str) -> Volume:
    volumes = _active(world, pool).volumes
    if name not in volumes:
        text = f"Storage volume not found: no storage vol with matching name '{name}'"
        raise Absent(text, subject=f"{pool}/{name}", hint="virsh pool-list --all")
    return volumes[name]


def _refuse_open(world: World, pool: str, volume: Volume) -> None:
    """Refuse as qemu-img does, which libvirt calls for what is not raw: a running QEMU locks the images it has open."""
    if volume.format == "raw":
        return
    path = world.pools[pool].path_of(volume.name)
    for domain in world.domains.values():
        if domain.live_xml and any(disk.source == path for disk in facts_in(domain.live_xml).disks):
            text = f"qemu-img: Could not open '{path}': Failed to get \"write\" lock; is {domain.name} using the image?"
            raise DriverError(f"internal error: {text}", subject=f"{pool}/{volume.name}")


def _described(root: etree._Element) -> Volume:
    """Return the new volume that an XML document describes."""
    kind = root.find("target/format")
    backing_kind = root.find("backingStore/format")
    name = root.findtext("name", "").strip()
    if root.tag != "volume" or not name or "/" in name:
        raise DriverError("XML error: missing or bad volume name", subject=name)
    if root.find("capacity") is None:
        raise DriverError("XML error: missing capacity element", subject=name)
    return Volume(
        name=name,
        capacity=size_of(root.find("capacity"), "bytes"),
        format="raw" if kind is None else kind.get("type", "raw"),
        backing=root.findtext("backingStore/path", ""),
        backing_format="" if backing_kind is None else backing_kind.get("type", ""),
        mode=root.findtext("target/permissions/mode", "0600"),
    )


def _holding(pool: Pool, paths: Collection[str]) -> Pool:
    return replace(pool, volumes={n: volume for n, volume in pool.volumes.items() if f"{pool.path}/{n}" in paths})


def _raw(world: World, pool: Pool) -> RawPool:
    shown = sorted(pool.volumes.items()) if pool.active else ()
    volumes = tuple(_volume_xml(world, pool, volume) for _, volume in shown)
    return RawPool(name=pool.name, active=pool.active, xml=_pool_xml(pool), volumes=volumes)


def _pool_xml(pool: Pool) -> str:
    used = sum(_allocation(volume) for volume in pool.volumes.values())
    sizes = {"capacity": pool.capacity, "allocation": used, "available": pool.capacity - used}
    root = E.pool(
        E.name(pool.name),
        E.uuid(pool.uuid),
        *(E(tag, str(size if pool.active else 0), unit="bytes") for tag, size in sizes.items()),
        E.source(),
        E.target(E.path(pool.path), _permissions("0711")),
        type="dir",
    )
    return write(root)


def _volume_xml(world: World, pool: Pool, volume: Volume) -> str:
    path = pool.path_of(volume.name)
    kind = "iso" if volume.data.startswith(MAGIC) else volume.format
    target = E.target(E.path(path), E.format(type=kind), _permissions(volume.mode), _timestamps(world))
    if kind == "qcow2":
        target.extend((E.compat("1.1"), E.clusterSize("65536", unit="B"), E.features()))
    allocation = _allocation(volume)
    root = E.volume(
        E.name(volume.name),
        E.key(path),
        E.capacity(str(volume.capacity), unit="bytes"),
        E.allocation(str(allocation), unit="bytes"),
        E.physical(str(allocation if kind == "qcow2" else volume.capacity), unit="bytes"),
        target,
        type="file",
    )
    if volume.backing:
        store = (E.path(volume.backing), E.format(type=volume.backing_format))
        root.append(E.backingStore(*store, _permissions("0644"), _timestamps(world)))
    return write(root)


def _allocation(volume: Volume) -> int:
    if volume.format != "qcow2":
        return -(-len(volume.data) // 4096) * 4096
    return _EMPTY_QCOW2 + (volume.capacity // 8 if volume.system else 0)


def _permissions(mode: str) -> etree._Element:
    return E.permissions(E.mode(mode), E.owner("0"), E.group("0"))


def _timestamps(world: World) -> etree._Element:
    moment = f"{world.now:.9f}"
    return E.timestamps(E.atime(moment), E.mtime(moment), E.ctime(moment), E.btime("0"))
