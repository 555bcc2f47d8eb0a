"""The host's processors and memory, from libvirt's capabilities and what the kernel shows under ``/sys``.

https://libvirt.org/formatcaps.html; Documentation/ABI/stable/sysfs-devices-system-cpu and sysfs-devices-node of Linux.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from lxml import etree

from vmhost.model.topology import Cell, Cpu, Pages, Topology
from vmhost.model.units import parse_cpuset
from vmhost.render.document import read
from vmhost.render.parse.units import int_of, scaled, size_of

_SMALL_PAGE: Final = 4096
_FREE_PAGES: Final = re.compile(r"node/node(\d+)/hugepages/hugepages-(\d+)kB/free_hugepages")
_TOTAL_PAGES: Final = "node/node{cell}/hugepages/hugepages-{size}kB/nr_hugepages"


def parse_topology(capabilities: str, kernel: Mapping[str, str]) -> Topology:
    """Return what the host is made of.

    :param capabilities: libvirt's; it may have been asked long ago: which CPUs are online is the kernel's word.
    :param kernel: files below ``/sys/devices/system`` by their path; empty for a hypervisor that is not this machine.
    :raises DamagedData: the capabilities are not well-formed XML.
    """
    root = read(capabilities)
    cells = root.findall("host/topology/cells/cell")
    online = _set(kernel.get("cpu/online", ""))
    isolated = _set(kernel.get("cpu/isolated", ""))
    caches = _caches(root)
    clusters = _clusters(kernel)
    cpus = sorted(_cpus(cells, online, isolated, caches, clusters), key=lambda cpu: cpu.id)
    free = {
        (int(found[1]), int(found[2]) * 1024): int_of(text)
        for path, text in kernel.items()
        if (found := _FREE_PAGES.fullmatch(path))
    }
    return Topology(tuple(cpus), tuple(_cell(cell, free, kernel) for cell in cells))


def _set(text: str) -> frozenset[int]:
    try:
        return parse_cpuset(text.strip()) if text.strip() else frozenset()
    except ValueError:
        return frozenset()


def _caches(root: etree._Element) -> dict[int, int]:
    """Return the last-level cache of each CPU: the bank of the highest level that it is named in."""
    found: dict[int, tuple[int, int]] = {}
    for number, bank in enumerate(root.findall("host/cache/bank")):
        level = int_of(bank.get("level"))
        for cpu in _set(bank.get("cpus", "")):
            if found.get(cpu, (0, 0))[0] <= level:
                found[cpu] = (level, number)
    return {cpu: number for cpu, (_, number) in found.items()}


def _clusters(kernel: Mapping[str, str]) -> dict[int, int]:
    """Return the cluster of each CPU, named by its lowest CPU, where clusters are more than single cores."""
    found = {}
    for path, text in kernel.items():
        if (name := re.fullmatch(r"cpu/cpu(\d+)/topology/cluster_cpus_list", path)) and (cpus := _set(text)):
            found[int(name[1])] = min(cpus)
    return found


def _cpus(
    cells: list[etree._Element],
    online: frozenset[int],
    isolated: frozenset[int],
    caches: Mapping[int, int],
    clusters: Mapping[int, int],
) -> Iterator[Cpu]:
    for cell in cells:
        number = int_of(cell.get("id"))
        for cpu in cell.findall("cpus/cpu"):
            name = int_of(cpu.get("id"))
            siblings = _set(cpu.get("siblings", ""))
            up = name in online if online else bool(siblings)
            if not siblings or not up:
                # libvirt tells nothing but the number of a CPU that was offline when it was asked
                yield Cpu(name, number, siblings=frozenset({name}) if up else frozenset(), online=up)
                continue
            yield Cpu(
                id=name,
                cell=number,
                socket=int_of(cpu.get("socket_id")),
                die=int_of(cpu.get("die_id")),
                cluster=clusters.get(name, -1),
                cache=caches.get(name, -1),
                core=int_of(cpu.get("core_id")),
                siblings=siblings & online if online else siblings,
                isolated=name in isolated,
            )


def _cell(cell: etree._Element, free: Mapping[tuple[int, int], int], kernel: Mapping[str, str]) -> Cell:
    number = int_of(cell.get("id"))
    pages = []
    for found in cell.findall("pages"):
        size = scaled(found.get("size", ""), found.get("unit", "KiB"))
        if size > _SMALL_PAGE:
            path = _TOTAL_PAGES.format(cell=number, size=size // 1024)
            total = int_of(kernel[path]) if path in kernel else int_of(found.text)
            pages.append(Pages(size, total, free.get((number, size), -1)))
    return Cell(
        id=number,
        memory=size_of(cell.find("memory"), "KiB"),
        cpus=tuple(sorted(int_of(cpu.get("id")) for cpu in cell.findall("cpus/cpu"))),
        pages=tuple(pages),
        distances=tuple((int_of(one.get("id")), int_of(one.get("value"))) for one in cell.findall("distances/sibling")),
    )
