"""``backupports`` on a fake host: what disks hold is a text, and so is what points hold of them."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from copy import deepcopy
from dataclasses import asdict, replace
from hashlib import sha256
from typing import TYPE_CHECKING

from vmhost.backupports import Tell
from vmhost.model.errors import Absent, AlreadyThere, DamagedData, DriverError, Refused
from vmhost.model.points import (
    KEPT,
    BackupProgress,
    Bitmap,
    Checkpoint,
    Compression,
    Damage,
    DiskSize,
    Level,
    NewPoint,
    Point,
    PointDisk,
    PointFile,
    PointRef,
    RepositoryId,
    Tracking,
    beneath,
)
from vmhost.testing import guests
from vmhost.testing.exposed import FakeExposed
from vmhost.testing.world import Domain, Repository, StoredPoint, Volume, World
from vmhost.testing.xml import read

if TYPE_CHECKING:
    from vmhost.model.backupsteps import DiskCopy
    from vmhost.testing.machine import Machine

HOST = "fakehost00000000"
FREE = 100 << 30


class FakeBackups:
    """Backup jobs and checkpoints of a fake host. Bitmaps go when QEMU ends, unless it ends in good order."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def tracking(self, uuid: str) -> Tracking:
        with self._machine.at_work() as world:
            domain = _find(world, uuid)
            disks = guests.facts_of(domain).disks
            volumes = {disk.target: world.volume_at(disk.source) for disk in disks}
            return Tracking(
                checkpoints=tuple(Checkpoint(name, xml=f"<domaincheckpoint>{name}") for name in domain.checkpoints),
                bitmaps=_bitmaps(domain) if domain.state.active else (),
                sizes=tuple(DiskSize(target, found.capacity, 1 << 20) for target, found in volumes.items() if found),
                job=domain.backup,
            )

    def begin(self, uuid: str, xml: str, checkpoint_xml: str) -> None:
        with self._machine.at_work(changing=True) as world:
            domain = _find(world, uuid)
            if domain.backup:
                raise AlreadyThere("a backup job runs already", subject=domain.name)
            since = read(xml).findtext("incremental")
            if since and since not in domain.checkpoints:
                text = f"Domain checkpoint not found: Checkpoint '{since}' for incremental backup not found"
                raise DriverError(text, subject=domain.name)
            domain.backup = xml
            if checkpoint_xml:
                domain.checkpoints.append(read(checkpoint_xml).findtext("name", ""))
            if since:  # QEMU has written everything by the time that somebody looks
                domain.backup = ""

    def progress(self, uuid: str) -> BackupProgress:
        with self._machine.at_work() as world:
            return BackupProgress("running" if _find(world, uuid).backup else "done", 1, 1)

    def end(self, uuid: str) -> None:
        with self._machine.at_work(changing=True) as world:
            domain = _find(world, uuid)
            if not domain.backup:
                raise Absent("no backup job runs", subject=domain.name)
            domain.backup = ""

    def drop(self, uuid: str, name: str) -> None:
        with self._machine.at_work(changing=True) as world:
            domain = _find(world, uuid)
            if name not in domain.checkpoints:
                raise Absent("there is no such checkpoint", subject=name)
            domain.checkpoints.remove(name)

    def drop_bitmap(self, uuid: str, source: str, name: str) -> None:
        with self._machine.at_work(changing=True) as world:
            bitmaps = _find(world, uuid).orphaned_bitmaps
            if [source, name] not in bitmaps:
                raise Absent("there is no such bitmap", subject=name)
            bitmaps.remove([source, name])


class FakeRepositories(FakeExposed):
    """Repositories on a fake host, whose files are texts."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def look(self, path: str, *, new_id: str) -> RepositoryId:
        with self._machine.at_work() as world:
            found = world.repositories.get(path)
            return RepositoryId(path, found.id if found else new_id, HOST, known=found is not None, free=FREE)

    def make(self, path: str, id: str) -> None:  # noqa: A002 - the port's word
        with self._machine.at_work(changing=True) as world:
            if path in world.repositories:
                raise AlreadyThere("there is a repository", subject=path)
            world.repositories[path] = Repository(id)

    def points(self, path: str, guest: str = "") -> tuple[Point, ...]:
        with self._machine.at_work() as world:
            found = world.repositories.get(path, Repository("")).points.values()
            read_back = (point_from(one.text, path) for one in found if one.published and one.text)
            chosen = (point for point in read_back if guest in ("", point.ref.guest))
            return tuple(sorted(chosen, key=lambda point: (point.name, point.ref.guest, point.generation)))

    def damaged(self, path: str, guest: str = "") -> tuple[Damage, ...]:
        """A manifest that is no text is damaged."""
        with self._machine.at_work() as world:
            points = world.repositories.get(path, Repository("")).points.items()
            keys = (key.split("/") for key, stored in points if stored.published and not stored.text)
            return tuple(Damage(one, "manifest.json", "is missing", uuid) for uuid, one in keys if guest in ("", uuid))

    def begin(self, new: NewPoint) -> None:
        with self._machine.at_work(changing=True) as world:
            ref = new.point.ref
            if ref.repository not in world.repositories:
                raise Refused("the repository is gone", subject=ref.repository)
            points = world.repositories[ref.repository].points
            for key in [key for key, one in points.items() if not one.published and key.startswith(f"{ref.guest}/")]:
                del points[key]
            points[_key(ref)] = StoredPoint(
                _text(new.point), files={"domain.xml": new.domain_xml, "spec.json": new.spec}
            )
            for disk in new.point.disks:
                if disk.backing:
                    _copy(world, points[_key(ref)], disk.file, disk.source)

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
        with self._machine.at_work(changing=True) as world:
            stored = _stored(world, ref)
            tell(0, 1)
            _copy(world, stored, disk.file, disk.source)

    def pack(self, ref: PointRef, file: str, compression: Compression, tell: Tell, *, rate: int = 0) -> None:
        """What a text says stays the same, however it is packed."""
        with self._machine.at_work(changing=True) as world:
            if file not in _stored(world, ref).files:
                raise Absent("holds no such disk", subject=file)
            tell(1, 1)

    def put(self, ref: PointRef, name: str, data: bytes) -> None:
        with self._machine.at_work(changing=True) as world:
            _stored(world, ref).files[name] = data.decode()

    def publish(self, ref: PointRef, documents: Mapping[str, str], tell: Tell, *, level: Level = "crash") -> Point:
        with self._machine.at_work(changing=True) as world:
            stored = _stored(world, ref)
            stored.files |= documents
            files = tuple(PointFile(name, len(text), _hash(text)) for name, text in sorted(stored.files.items()))
            tell(1, 1)
            point = point_from(stored.text, ref.repository)
            nvram = point.nvram if point.nvram in stored.files else ""
            whole = replace(point, files=files, level=level, nvram=nvram)
            stored.text, stored.published = _text(whole), True
            return whole

    def discard(self, ref: PointRef) -> None:
        with self._machine.at_work(changing=True) as world:
            _stored(world, ref)
            del world.repositories[ref.repository].points[_key(ref)]

    def delete(self, ref: PointRef) -> None:
        with self._machine.at_work(changing=True) as world:
            _stored(world, ref, published=True)
            del world.repositories[ref.repository].points[_key(ref)]

    def verify(self, ref: PointRef, tell: Tell, known: Collection[str] = ()) -> tuple[Damage, ...]:
        found: list[Damage] = []
        with self._machine.at_work() as world:
            point = point_from(_stored(world, ref, published=True).text, ref.repository)
            tell(1, 1)
            links = (point, *beneath(point, {one.ref: one for one in self.points(ref.repository, ref.guest)}))
            if gone := links[-1].parent:
                return (Damage(ref.id, "", f"lies on {gone}, which is not there"),)
            for link in links:
                files = _stored(world, link.ref, published=True).files
                wrong = [file for file in link.files if _hash(files.get(file.name, "")) != file.sha256]
                text = "its hash is another one: it was changed"
                found += [Damage(link.id, file.name, text) for file in wrong if link.id not in known]
        return tuple(found)

    def note(self, ref: PointRef, **values: bool | str) -> None:
        with self._machine.at_work(changing=True) as world:
            stored = _stored(world, ref, published=True)
            stored.text = json.dumps({**json.loads(stored.text), **values}, sort_keys=True)

    def read(self, ref: PointRef, name: str) -> str:
        with self._machine.at_work() as world:
            files = _stored(world, ref, published=True).files
            if name not in files:
                raise Absent(f"holds no {name}", subject=ref.id)
            return files[name]

    def need(self, ref: PointRef, file: str) -> int:
        with self._machine.at_work() as world:
            point = point_from(_stored(world, ref, published=True).text, ref.repository)
            return sum(disk.capacity for disk in point.disks if disk.file == file)

    def room(self, directory: str) -> int:
        del directory
        return FREE

    def restore(self, ref: PointRef, file: str, target: str, like: str, tell: Tell) -> None:
        if damages := self.verify(ref, tell):
            raise DamagedData(f"is not restorable: {damages[0]}", subject=ref.id)
        with self._machine.at_work(changing=True) as world:
            if world.volume_at(target):
                raise AlreadyThere("is there already", subject=target)
            disk = next(disk for disk in self.points(ref.repository, ref.guest) if disk.id == ref.id)
            capacity = next(one.capacity for one in disk.disks if one.file == file)
            old = _volume(world, like) if like else Volume("", capacity, "qcow2")
            stored = _stored(world, ref, published=True)
            system = deepcopy(stored.systems.get(file))
            made = replace(old, data=stored.files[file].encode(), backing="", backing_format="", system=system)
            _put(world, target, made)

    def swap(self, path: str, new: str, kept: str) -> None:
        with self._machine.at_work(changing=True) as world:
            if world.volume_at(kept):
                raise AlreadyThere("cannot keep: it is there already", subject=kept)
            _volume(world, new).writes = _volume(world, path).writes
            _rename(world, path, kept)
            _rename(world, new, path)

    def swapped(self, path: str, kept: str) -> bool:
        with self._machine.at_work() as world:
            return bool(world.volume_at(path) and world.volume_at(kept))

    def written(self, path: str, kept: str) -> bool:
        with self._machine.at_work() as world:
            return _volume(world, path).writes != _volume(world, kept).writes

    def unswap(self, path: str, kept: str) -> None:
        with self._machine.at_work(changing=True) as world:
            _volume(world, kept)
            _rename(world, kept, path)

    def remove(self, path: str) -> None:
        with self._machine.at_work(changing=True) as world:
            _volume(world, path)
            _take(world, path)

    def kept(self, path: str) -> tuple[str, ...]:
        with self._machine.at_work() as world:
            paths = sorted(pool.path_of(volume.name) for pool, volume in world.volumes())
            return tuple(found for found in paths if found.startswith(f"{path}{KEPT}"))


def point_from(text: str, path: str) -> Point:
    """Return the point that :func:`_text` wrote."""
    data = json.loads(text)
    data["ref"] = PointRef(**{**data["ref"], "repository": path})
    data["disks"] = tuple(PointDisk(**disk) for disk in data["disks"])
    data["files"] = tuple(PointFile(**file) for file in data["files"])
    return Point(**data)


def _text(point: Point) -> str:
    return json.dumps(asdict(point), sort_keys=True)


def _hash(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def _key(ref: PointRef) -> str:
    return f"{ref.guest}/{ref.id}"


def _stored(world: World, ref: PointRef, *, published: bool = False) -> StoredPoint:
    found = world.repositories.get(ref.repository, Repository("")).points.get(_key(ref))
    if found is None or found.published != published:
        raise Absent("there is no such point", subject=ref.id)
    return found


def _find(world: World, uuid: str) -> Domain:
    if uuid not in world.domains:
        raise Absent(f"Domain not found: no domain with matching uuid '{uuid}'", subject=uuid)
    return world.domains[uuid]


def _bitmaps(domain: Domain) -> tuple[Bitmap, ...]:
    sources = [disk.source for disk in guests.facts_of(domain).disks]
    tracked = [Bitmap(source, name) for source in sources for name in domain.checkpoints]
    return (*tracked, *(Bitmap(source, name) for source, name in domain.orphaned_bitmaps))


def _copy(world: World, stored: StoredPoint, file: str, path: str) -> None:
    volume = _volume(world, path)
    stored.files[file] = volume.data.decode(errors="replace")
    if volume.system:
        stored.systems[file] = deepcopy(volume.system)


def _volume(world: World, path: str) -> Volume:
    found = world.volume_at(path)
    if found is None:
        raise Absent("cannot read: no such file", subject=path)
    return found


def _put(world: World, path: str, volume: Volume) -> None:
    directory, _, name = path.rpartition("/")
    pool = next(pool for pool in world.pools.values() if pool.path == directory)
    volume.name = name
    pool.volumes[name] = volume


def _take(world: World, path: str) -> Volume:
    pool, volume = next((pool, one) for pool, one in world.volumes() if pool.path_of(one.name) == path)
    return pool.volumes.pop(volume.name)


def _rename(world: World, path: str, other: str) -> None:
    _put(world, other, _take(world, path))
