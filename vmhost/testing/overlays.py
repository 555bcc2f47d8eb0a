"""Disk files of the fake host: overlays, merging, and the variables of UEFI."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import PurePosixPath

from vmhost.model.errors import Absent, AlreadyThere, DriverError
from vmhost.model.observed import RawDomain
from vmhost.testing.guests import facts_in
from vmhost.testing.machine import Machine
from vmhost.testing.world import Domain, Pool, Volume, World
from vmhost.testing.xml import read, write


class FakeOverlays:
    """Disks of running guests that go on in other files, and files that are merged while they run."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def snapshot(self, uuid: str, files: Mapping[str, str]) -> None:
        """Let disks go on in other files, all or none. :raises Absent: the guest does not run."""
        with self._machine.at_work(changing=True) as world:
            domain = _running(world, uuid)
            now = {disk.target: disk.source for disk in facts_in(domain.live_xml).disks}
            for target, path in files.items():
                volume = world.volume_at(path)
                if target not in now:
                    raise DriverError(f"invalid argument: no disk named '{target}'", subject=domain.name)
                if volume is None or volume.backing != now[target]:
                    raise DriverError(f"Cannot access storage file '{path}'", subject=domain.name)
            for target, path in files.items():
                top, below = _volume(world, path), _volume(world, now[target])
                top.system = deepcopy(below.system)
                _move(domain, target, now[target], path)

    def commit(self, uuid: str, target: str, top: str, base: str) -> None:
        """Merge a file into the one below it. :raises Absent: the guest does not run."""
        with self._machine.at_work(changing=True) as world:
            domain = _running(world, uuid)
            source = next((d.source for d in facts_in(domain.live_xml).disks if d.target == target), "")
            chain = _chain(world, source)
            if top not in chain or base not in chain[chain.index(top) :]:
                text = f"invalid argument: could not find image '{top}' in chain for '{target}'"
                raise DriverError(text, subject=domain.name)
            _volume(world, base).system = deepcopy(_volume(world, top).system)
            if top == source:
                _move(domain, target, top, base)
            else:
                _volume(world, chain[chain.index(top) - 1]).backing = base


class FakeDiskFiles:
    """``ports.DiskFiles`` on a fake host."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def backing(self, path: str) -> str:
        with self._machine.at_work() as world:
            found = world.volume_at(path)
            if found is None and not world.file_exists(path):
                raise Absent("there is no such file", subject=path)
            return found.backing if found else ""

    def make_overlay(self, path: str, base: str, capacity: int) -> None:
        with self._machine.at_work(changing=True) as world:
            pool, name = _place(world, path)
            _volume(world, base)
            if name in pool.volumes:
                raise AlreadyThere("there is a file of that name", subject=path)
            pool.volumes[name] = Volume(name, capacity, format="qcow2", backing=base, backing_format="qcow2")

    def commit(self, top: str, base: str) -> None:
        with self._machine.at_work(changing=True) as world:
            for path in (top, base):
                _refuse_written(world, path)
            _volume(world, base).system = deepcopy(_volume(world, top).system)

    def written(self, path: str) -> bool:
        with self._machine.at_work() as world:
            found = world.volume_at(path)
            return found is not None and found.writes > 0

    def rebase(self, path: str, base: str) -> None:
        with self._machine.at_work(changing=True) as world:
            _refuse_written(world, path)
            _volume(world, path).backing = base

    def nvram(self, domain: RawDomain) -> bytes:
        with self._machine.at_work() as world:
            return world.nvram.get(domain.name, b"")

    def keep_nvram(self, domain: RawDomain, path: str) -> None:
        with self._machine.at_work(changing=True) as world:
            pool, name = _place(world, path)
            if name in pool.volumes:
                raise AlreadyThere("there is a file of that name", subject=path)
            data = world.nvram.get(domain.name, b"")
            pool.volumes[name] = Volume(name, capacity=len(data), format="raw", data=data)

    def same_nvram(self, domain: RawDomain, path: str) -> bool:
        with self._machine.at_work() as world:
            return _volume(world, path).data == world.nvram.get(domain.name, b"")

    def put_nvram(self, domain: RawDomain, path: str) -> None:
        with self._machine.at_work(changing=True) as world:
            found = world.domains.get(domain.uuid)
            if found is not None and found.state.active:
                raise DriverError("it runs; its UEFI variables were not touched", subject=domain.name)
            data = _volume(world, path).data
            if data:
                world.nvram[domain.name] = data
            else:
                world.nvram.pop(domain.name, None)


def write_nvram(world: World, domain: Domain) -> None:
    """Let the UEFI of a guest that starts note that it did, as real ones do in their own ways."""
    if facts_in(domain.xml).firmware == "uefi":
        starts = int(world.nvram.get(domain.name, b"0"))
        world.nvram[domain.name] = b"%08d" % (starts + 1)


def forget_nvram(world: World, domain: Domain) -> None:
    """Remove a guest's variables."""
    world.nvram.pop(domain.name, None)


def _running(world: World, uuid: str) -> Domain:
    domain = world.domains.get(uuid)
    if domain is None:
        raise Absent(f"Domain not found: no domain with matching uuid '{uuid}'", subject=uuid, hint="vmhost guest list")
    if not domain.state.active:
        raise Absent("it does not run", subject=domain.name, hint=f"vmhost guest start {domain.name}")
    return domain


def _volume(world: World, path: str) -> Volume:
    found = world.volume_at(path)
    if found is None:
        raise Absent("there is no such file", subject=path)
    return found


def _place(world: World, path: str) -> tuple[Pool, str]:
    place = PurePosixPath(path)
    found = next((pool for pool in world.pools.values() if pool.path == str(place.parent)), None)
    if found is None:
        raise Absent("there is no such directory", subject=path)
    return found, place.name


def _chain(world: World, path: str) -> list[str]:
    found = []
    while path:
        found.append(path)
        volume = world.volume_at(path)
        path = volume.backing if volume else ""
    return found


def _refuse_written(world: World, path: str) -> None:
    """Refuse as qemu-img does: a running QEMU locks the images that it has open."""
    if name := user_of(world, path):
        raise DriverError(f'qemu-img: Failed to get "write" lock; is {name} using {path}?')


def user_of(world: World, path: str) -> str:
    """Return the name of a running guest that has a file open, or empty."""
    for domain in world.domains.values():
        for disk in facts_in(domain.live_xml).disks if domain.live_xml else ():
            if path in _chain(world, disk.source):
                return domain.name
    return ""


def users_of(world: World, path: str) -> tuple[str, ...]:
    """Return the names of guests whose definitions, live or not, have a file as a disk or below one."""
    found, named = [], {f"{pool.name}/{volume.name}": pool.path_of(volume.name) for pool, volume in world.volumes()}
    for domain in world.domains.values():
        texts = filter(None, (domain.xml, domain.live_xml))
        sources = [disk.source for text in texts for disk in facts_in(text).disks]
        if any(path in _chain(world, named.get(source, source)) for source in sources):
            found.append(domain.name)
    return tuple(found)


def _move(domain: Domain, target: str, old: str, new: str) -> None:
    """Let a disk be another file, in what runs and in the definition if that has it, too."""
    domain.live_xml = _moved(domain.live_xml, target, old, new)
    if domain.persistent:
        domain.xml = _moved(domain.xml, target, old, new)


def _moved(xml: str, target: str, old: str, new: str) -> str:
    root = read(xml)
    for disk in root.iterfind("devices/disk"):
        found, source = disk.find("target"), disk.find("source")
        if found is None or source is None:
            continue
        if found.get("dev") == target and source.get("file") == old:
            source.set("file", new)
    return write(root)
