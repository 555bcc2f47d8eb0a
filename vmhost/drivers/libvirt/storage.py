"""Storage pools and their volumes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from errno import ENOENT, ENOTEMPTY
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, Final, TypeVar

import libvirt

from vmhost.drivers.imagelock import is_open
from vmhost.drivers.libvirt.connection import Connection, Handle
from vmhost.drivers.libvirt.documents import label_of, places_of, pool_xml, raw_capacity, uses
from vmhost.drivers.libvirt.errors import code_is, skipping, system_errno, translated
from vmhost.drivers.retries import tried
from vmhost.model.errors import AlreadyThere, DriverError, VmhostError

if TYPE_CHECKING:
    from vmhost.ports import RawPool

Pool = Any  # libvirt.virStoragePool
Volume = Any  # libvirt.virStorageVol
T = TypeVar("T")

_REFRESHED: Final = libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_DIR | libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_FS
_PATIENCE: Final = 60.0
_WHILE_OPEN: Final = 10.0
"""Seconds for programs that libvirt knows nothing of: who waits has the host's lock, and somebody's own never end."""
_CHUNK: Final = 1 << 18
_ZEROS: Final = bytes(_CHUNK)


class Busy(DriverError):
    """A volume is being built, copied or deleted by another call, perhaps of a client that has died."""


class Open(Busy):
    """A program has a volume open that is no guest's: most likely libvirt's own, which is done soon."""


class Pools:
    """The storage pools of one hypervisor."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def all(self) -> tuple[RawPool, ...]:
        """Return all pools with their volumes; what goes away meanwhile is left out."""
        return self._connection.read(_read_all, "storage pools")

    def holding(self, paths: Collection[str]) -> tuple[RawPool, ...]:
        """Return the pools that hold one of these volumes, with these volumes alone; what is in no pool is left out."""
        return self._connection.read(lambda handle: _read_holding(handle, paths), "volumes")

    def create(self, name: str, path: str) -> None:
        """Define, build, autostart and start a directory pool. :raises AlreadyThere: the name is taken."""

        def call(handle: Handle) -> None:
            _refuse_taken(handle, name)
            there = Path(path).exists()
            with translated(name):
                pool = handle.storagePoolDefineXML(pool_xml(name, path), 0)
            try:
                with translated(name):
                    pool.build(0)
                    pool.setAutostart(1)
                    pool.create(0)
            except BaseException:
                _unmake(pool, remove_directory=not there)
                raise

        self._connection.change(call, name)

    def delete(self, name: str) -> None:
        """Delete an empty pool with its directory. :raises AlreadyThere: it holds something; it goes on as it was."""
        self._change(name, _delete_pool)

    def create_volume(self, pool: str, xml: str) -> None:
        """Create a volume. :raises AlreadyThere: one of that name, or a file in its place, is there."""
        name = label_of(xml).name

        def call(found: Pool) -> None:
            _refuse_taken_volume(found, name)
            try:
                # Not VIR_STORAGE_VOL_CREATE_VALIDATE: libvirt 9.0 announces the flag and then refuses it.
                found.createXML(xml, 0)
            except libvirt.libvirtError as error:
                # With this code libvirt refuses before it makes anything: a file that it does not know is in the way.
                if code_is(error, libvirt.VIR_ERR_OPERATION_INVALID):
                    _refresh(found)
                    _refuse_taken_volume(found, name)
                raise

        self._change(pool, call, subject=name)

    def upload(self, pool: str, name: str, data: bytes) -> None:
        """Replace a volume's content. :raises DriverError: the data is longer than the volume; nothing was written."""

        def call(handle: Handle, volume: Volume) -> None:
            capacity = raw_capacity(volume.XMLDesc(0))
            if capacity and len(data) > capacity:
                message = f"{len(data)} bytes do not fit into a volume of {capacity}"
                raise DriverError(message, subject=name, hint=f"virsh vol-info --pool {quote(pool)} {quote(name)}")
            _send(handle, volume, data, max(capacity, len(data)))

        self._change_volume(pool, name, call)

    def resize(self, pool: str, name: str, capacity: int) -> None:
        """Grow a volume that no guest uses to ``capacity`` bytes."""
        self._change_volume(pool, name, lambda _, volume: volume.resize(capacity, 0))

    def delete_volume(self, pool: str, name: str) -> None:
        """Delete a volume, as soon as whoever builds, copies or reads it has ended.

        :raises Busy: that took longer than 60 s, or 10 s where libvirt knows of nobody; DriverError: a guest has it.
        """
        _patiently(lambda: self._change_volume(pool, name, _delete_volume))

    def users(self, pool: str, name: str) -> tuple[str, ...]:
        """Return the guests, running or not, whose definitions name a volume, or what lies on it."""

        def call(handle: Handle) -> tuple[str, ...]:
            found = handle.storagePoolLookupByName(pool)
            with translated(f"{pool}/{name}"):
                return tuple(_users(handle, {_lookup(found, name).path(), f"{pool}/{name}"}))

        return self._connection.read(call, pool)

    def _change(self, pool: str, act: Callable[[Pool], T], *, subject: str = "") -> T:
        def call(handle: Handle) -> T:
            found = handle.storagePoolLookupByName(pool)
            with translated(subject or pool):
                return act(found)

        return self._connection.change(call, pool)

    def _change_volume(self, pool: str, name: str, act: Callable[[Handle, Volume], T]) -> T:
        def call(handle: Handle) -> T:
            found = handle.storagePoolLookupByName(pool)
            with translated(f"{pool}/{name}"):
                return act(handle, _lookup(found, name))

        return self._connection.change(call, pool)


def _read_all(handle: Handle) -> tuple[RawPool, ...]:
    # The ports know every step of every plan; who only reads domains is spared them.
    from vmhost.ports import RawPool

    _refresh_all(handle)
    found: list[RawPool] = []
    for pool in handle.listAllStoragePools(0):
        with skipping(libvirt.VIR_ERR_NO_STORAGE_POOL):
            name, xml, volumes = pool.name(), pool.XMLDesc(0), _read_volumes(pool)
            found.append(RawPool(name, active=volumes is not None, xml=xml, volumes=volumes or ()))
    return tuple(found)


def _read_volumes(pool: Pool) -> tuple[str, ...] | None:
    """Return the XML of a pool's volumes; None: the pool is not active."""
    try:
        listed = pool.listAllVolumes(0) if pool.isActive() else None
    except libvirt.libvirtError as error:
        if not code_is(error, libvirt.VIR_ERR_OPERATION_INVALID) or pool.isActive():
            raise
        listed = None  # stopped meanwhile
    if listed is None:
        return None
    volumes: list[str] = []
    for volume in listed:
        with skipping(libvirt.VIR_ERR_NO_STORAGE_VOL, system=(ENOENT,)):
            volumes.append(volume.XMLDesc(0))
    return tuple(volumes)


def _read_holding(handle: Handle, paths: Collection[str]) -> tuple[RawPool, ...]:
    from vmhost.ports import RawPool

    found = _read_at(handle, paths)
    unseen = [path for path in paths if path not in found]
    if unseen:
        _refresh_all(handle)
        found |= _read_at(handle, unseen)
    held: dict[str, tuple[Pool, list[str]]] = {}
    for pool, text in found.values():
        held.setdefault(pool.name(), (pool, []))[1].append(text)
    pools: list[RawPool] = []
    for name, (pool, volumes) in held.items():
        with skipping(libvirt.VIR_ERR_NO_STORAGE_POOL):
            pools.append(RawPool(name, active=True, xml=pool.XMLDesc(0), volumes=tuple(volumes)))
    return tuple(pools)


def _read_at(handle: Handle, paths: Collection[str]) -> dict[str, tuple[Pool, str]]:
    """Return of the volumes at these places that libvirt knows the pool, and what is on the disk now as XML."""
    found: dict[str, tuple[Pool, str]] = {}
    pools: dict[str, Pool] = {}  # no two pools are of one directory
    for path in paths:
        with skipping(libvirt.VIR_ERR_NO_STORAGE_VOL, libvirt.VIR_ERR_NO_STORAGE_POOL, system=(ENOENT,)):
            volume, directory = handle.storageVolLookupByPath(path), path.rpartition("/")[0]
            if directory not in pools:
                pools[directory] = volume.storagePoolLookupByVolume()
            found[path] = (pools[directory], volume.XMLDesc(0))
    return found


def _refresh_all(handle: Handle) -> None:
    for pool in handle.listAllStoragePools(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE | _REFRESHED):
        _refresh(pool)


def _refresh(pool: Pool) -> None:
    """Let libvirt look into a directory again, as it does by itself after every upload.

    It refuses while a volume is being built, and a reader may not be allowed to: then its last look has to do.
    """
    with suppress(libvirt.libvirtError):
        pool.refresh(0)


def _lookup(pool: Pool, name: str) -> Volume:
    """Return a volume; one that libvirt has not seen yet is looked for once more."""
    try:
        return pool.storageVolLookupByName(name)
    except libvirt.libvirtError as error:
        if not code_is(error, libvirt.VIR_ERR_NO_STORAGE_VOL):
            raise
    _refresh(pool)
    return pool.storageVolLookupByName(name)


def _refuse_taken(handle: Handle, name: str) -> None:
    """:raises AlreadyThere: a pool has the name."""
    with skipping(libvirt.VIR_ERR_NO_STORAGE_POOL):
        handle.storagePoolLookupByName(name)
        raise AlreadyThere("there is a storage pool of that name", subject=name, hint=f"virsh pool-info {quote(name)}")


def _refuse_taken_volume(pool: Pool, name: str) -> None:
    """:raises AlreadyThere: a volume has the name."""
    with skipping(libvirt.VIR_ERR_NO_STORAGE_VOL):
        pool.storageVolLookupByName(name)
        hint = f"virsh vol-info --pool {quote(pool.name())} {quote(name)}"
        raise AlreadyThere("there is a volume of that name", subject=name, hint=hint)


def _unmake(pool: Pool, *, remove_directory: bool) -> None:
    """Take back what was made of a pool; the error that brought us here is the one that counts."""
    with suppress(libvirt.libvirtError):
        pool.destroy()
    if remove_directory:
        with suppress(libvirt.libvirtError):
            pool.delete(0)
    with suppress(libvirt.libvirtError):
        pool.undefine()


def _delete_pool(pool: Pool) -> None:
    name = pool.name()
    if not pool.XMLDesc(0).startswith("<pool type='dir'>"):
        # Deleting a pool of another type may delete a volume group or a disk's partitions.
        raise AlreadyThere("it is not a directory pool", subject=name, hint=f"virsh pool-dumpxml {quote(name)}")
    active = bool(pool.isActive())
    if active:
        _refresh(pool)
        count = pool.numOfVolumes()
        if count:
            raise _not_empty(name, f"it holds {count} volume{'' if count == 1 else 's'}")
        pool.destroy()
    try:
        pool.delete(0)
    except libvirt.libvirtError as error:
        if system_errno(error) != ENOENT:
            if active:
                pool.create(0)
            if system_errno(error) == ENOTEMPTY:
                raise _not_empty(name, str(error)) from error
            raise
    pool.undefine()


def _not_empty(name: str, why: str) -> AlreadyThere:
    return AlreadyThere(f"the storage pool is not empty: {why}", subject=name, hint=f"virsh vol-list {quote(name)}")


def _users(handle: Handle, places: Collection[str]) -> Iterator[str]:
    """Yield the names of guests that have a file, which may be called in several ways, as a disk or below one."""
    below: dict[str, str] = {}
    for domain in handle.listAllDomains(0):
        with skipping(libvirt.VIR_ERR_NO_DOMAIN):
            texts = [domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)]
            if domain.isActive():
                texts.append(domain.XMLDesc(0))
            named = {place for text in texts for place in places_of(text)}
            if any(path in places for place in named for path in _chain(handle, place, below)):
                yield domain.name()


def _chain(handle: Handle, place: str, below: dict[str, str]) -> Iterator[str]:
    """Yield a file and all that it lies on, each once, as their headers say; ``below`` is what was read before."""
    seen = set[str]()
    while place and place not in seen:
        yield place
        seen.add(place)
        if place not in below:
            below[place] = _backing(handle, place)
        place = below[place]


def _backing(handle: Handle, place: str) -> str:
    """Return what a file lies on; nothing where it cannot be read here."""
    if not place.startswith("/"):
        with suppress(libvirt.libvirtError):
            pool, _, volume = place.partition("/")
            return str(handle.storagePoolLookupByName(pool).storageVolLookupByName(volume).path())
        return ""
    from vmhost.drivers.images.inspection import inspect

    with suppress(VmhostError):
        if backing := inspect(Path(place)).backing_file:
            return str(Path(place).parent / backing)
    return ""


def _delete_volume(handle: Handle, volume: Volume) -> None:
    if is_open(volume.path()):
        _refuse_open(handle, volume)
    try:
        volume.delete(0)
    except libvirt.libvirtError as error:
        # The only reasons of the storage driver for this code: the volume is being built, or copied.
        if code_is(error, libvirt.VIR_ERR_OPERATION_INVALID):
            raise Busy(
                str(error), subject=volume.name(), hint=f"virsh vol-info {volume.path()}", retryable=True
            ) from error
        raise


def _refuse_open(handle: Handle, volume: Volume) -> None:
    """:raises DriverError: a guest writes into it: libvirt would unlink it all the same, and that were lost at its end;
    :raises Open: no guest does, so it is libvirt's own tools, perhaps for a client that has died.
    """
    path = volume.path()
    for domain in handle.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
        with skipping(libvirt.VIR_ERR_NO_DOMAIN):
            if uses(domain.XMLDesc(0), path):
                text = "a running guest has this volume open; it stays"
                raise DriverError(text, subject=volume.name(), hint="vmhost guest list", retryable=True)
    text = "a program has this volume open; it stays"
    raise Open(text, subject=volume.name(), hint=f"fuser -v {quote(path)}", retryable=True)


def _patiently(call: Callable[[], None]) -> None:
    """Call until the volume is no longer busy."""
    try:
        call()
    except Busy as error:
        patience = _WHILE_OPEN if isinstance(error, Open) else _PATIENCE
        tried(call, Busy, timeout=patience, wait_initial=0.02, wait_max=0.5, wait_jitter=0.02)


def _send(handle: Handle, volume: Volume, data: bytes, length: int) -> None:
    """Write ``data`` and zeros up to ``length`` over the volume."""
    stream = handle.newStream(0)
    volume.upload(stream, 0, length, 0)
    try:
        for chunk in _chunks(data, length):
            view = memoryview(chunk)
            while view:
                sent = stream.send(bytes(view))
                view = view[sent:]
        stream.finish()
    except BaseException:
        with suppress(libvirt.libvirtError):
            stream.abort()
        raise


def _chunks(data: bytes, length: int) -> Iterator[bytes]:
    for start in range(0, length, _CHUNK):
        piece = data[start : start + _CHUNK]
        yield piece + _ZEROS[: min(_CHUNK, length - start) - len(piece)]
