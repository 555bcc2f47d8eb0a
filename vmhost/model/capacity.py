"""What a host has, who has it, and what would still fit, as the faces show it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CpuRow:
    """One pCPU. ``use``: ``shared``, ``own`` (somebody's alone), ``empty`` (the idle thread of somebody's core),
    ``reserve``, ``isolated`` (by the kernel, and free), ``offline``. ``guests`` are those that may run there by a pin.
    """

    id: int
    cell: int
    socket: int
    cache: int
    siblings: str
    use: str
    guests: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PagesRow:
    """Hugepages of one size in one cell; ``free`` ones are neither taken nor promised."""

    size: int
    total: int
    free: int


@dataclass(frozen=True, slots=True)
class CellRow:
    """One NUMA cell; ``memory`` and ``unbound`` in bytes, ``unbound`` that which no guest is bound to."""

    id: int
    memory: int
    unbound: int
    cpus: str
    pages: tuple[PagesRow, ...] = ()


@dataclass(frozen=True, slots=True)
class GuestShare:
    """What one guest has; ``memory`` in bytes, QEMU's own included."""

    name: str
    policy: str
    own: str
    shared: int
    request: float
    memory: int
    promised: bool
    active: bool


@dataclass(frozen=True, slots=True)
class Fit:
    """How many more guests of one kind would fit, and what is in the way of one more."""

    kind: str
    count: int
    then: str


@dataclass(frozen=True, slots=True)
class Taken:
    """How much of something is taken, both in its own unit: ``cpu`` in pCPUs, ``memory`` and ``storage NAME`` in bytes,
    ``network NAME`` in bits a second. From ``threshold`` percent on it runs short.
    """

    what: str
    part: float
    whole: float
    threshold: int


@dataclass(frozen=True, slots=True)
class Starved:
    """A guest that does not get the pCPUs that it wants. ``share`` is the part of the time in which a vCPU of it, the
    one that waits most, was ready and had to wait; ``by`` who ran most on the pCPUs that it may use, perhaps itself.
    """

    name: str
    vcpu: int
    share: float
    by: str


@dataclass(frozen=True, slots=True)
class Capacity:
    """The whole picture. Sizes in bytes; ``free`` is what may still be promised, ``all_run`` what would be promised if
    every guest ran; ``after_reboot`` why not everything that starts with the host would come up; ``taken`` what has a
    threshold, ``short`` which of it is beyond. ``starved`` and ``pressure`` (percent of ten seconds in which something
    waited) are there when it was measured.
    """

    cpus: tuple[CpuRow, ...]
    cells: tuple[CellRow, ...]
    guests: tuple[GuestShare, ...]
    memory: int
    reserve: int
    promised: int
    free: int
    pool: str
    sharing: int
    fits: tuple[Fit, ...] = ()
    after_reboot: tuple[str, ...] = ()
    short: tuple[str, ...] = ()
    loose: tuple[str, ...] = ()
    starved: tuple[Starved, ...] = ()
    pressure: tuple[tuple[str, float], ...] = ()
    taken: tuple[Taken, ...] = ()
    all_run: int = 0
