"""How a domain is held, written into its definition; what others put beside it stays."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from lxml import etree

from vmhost.model.tuning import PERIOD, Tuning
from vmhost.render.document import child, drop, read, write
from vmhost.render.parse.domain import DISK_ALIAS, alias_of
from vmhost.render.parse.tuning import parse_tuning
from vmhost.render.shape import set_shape
from vmhost.render.views import iothread_of

_KIB: Final = 1024
_QUOTAS: Final = (("global_", "limit"), ("", "vcpu_limit"), ("emulator_", "emulator_limit"))
_ORDER: Final = (
    *("shares", "period", "quota", "global_period", "global_quota", "emulator_period", "emulator_quota"),
    *("iothread_period", "iothread_quota", "vcpupin", "emulatorpin", "iothreadpin"),
)
_MEMTUNE: Final = ("hard_limit", "soft_limit", "min_guarantee", "swap_hard_limit")
_BACKING: Final = ("hugepages", "nosharepages", "locked", "source", "access", "allocation", "discard")


def with_tuning(xml: str, tuning: Tuning) -> str:
    """Return the definition held so; one that is held so already comes back unchanged in what it says.

    :raises DamagedData: it is not well-formed XML.
    """
    root = read(xml)
    found = parse_tuning(root)
    if found != replace(tuning, shape=None):
        vcpu = root.find("vcpu")
        if vcpu is not None:
            vcpu.attrib.pop("cpuset", None)
        _cputune(root, tuning)
        _memtune(root, tuning)
        _backing(root, tuning)
        _numatune(root, tuning)
    if found.iothreads != tuning.iothreads:
        drop(root.find("iothreadids"))
        _text(root, "iothreads", tuning.iothreads)
        _spread_disks(root, tuning.iothreads)
    if tuning.shape is not None:
        set_shape(root, tuning.shape)
    return write(root)


def with_disks_spread(xml: str, iothreads: int) -> str:
    """Return the definition with our disks dealt out to so many I/O threads.

    :raises DamagedData: it is not well-formed XML.
    """
    root = read(xml)
    _spread_disks(root, iothreads)
    return write(root)


def tuning_elements(tuning: Tuning) -> tuple[str, ...]:
    """Return the elements of a new definition as text, for the template ``parts/tuning.xml.j2``."""
    root = etree.Element("domain")
    for build in (_memtune, _backing, _cputune, _numatune):
        build(root, tuning)
    _text(root, "iothreads", tuning.iothreads)
    return tuple(etree.tostring(element, encoding="unicode") for element in root)


def _cputune(root: etree._Element, tuning: Tuning) -> None:
    place = child(root, "cputune")
    _text(place, "shares", tuning.shares)
    for kind, name in _QUOTAS:
        quota = getattr(tuning, name)
        _text(place, f"{kind}period", PERIOD if quota else 0)
        _text(place, f"{kind}quota", quota)
    for pin in (*place.findall("vcpupin"), *place.findall("emulatorpin"), *place.findall("iothreadpin")):
        drop(pin)
    for vcpu, cpus in tuning.pins:
        etree.SubElement(place, "vcpupin", vcpu=str(vcpu), cpuset=cpus)
    if tuning.emulator:
        etree.SubElement(place, "emulatorpin", cpuset=tuning.emulator)
    for thread, cpus in tuning.io:
        etree.SubElement(place, "iothreadpin", iothread=str(thread), cpuset=cpus)
    _ordered(place, _ORDER)
    _drop_empty(place)


def _spread_disks(root: etree._Element, iothreads: int) -> None:
    """Spread our disks over the I/O threads, one after another; what others attached stays where it is."""
    disks = (disk for disk in root.findall("devices/disk") if alias_of(disk).startswith(DISK_ALIAS))
    for index, disk in enumerate(disks):
        driver = child(disk, "driver")
        driver.attrib.pop("iothread", None)
        if thread := iothread_of(index, iothreads):
            driver.set("iothread", str(thread))


def _memtune(root: etree._Element, tuning: Tuning) -> None:
    place = child(root, "memtune")
    for tag, size in (("hard_limit", tuning.hard_limit), ("swap_hard_limit", tuning.swap_limit)):
        _text(place, tag, size // _KIB)
        if size:
            child(place, tag).set("unit", "KiB")
    _ordered(place, _MEMTUNE)
    _drop_empty(place)


def _backing(root: etree._Element, tuning: Tuning) -> None:
    place = child(root, "memoryBacking")
    drop(place.find("hugepages"))
    drop(place.find("locked"))
    if tuning.page:
        pages = etree.SubElement(place, "hugepages")
        etree.SubElement(pages, "page", size=str(tuning.page // _KIB), unit="KiB")
    if tuning.locked:
        etree.SubElement(place, "locked")
    _ordered(place, _BACKING)
    _drop_empty(place)


def _numatune(root: etree._Element, tuning: Tuning) -> None:
    place = child(root, "numatune")
    drop(place.find("memory"))
    if tuning.cells:
        place.insert(0, etree.Element("memory", mode=tuning.cell_mode or "strict", nodeset=tuning.cells))
    _drop_empty(place)


def _text(place: etree._Element, tag: str, number: int) -> None:
    if number:
        child(place, tag).text = str(number)
    else:
        drop(place.find(tag))


def _ordered(place: etree._Element, tags: tuple[str, ...]) -> None:
    rank = {tag: number for number, tag in enumerate(tags)}
    place[:] = sorted(place, key=lambda element: rank.get(str(element.tag), len(rank)))


def _drop_empty(place: etree._Element) -> None:
    if len(place) == 0:
        drop(place)
