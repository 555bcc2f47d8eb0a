"""What holds the guests of a fake host: changed while they run, as libvirt does, and told as the kernel would."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from lxml import etree

from vmhost.model.errors import DriverError
from vmhost.model.stats import LinkLoad
from vmhost.model.tuning import PERIOD, Held, Tuning
from vmhost.model.units import format_cpuset, parse_cpuset
from vmhost.render.parse.domain import parse_domain
from vmhost.render.parse.tuning import iothread_ids, parse_tuning
from vmhost.testing.machine import Machine
from vmhost.testing.topologies import online_of
from vmhost.testing.world import World
from vmhost.testing.xml import ensure, ordered, read, write

_ORDER: Final = (
    *("shares", "period", "quota", "global_period", "global_quota", "emulator_period", "emulator_quota"),
    *("vcpupin", "emulatorpin", "iothreadpin"),
)


class FakeKernel:
    """``ports.Kernel`` of a fake host."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def processors(self) -> Mapping[str, str]:
        with self._machine.at_work() as world:
            return {"cpu/online": format_cpuset(online_of(world)), **world.kernel}

    def held(self) -> Mapping[str, Held]:
        with self._machine.at_work() as world:
            online = online_of(world)
            running = [domain for domain in world.domains.values() if domain.live_xml]
            return {one.uuid: _held(one.number, one.live_xml, online) for one in running}

    def pressure(self) -> Mapping[str, float]:
        return {"cpu": 0.0, "memory": 0.0, "io": 0.0}

    def traffic(self) -> Mapping[str, LinkLoad]:
        with self._machine.at_work() as world:
            return dict(world.traffic)


def _held(number: int, xml: str, online: frozenset[int]) -> Held:
    tuning, facts = parse_tuning(xml), parse_domain(xml)
    pins = dict(tuning.pins)
    return Held(
        pid=1000 + number,
        vcpus=tuple((vcpu, _allowed(pins.get(vcpu, ""), online)) for vcpu in range(facts.vcpus)),
        emulator=_allowed(tuning.emulator, online),
        iothreads=tuple((one, _allowed(dict(tuning.io).get(one, ""), online)) for one in iothread_ids(xml)),
        limit=tuning.limit,
        vcpu_limit=tuning.vcpu_limit,
        emulator_limit=tuning.emulator_limit,
        shares=tuning.shares or 1024,
        memory_limit=tuning.hard_limit,
        resident=facts.memory,
        locked=facts.memory if tuning.locked else 0,
        cells=tuple(_lies(tuning.cells, facts.memory)),
    )


def _lies(cells: str, memory: int) -> Iterator[tuple[int, int]]:
    """Yield how much lies in each of the cells that it comes from, in equal parts; in the first one of any."""
    chosen = sorted(parse_cpuset(cells)) if cells else [0]
    yield from ((cell, memory // len(chosen)) for cell in chosen)


def _allowed(text: str, online: frozenset[int]) -> frozenset[int]:
    return parse_cpuset(text) & online if text else online


def check_pins(world: World, name: str, tuning: Tuning) -> None:
    """Refuse what the kernel refuses: pins on CPUs that are not there. :raises DriverError: with libvirt's words."""
    online = online_of(world)
    for text in (*(cpus for _, cpus in (*tuning.pins, *tuning.io)), tuning.emulator):
        if text and not parse_cpuset(text) & online:
            raise DriverError(f"cannot set CPU affinity on process: Invalid argument ({text})", subject=name)


def tuned(xml: str, tuning: Tuning, online: frozenset[int]) -> str:
    """Return the XML of a running domain that is held so from now on; hugepages and locking stay as they are."""
    root = read(xml)
    place = ensure(root, "cputune")
    _number(place, "shares", tuning.shares)
    for kind, quota in (("global_", tuning.limit), ("", tuning.vcpu_limit), ("emulator_", tuning.emulator_limit)):
        _number(place, f"{kind}period", PERIOD if quota else 0)
        _number(place, f"{kind}quota", quota)
    for old in (*place.findall("vcpupin"), *place.findall("emulatorpin"), *place.findall("iothreadpin")):
        place.remove(old)
    count = parse_domain(root).vcpus
    for vcpu, cpus in tuning.pins:
        if vcpu < count:
            etree.SubElement(place, "vcpupin", vcpu=str(vcpu), cpuset=cpus)
    if tuning.emulator:
        etree.SubElement(place, "emulatorpin", cpuset=tuning.emulator)
    io = dict(tuning.io)
    for thread in iothread_ids(xml):
        if cpus := io.get(thread, tuning.emulator):
            etree.SubElement(place, "iothreadpin", iothread=str(thread), cpuset=cpus)
    ordered(place, _ORDER)
    if len(place) == 0:
        root.remove(place)
    _memory(root, tuning)
    return write(root)


def _memory(root: etree._Element, tuning: Tuning) -> None:
    memory = ensure(root, "memtune")
    for tag, size in (("hard_limit", tuning.hard_limit), ("swap_hard_limit", tuning.swap_limit)):
        _number(memory, tag, size // 1024)
        if size:
            ensure(memory, tag).set("unit", "KiB")
    if len(memory) == 0:
        root.remove(memory)
    cells = root.find("numatune/memory")
    if cells is not None and tuning.cells:
        cells.set("nodeset", tuning.cells)


def _number(place: etree._Element, tag: str, number: int) -> None:
    found = place.find(tag)
    if number:
        ensure(place, tag).text = str(number)
    elif found is not None:
        place.remove(found)
