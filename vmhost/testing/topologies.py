"""Hosts of any shape, built: capabilities as libvirt words them, of machines that nobody has seen.

What is measured on real machines is captured elsewhere; nothing here claims to be that.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from lxml import etree

from vmhost.model.units import format_cpuset, parse_cpuset
from vmhost.testing.world import World
from vmhost.testing.xml import E, read, write

GIB = 1 << 30
SMALL = 4096


@dataclass(frozen=True, slots=True)
class Shape:
    """A machine: ``cells`` NUMA cells in ``sockets`` sockets, each cell of ``cores`` cores with ``threads`` threads.

    ``memory`` in bytes and ``pages`` (hugepages by size in bytes) are those of every cell, unless ``uneven`` names
    others by cell. ``caches`` cores share one last-level cache. CPUs are numbered as Linux does: the first thread of
    every core, then the second ones.
    """

    cells: int = 1
    sockets: int = 1
    cores: int = 4
    threads: int = 1
    memory: int = 8 * GIB
    caches: int = 0
    offline: frozenset[int] = frozenset()
    isolated: frozenset[int] = frozenset()
    pages: tuple[tuple[int, int], ...] = ()
    uneven: tuple[tuple[int, int], ...] = field(default=())

    @property
    def cpus(self) -> int:
        """How many pCPUs it has, the offline ones included."""
        return self.cells * self.cores * self.threads

    def memory_of(self, cell: int) -> int:
        """Return the memory of a cell in bytes."""
        return dict(self.uneven).get(cell, self.memory)

    def threads_of(self, core: int) -> tuple[int, ...]:
        """Return the pCPUs of a core, counted through all cells."""
        return tuple(core + thread * self.cells * self.cores for thread in range(self.threads))


def capabilities(shape: Shape) -> str:
    """Return the capabilities of a machine of that shape; guests and CPU models are those of a real host."""
    from vmhost.testing.hypervisor import captured

    root = read(captured("capabilities.xml"))
    topology, cache = root.find("host/topology"), root.find("host/cache")
    assert topology is not None
    assert cache is not None
    topology[:] = [E.cells(*(_cell(shape, cell) for cell in range(shape.cells)), num=str(shape.cells))]
    cache[:] = list(_banks(shape))
    return write(root)


def kernel(shape: Shape, *, free: dict[tuple[int, int], int] | None = None) -> dict[str, str]:
    """Return what the kernel of such a machine shows; ``free`` are hugepages by (cell, size), all of them if absent."""
    online = frozenset(range(shape.cpus)) - shape.offline
    found = {"cpu/online": format_cpuset(online), "cpu/isolated": format_cpuset(shape.isolated)}
    for cell in range(shape.cells):
        for size, total in shape.pages:
            place = f"node/node{cell}/hugepages/hugepages-{size // 1024}kB"
            found[f"{place}/nr_hugepages"] = str(total)
            found[f"{place}/free_hugepages"] = str((free or {}).get((cell, size), total))
    return found


def online_of(world: World) -> frozenset[int]:
    """Return the pCPUs of a fake host that are online."""
    if "cpu/online" in world.kernel:
        return parse_cpuset(world.kernel["cpu/online"])
    return frozenset(range(world.cpus))


def _cell(shape: Shape, cell: int) -> etree._Element:
    memory = shape.memory_of(cell)
    pages = ((SMALL, memory // SMALL), *shape.pages)
    cores = range(cell * shape.cores, (cell + 1) * shape.cores)
    distances = (E.sibling(id=str(other), value="10" if other == cell else "21") for other in range(shape.cells))
    numbers = sorted(cpu for core in cores for cpu in shape.threads_of(core))
    return E.cell(
        E.memory(str(memory // 1024), unit="KiB"),
        *(E.pages(str(count), unit="KiB", size=str(size // 1024)) for size, count in pages),
        E.distances(*distances),
        E.cpus(*(_cpu(shape, cell, cpu) for cpu in numbers), num=str(len(numbers))),
        id=str(cell),
    )


def _cpu(shape: Shape, cell: int, cpu: int) -> etree._Element:
    if cpu in shape.offline:
        return E.cpu(id=str(cpu))
    core = cpu % (shape.cells * shape.cores)
    siblings = set(shape.threads_of(core)) - shape.offline
    place = {"socket_id": str(cell * shape.sockets // shape.cells), "die_id": "0", "core_id": str(core % shape.cores)}
    return E.cpu(id=str(cpu), **place, siblings=format_cpuset(siblings))


def _banks(shape: Shape) -> Iterator[etree._Element]:
    share = shape.caches or shape.cores
    cores = list(range(shape.cells * shape.cores))
    for number, first in enumerate(range(0, len(cores), share)):
        cpus: Collection[int] = [cpu for core in cores[first : first + share] for cpu in shape.threads_of(core)]
        named = format_cpuset(set(cpus) - shape.offline)
        yield E.bank(id=str(number), level="3", type="both", size="32", unit="MiB", cpus=named)
