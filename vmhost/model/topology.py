"""What a host's processors and memory are made of: sockets, caches, cores, threads, NUMA cells, hugepages."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Cpu:
    """One pCPU as the kernel numbers it. ``cache`` is its last-level cache, ``cluster`` its cluster; -1: not known.

    ``siblings`` are the threads of its core, itself included. An offline one has neither place nor siblings.
    ``isolated``: the kernel puts nothing there by itself (``isolcpus=``).
    """

    id: int
    cell: int
    socket: int = 0
    die: int = 0
    cluster: int = -1
    cache: int = -1
    core: int = 0
    siblings: frozenset[int] = frozenset()
    online: bool = True
    isolated: bool = False


@dataclass(frozen=True, slots=True)
class Pages:
    """The hugepages of one size in one cell; ``size`` in bytes. ``free`` -1: not known."""

    size: int
    total: int
    free: int = -1


@dataclass(frozen=True, slots=True)
class Cell:
    """One NUMA cell; ``memory`` in bytes, ``distances`` to every cell as firmware tells them (10 is itself)."""

    id: int
    memory: int
    cpus: tuple[int, ...] = ()
    pages: tuple[Pages, ...] = ()
    distances: tuple[tuple[int, int], ...] = ()

    def pages_of(self, size: int) -> Pages:
        """Return the hugepages of that size; there may be none."""
        return next((found for found in self.pages if found.size == size), Pages(size, 0, 0))


@dataclass(frozen=True, slots=True)
class Topology:
    """All pCPUs and cells of a host, by number; an empty one is that of a hypervisor that does not say."""

    cpus: tuple[Cpu, ...] = ()
    cells: tuple[Cell, ...] = ()

    @property
    def online(self) -> frozenset[int]:
        """The pCPUs that can run something."""
        return frozenset(cpu.id for cpu in self.cpus if cpu.online)

    @property
    def isolated(self) -> frozenset[int]:
        """The pCPUs that run only what is pinned to them."""
        return frozenset(cpu.id for cpu in self.cpus if cpu.isolated and cpu.online)

    @property
    def memory(self) -> int:
        """The memory of all cells, in bytes."""
        return sum(cell.memory for cell in self.cells)

    def cores(self) -> tuple[frozenset[int], ...]:
        """Return the online threads of every core, in order of their lowest number."""
        online = self.online
        seen = dict.fromkeys(cpu.siblings & online for cpu in self.cpus if cpu.online)
        return tuple(seen)

    def cell(self, number: int) -> Cell | None:
        """Return the cell of that number, or None."""
        return next((cell for cell in self.cells if cell.id == number), None)

    def in_cells(self, cells: Iterable[int]) -> frozenset[int]:
        """Return the online pCPUs of these cells."""
        wanted = frozenset(cells)
        return frozenset(cpu.id for cpu in self.cpus if cpu.online and cpu.cell in wanted)


NO_TOPOLOGY: Final = Topology()
"""A hypervisor that says nothing of its processors."""
