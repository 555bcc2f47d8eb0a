"""How a domain is held: to which pCPUs and cells, and by which limits; and what the kernel says of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from vmhost.model.shape import Shape

PERIOD: Final = 100_000
"""Microseconds in which a quota is counted: the kernel's own default, and libvirt's."""

LEAST_QUOTA: Final = 1_000
"""The smallest quota that libvirt takes (https://libvirt.org/formatdomain.html#cpu-tuning)."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """What a domain's ``cputune``, ``memtune``, ``numatune``, ``memoryBacking`` and ``iothreads`` say. The default:
    nothing at all.

    ``pins`` are (vCPU, pCPUs) and ``emulator`` pCPUs, written as ``0-3,8``; empty: anywhere. Quotas are microseconds
    in a :data:`PERIOD`: ``limit`` of the whole guest, ``vcpu_limit`` of each vCPU, ``emulator_limit`` of the rest of
    QEMU; 0: none. ``shares`` 0: as any other. ``hard_limit``, ``swap_limit`` and ``page`` are bytes, 0 for none.
    ``iothreads`` counts the threads that its disks are spread over, ``io`` are (I/O thread from 1, pCPUs).
    ``shape`` is what the guest sees of its place, None: whatever its definition says; it is read apart.
    """

    pins: tuple[tuple[int, str], ...] = ()
    emulator: str = ""
    shares: int = 0
    limit: int = 0
    vcpu_limit: int = 0
    emulator_limit: int = 0
    hard_limit: int = 0
    swap_limit: int = 0
    page: int = 0
    locked: bool = False
    cells: str = ""
    cell_mode: str = ""
    iothreads: int = 0
    io: tuple[tuple[int, str], ...] = ()
    shape: Shape | None = None


FREE: Final = Tuning()
"""A guest that nothing holds."""


@dataclass(frozen=True, slots=True)
class Held:
    """What the kernel says of a running guest; None and -1: it does not say.

    ``vcpus``, ``iothreads`` and ``emulator`` are the pCPUs that its threads may run on. Quotas are microseconds in a
    :data:`PERIOD`, 0 for none; ``memory_limit``, ``resident`` and ``locked`` are bytes, ``memory_limit`` 0 for none;
    ``shares`` are the kernel's own number. ``cells`` is how many bytes lie in each NUMA cell.
    ``waits`` are (vCPU, nanoseconds that it ran, nanoseconds that it was ready and no pCPU was free).
    """

    pid: int
    vcpus: tuple[tuple[int, frozenset[int]], ...] = ()
    emulator: frozenset[int] | None = None
    limit: int = -1
    vcpu_limit: int = -1
    emulator_limit: int = -1
    shares: int = -1
    memory_limit: int = -1
    resident: int = 0
    locked: int = -1
    cells: tuple[tuple[int, int], ...] = ()
    waits: tuple[tuple[int, int, int], ...] = ()
    iothreads: tuple[tuple[int, frozenset[int]], ...] = ()
