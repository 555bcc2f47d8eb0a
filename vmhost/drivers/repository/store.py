"""``backupports.Repositories`` on file systems: a point is whole and durable, or nobody sees it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import filterfalse
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vmhost.backupports import Tell
from vmhost.drivers.files import make_directory, os_errors, sync_directory, write_atomically
from vmhost.drivers.repository import (
    checking,
    copying,
    exposing,
    manifest,
    notes,
    packing,
    places,
    restoring,
    streaming,
)
from vmhost.drivers.repository.ground import Ground, free_at, id_at, readme_is_ours
from vmhost.model.errors import Absent, AlreadyThere, Conflict, DamagedData, Refused
from vmhost.model.points import Compression, Damage, Level, NewPoint, Point, PointFile, PointRef, RepositoryId

if TYPE_CHECKING:
    from filelock import FileLock

    from vmhost.model.backupsteps import DiskCopy
    from vmhost.model.layout import Layout

_MODE: Final = 0o711
_LOCK: Final = ".lock"
_NO_DIRECTORY: Final = "is a link, or something else that is no directory"


@dataclass(slots=True)
class _Begun:
    """A point that is being made; ``hashed``: its files whose hash is known since they were written."""

    point: Point
    lock: FileLock
    hashed: dict[str, PointFile] = field(default_factory=dict)


class FileRepositories:
    """Repositories on this machine's file systems."""

    def __init__(self, layout: Layout) -> None:
        self._ground = Ground(layout.state)
        self._begun: dict[PointRef, _Begun] = {}

    def look(self, path: str, *, new_id: str) -> RepositoryId:
        return self._ground.look(path, new_id)

    def make(self, path: str, id: str) -> None:  # noqa: A002 - the port's word
        self._ground.make(path, id)

    def points(self, path: str, guest: str = "") -> tuple[Point, ...]:
        found = []
        for above in _shelves(path, guest):
            for directory in _plain_below(above):
                with suppress(DamagedData):
                    found.append(notes.with_notes(manifest.read(directory, path)))
        return tuple(sorted(found, key=lambda point: (point.name, point.ref.guest, point.generation, point.taken)))

    def damaged(self, path: str, guest: str = "") -> tuple[Damage, ...]:
        found = [*_blocked(path, guest)]
        found += [damage for above in _shelves(path, guest) for damage in _not_understood(above, path)]
        if id_at(Path(path)) and not readme_is_ours(Path(path)):
            found.append(Damage("", places.README, "is not what it was"))
        return tuple(found)

    def begin(self, new: NewPoint) -> None:
        ref = new.point.ref
        if not id_at(Path(ref.repository)):
            raise Refused("the repository is gone", subject=ref.repository, hint="vmhost backup list")
        places.check_levels(ref)
        above = make_directory(places.points(ref), mode=_MODE, durable=True)
        lock = _lock(above, ref)
        try:
            _remove_abandoned(above)
            directory = places.begun(ref)
            with os_errors(directory, "begin a point"):
                directory.mkdir(mode=0o700)
                directory.chmod(_MODE)
                _write(directory / "domain.xml", new.domain_xml)
                if new.spec:
                    _write(directory / "spec.json", new.spec)
            for disk in new.point.disks:
                if disk.backing:
                    copying.create(directory / disk.file, disk.capacity, disk.backing)
        except BaseException:
            lock.release()
            raise
        self._begun[ref] = _Begun(new.point, lock)

    def copy(
        self,
        ref: PointRef,
        disk: DiskCopy,
        socket: str,
        tell: Tell,
        *,
        rate: int = 0,
        compression: Compression = "none",
    ) -> None:
        begun = self._mine(ref)
        target = places.begun(ref) / disk.file
        capacity = next(found.capacity for found in begun.point.disks if found.file == disk.file)
        patience = copying.patience(capacity, rate)
        copying.make(target)
        if socket and compression == "none":
            found = streaming.copy_export(socket, disk.target, target, capacity, tell, rate=rate, timeout=patience)
            begun.hashed[disk.file] = PointFile(disk.file, *found)
            return
        source, form = (copying.export_of(socket, disk.target), "raw") if socket else (disk.source, disk.format)
        copying.convert(
            *(source, form, target, lambda share: tell(int(share * capacity), capacity)),
            rate=rate,
            timeout=patience,
            compression=compression,
        )

    def pack(self, ref: PointRef, file: str, compression: Compression, tell: Tell, *, rate: int = 0) -> None:
        packing.pack(self._mine(ref).point, file, compression, tell, rate)

    def put(self, ref: PointRef, name: str, data: bytes) -> None:
        self._mine(ref)
        path = places.begun(ref) / name
        copying.make(path)
        with os_errors(path, "write"), path.open("r+b") as file:
            file.write(data.rstrip(b"\0"))
            file.truncate(len(data))  # seeds end in zeros

    def publish(self, ref: PointRef, documents: Mapping[str, str], tell: Tell, *, level: Level = "crash") -> Point:
        begun = self._mine(ref)
        point, directory, final = begun.point, places.begun(ref), places.published(ref)
        places.check_levels(ref)
        if os.path.lexists(final):
            raise AlreadyThere("the point is there", subject=ref.id, hint="vmhost backup list")
        with os_errors(directory, "publish a point"):
            for name, text in documents.items():
                _write(directory / name, text)
            _check_disks(point, directory)  # after which QEMU writes no more
            nvram = point.nvram if point.nvram and (directory / point.nvram).exists() else ""
            whole = replace(point, files=_hashed(directory, begun.hashed, tell), level=level, nvram=nvram)
            text = manifest.text_of(whole)
            write_atomically(directory / places.SUMS, manifest.sums_of(whole, text).encode())
            write_atomically(directory / places.MANIFEST, text.encode())
            directory.rename(final)
            sync_directory(final.parent)
        del self._begun[ref]
        begun.lock.release()
        return whole

    def discard(self, ref: PointRef) -> None:
        directory = places.begun(ref)
        try:
            places.check_levels(ref)
        except DamagedData as error:
            if ref in self._begun:
                raise
            raise Absent("no such point was begun", subject=ref.id) from error
        with os_errors(directory, "discard a point"):
            if ref in self._begun:
                self._begun.pop(ref).lock.release()
            if not places.plain_directory(directory):
                raise Absent("no such point was begun", subject=ref.id)
            shutil.rmtree(directory)

    def delete(self, ref: PointRef) -> None:
        """Delete a point: at once it is no point any more, and then its files go; also those that a killed one left."""
        directory, dying = places.published(ref), places.begun(ref)
        places.check_levels(ref)
        left = places.plain_directory(dying)
        with os_errors(directory, "delete a point"):
            if places.plain_directory(directory):
                if left:
                    shutil.rmtree(dying)
                directory.rename(dying)
                sync_directory(directory.parent)
            elif not left:
                raise Absent("there is no such point", subject=ref.id, hint="vmhost backup list")
            shutil.rmtree(dying)

    def verify(self, ref: PointRef, tell: Tell, known: Collection[str] = ()) -> tuple[Damage, ...]:
        return checking.verify(ref, tell, known)

    def note(self, ref: PointRef, **values: bool | str) -> None:
        notes.note(ref, **values)

    def read(self, ref: PointRef, name: str) -> str:
        return checking.read_document(ref, name)

    def need(self, ref: PointRef, file: str) -> int:
        return restoring.need(ref, file)

    def room(self, directory: str) -> int:
        return free_at(Path(directory))

    def restore(self, ref: PointRef, file: str, target: str, like: str, tell: Tell) -> None:
        restoring.restore(ref, file, Path(target), Path(like) if like else None, tell)

    def expose(self, ref: PointRef, file: str, socket: str) -> None:
        exposing.expose(ref, file, Path(socket))

    def conceal(self, socket: str) -> None:
        exposing.conceal(Path(socket))

    def overlay(self, path: str, socket: str, capacity: int) -> None:
        exposing.overlay(Path(path), socket, capacity)

    def bring(self, ref: PointRef, name: str, target: str) -> None:
        exposing.place(Path(target), checking.read_file(ref, name))

    def place(self, path: str, data: bytes) -> None:
        exposing.place(Path(path), data)

    def swap(self, path: str, new: str, kept: str) -> None:
        restoring.swap(Path(path), Path(new), Path(kept))

    def swapped(self, path: str, kept: str) -> bool:
        return restoring.swapped(Path(path), Path(kept))

    def written(self, path: str, kept: str) -> bool:
        return restoring.written(Path(path), Path(kept))

    def unswap(self, path: str, kept: str) -> None:
        restoring.unswap(Path(path), Path(kept))

    def remove(self, path: str) -> None:
        restoring.remove(Path(path))

    def kept(self, path: str) -> tuple[str, ...]:
        return restoring.kept(Path(path))

    def _mine(self, ref: PointRef) -> _Begun:
        if ref not in self._begun:
            raise Absent("no such point was begun", subject=ref.id, hint="vmhost backup list")
        return self._begun[ref]


def _shelves(path: str, guest: str) -> Iterator[Path]:
    """Yield the directories of points, of all guests or of one; nothing that is a symbolic link is followed."""
    root = Path(path)
    if not id_at(root):
        return
    for host in _plain_below(root / places.HOSTS):
        for found in _plain_below(host / "guests"):
            if guest in ("", found.name) and places.plain_directory(found / "points"):
                yield found / "points"


def _not_understood(above: Path, path: str) -> Iterator[Damage]:
    """Yield the points in a directory whose manifests cannot be understood, and their notes."""
    guest = above.parent.name
    yield from (Damage(entry.name, "", _NO_DIRECTORY, guest) for entry in _others_below(above))
    for directory in _plain_below(above):
        try:
            manifest.read(directory, path)
        except DamagedData as error:
            yield Damage(directory.name, Path(error.subject).name, error.message, guest)
    try:
        notes.read(above)
    except DamagedData as error:
        yield Damage(guest, notes.FILE, error.message)


def _blocked(path: str, guest: str) -> Iterator[Damage]:
    """Yield what lies where directories of hosts and guests, and of their points, should be."""
    root = Path(path)
    hosts = root / places.HOSTS
    if not id_at(root) or not os.path.lexists(hosts):
        return
    if not places.plain_directory(hosts):
        yield Damage(places.HOSTS, "", _NO_DIRECTORY)
    yield from (Damage(entry.name, "", _NO_DIRECTORY) for entry in _others_below(hosts))
    for host in _plain_below(hosts):
        guests = host / "guests"
        if os.path.lexists(guests) and not places.plain_directory(guests):
            yield Damage(host.name, "guests", _NO_DIRECTORY)
        its = [*_others_below(guests), *(one / "points" for one in _plain_below(guests))]
        for entry in its:
            uuid = entry.parent.name if entry.name == "points" else entry.name
            if guest in ("", uuid) and os.path.lexists(entry) and not places.plain_directory(entry):
                yield Damage(uuid, "", _NO_DIRECTORY, uuid)


def _plain_below(directory: Path) -> Iterator[Path]:
    return filter(places.plain_directory, _entries(directory))


def _others_below(directory: Path) -> Iterator[Path]:
    return filterfalse(places.plain_directory, _entries(directory))


def _entries(directory: Path) -> list[Path]:
    if not places.plain_directory(directory):
        return []
    with os_errors(directory, "look into"):
        return sorted(path for path in directory.iterdir() if not path.name.startswith("."))


def _lock(above: Path, ref: PointRef) -> FileLock:
    """Take the right to make points of a guest; it dies with us. :raises Conflict: another has it."""
    from filelock import FileLock, Timeout

    lock = FileLock(above / _LOCK, mode=0o600, thread_local=False)
    with os_errors(above, "lock"):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            hint = f"fuser -v {above / _LOCK}"
            raise Conflict("another vmhost takes a point of this guest", subject=ref.guest, hint=hint) from None
    return lock


def _remove_abandoned(above: Path) -> None:
    for entry in above.iterdir():
        if entry.name.startswith(places.NEW) and places.plain_directory(entry):
            with os_errors(entry, "remove"):
                shutil.rmtree(entry)


def _write(path: Path, text: str) -> None:
    """Write a new file; it is brought to the disk when its point is published."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)


def _hashed(directory: Path, known: Mapping[str, PointFile], tell: Tell) -> tuple[PointFile, ...]:
    """Hash every file of a point whose hash is not known, and bring each to the disk meanwhile.

    Nobody else may read it, whoever made it.
    """
    sizes = {path: path.stat().st_size for path in sorted(directory.iterdir())}
    for path, size in sizes.items():
        if size != known.get(path.name, PointFile(path.name, size, "")).size:
            text = f"has {size} bytes, was written with {known[path.name].size}"
            raise DamagedData(text, subject=str(path), hint="vmhost backup run")
    meter = copying.Meter(sum(size for path, size in sizes.items() if path.name not in known), tell)

    def hashed(path: Path) -> PointFile:
        return known.get(path.name) or PointFile(path.name, *copying.hash_file(path, meter.add))

    with ThreadPoolExecutor(4, thread_name_prefix="publish") as pool:
        synced = [pool.submit(copying.sync_file, path, 0o600) for path in sizes]
        found = tuple(pool.map(hashed, sizes))
        for one in synced:
            one.result()
    return found


def _check_disks(point: Point, directory: Path) -> None:
    """:raises DamagedData: a disk did not arrive as it should; a copier's exit code alone is no proof."""
    for disk in point.disks:
        if text := checking.disk_damage(directory / disk.file, disk):
            raise DamagedData(f"did not arrive whole: {text}", subject=f"{point.id}/{disk.file}")
