"""What a guest sees of its processors and cells, written into a definition and read back.

https://libvirt.org/formatdomain.html#cpu-model-and-topology, #numa-node-tuning
"""

from __future__ import annotations

from typing import Final

from lxml import etree

from vmhost.model.shape import GuestCell, Shape
from vmhost.model.units import format_cpuset, parse_cpuset
from vmhost.render.document import child, drop, read, write
from vmhost.render.parse.units import int_of, size_of

_PARTS: Final = ("sockets", "dies", "cores", "threads")
_CLUSTERS: Final = "clusters"
"""What newer libvirt puts between dies and cores; their product with the others must be the vCPUs."""


def set_shape(root: etree._Element, shape: Shape) -> None:
    """Give a domain these processors and cells, and bind each cell's memory to the host's."""
    topology = child(child(root, "cpu"), "topology")
    for part in _PARTS:
        topology.set(part, str(getattr(shape, part)))
    _no_clusters(topology)
    _drop_cells(root)
    if not shape.cells:
        return
    numa, tune = child(child(root, "cpu"), "numa"), child(root, "numatune")
    for number, cell in enumerate(shape.cells):
        place = etree.SubElement(numa, "cell", id=str(number))
        if cell.vcpus:
            place.set("cpus", cell.vcpus)
        place.set("memory", str(cell.memory // 1024))
        place.set("unit", "KiB")
        if cell.distances:
            distances = etree.SubElement(place, "distances")
            for other, value in enumerate(cell.distances):
                etree.SubElement(distances, "sibling", id=str(other), value=str(value))
        etree.SubElement(tune, "memnode", cellid=str(number), mode="strict", nodeset=str(cell.host))


def flat(xml: str) -> str:
    """Return a definition without the host's picture: one socket of cores, and no cells."""
    root = read(xml)
    _drop_cells(root)
    topology = root.find("cpu/topology")
    if topology is not None:
        for part in _PARTS:
            topology.set(part, "1")
        _no_clusters(topology)
        topology.set("cores", root.findtext("vcpu", "1"))
    return write(root)


def parse_shape(xml: str) -> Shape:
    """Return what a definition shows of processors and cells. :raises DamagedData: it is not well-formed XML."""
    root = read(xml)
    topology = root.find("cpu/topology")
    told = {} if topology is None else {part: int_of(topology.get(part)) or 1 for part in _PARTS}
    hosts = {int_of(node.get("cellid")): int_of(node.get("nodeset")) for node in root.findall("numatune/memnode")}
    cells = root.findall("cpu/numa/cell")
    return Shape(
        **told,
        cells=tuple(_cell(cell, hosts.get(number, -1)) for number, cell in enumerate(cells)) if len(cells) > 1 else (),
    )


def _cell(cell: etree._Element, host: int) -> GuestCell:
    far = {int_of(one.get("id")): int_of(one.get("value")) for one in cell.findall("distances/sibling")}
    memory = etree.Element("memory", unit=cell.get("unit", "KiB"))
    memory.text = cell.get("memory", "0")
    cpus = cell.get("cpus", "")
    return GuestCell(
        vcpus=format_cpuset(parse_cpuset(cpus)) if cpus else "",
        memory=size_of(memory, "KiB"),
        host=host,
        distances=tuple(value for _, value in sorted(far.items())),
    )


def _no_clusters(topology: etree._Element) -> None:
    if topology.get(_CLUSTERS) is not None:
        topology.set(_CLUSTERS, "1")


def _drop_cells(root: etree._Element) -> None:
    drop(root.find("cpu/numa"))
    tune = root.find("numatune")
    for node in root.findall("numatune/memnode"):
        drop(node)
    if tune is not None and len(tune) == 0:
        drop(tune)
