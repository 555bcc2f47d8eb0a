"""What drills ask of repositories on a fake host: points that are read at sockets, and overlays on these."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

from vmhost.model.errors import Absent, AlreadyThere
from vmhost.testing.world import Repository, StoredPoint, Volume, World

if TYPE_CHECKING:
    from vmhost.model.points import PointRef
    from vmhost.testing.machine import Machine


class FakeExposed:
    """A part of :class:`vmhost.testing.repository.FakeRepositories`."""

    _machine: Machine

    def expose(self, ref: PointRef, file: str, socket: str) -> None:
        with self._machine.at_work(changing=True) as world:
            stored = _stored(world, ref)
            if file not in stored.files:
                raise Absent(f"holds no {file}", subject=ref.id)
            world.exposed[socket] = [ref.repository, f"{ref.guest}/{ref.id}", file]

    def conceal(self, socket: str) -> None:
        with self._machine.at_work(changing=True) as world:
            if world.exposed.pop(socket, None) is None:
                raise Absent("nobody reads a point there", subject=socket)

    def overlay(self, path: str, socket: str, capacity: int) -> None:
        with self._machine.at_work(changing=True) as world:
            if socket not in world.exposed:
                raise Absent("nobody reads a point there", subject=socket)
            repository, key, file = world.exposed[socket]
            stored = world.repositories[repository].points[key]
            data, system = stored.files[file].encode(), deepcopy(stored.systems.get(file))
            _put(world, path, Volume("", capacity, "qcow2", data=data, system=system))

    def bring(self, ref: PointRef, name: str, target: str) -> None:
        with self._machine.at_work(changing=True) as world:
            _put(world, target, Volume("", 1, "raw", data=_stored(world, ref).files[name].encode()))

    def place(self, path: str, data: bytes) -> None:
        with self._machine.at_work(changing=True) as world:
            _put(world, path, Volume("", len(data), "raw", data=data))


def _stored(world: World, ref: PointRef) -> StoredPoint:
    found = world.repositories.get(ref.repository, Repository("")).points.get(f"{ref.guest}/{ref.id}")
    if found is None or not found.published:
        raise Absent("there is no such point", subject=ref.id)
    return found


def _put(world: World, path: str, volume: Volume) -> None:
    directory, _, volume.name = path.rpartition("/")
    if world.volume_at(path) is not None:
        raise AlreadyThere("is there already", subject=path)
    next(pool for pool in world.pools.values() if pool.path == directory).volumes[volume.name] = volume
