"""A ledger that is being written in while guests are placed one after another; what one guest costs stays small."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from vmhost.plan.ledger import Claim, Ledger, pages_each


@dataclass(frozen=True, slots=True)
class Wish:
    """What one guest wants. ``own`` are the vCPUs that want pCPUs of their own, ``shared`` counts the others.

    ``threads``: ``prefer``, ``isolate`` (whole cores, the other threads empty) or ``require`` (whole cores, filled).
    ``pins`` are pCPUs of the person's choice, ``keep`` those that it has now, ``keep_cells`` those of its memory;
    ``runs``: it is on them, and its memory does not move. ``extra`` is 1 when the rest of QEMU
    wants a pCPU of its own, ``keep_extra`` the one it has. ``bound``: memory comes from ``cells`` only, or from cells
    to be chosen when there are none. ``mirror``: the guest sees its pCPUs, so they are given in the order in which they
    lie. ``standing``: it is promised as much already. ``group`` names guests that
    should lie apart.
    """

    name: str
    policy: str = "shared"
    own: tuple[int, ...] = ()
    shared: int = 0
    threads: str = "prefer"
    pins: tuple[tuple[int, int], ...] = ()
    keep: tuple[tuple[int, int], ...] = ()
    keep_cells: frozenset[int] = frozenset()
    runs: bool = False
    extra: int = 0
    keep_extra: int = -1
    request: float = 0.0
    memory: int = 0
    guest_memory: int = 0
    page: int = 0
    cells: frozenset[int] = frozenset()
    bound: bool = False
    mirror: bool = False
    promised: bool = True
    standing: bool = False
    group: str = ""

    @property
    def ordinary(self) -> int:
        """The bytes that it takes of the host's ordinary memory."""
        return self.memory - (self.guest_memory if self.page else 0)


@dataclass(frozen=True, slots=True)
class Seat:
    """Where one guest is placed. ``extra`` is the pCPU of the rest of QEMU, -1 for none of its own; ``exclusive`` all
    that it has for itself; ``cells`` where its memory lies, empty for anywhere.
    """

    pins: tuple[tuple[int, int], ...] = ()
    extra: int = -1
    exclusive: frozenset[int] = frozenset()
    cells: tuple[int, ...] = ()


@dataclass(slots=True)
class Books:
    """What is left of a host. ``free`` may become somebody's own, ``pool`` is what shared vCPUs float over.

    ``demand`` is how many of the pool's pCPUs each cell must keep for guests bound to it; under -1 for all of them.
    """

    ledger: Ledger
    free: set[int]
    pool: set[int]
    holders: dict[int, str]
    cores: tuple[frozenset[int], ...]
    core_of: Mapping[int, frozenset[int]]
    place_of: Mapping[int, tuple[int, int]]
    in_cell: Mapping[int, frozenset[int]]
    shared: int = 0
    requests: float = 0.0
    promised: int = 0
    cell_free: dict[int, int] = field(default_factory=dict)
    pages_free: dict[tuple[int, int], int] = field(default_factory=dict)
    bound: dict[frozenset[int], float] = field(default_factory=dict)
    groups: dict[tuple[str, tuple[int, int]], int] = field(default_factory=dict)

    def take(self, wish: Wish, seat: Seat) -> None:
        """Write down where a guest was placed; what it shares was written down before."""
        for cpu in seat.exclusive:
            self.free.discard(cpu)
            self.pool.discard(cpu)
            self.holders[cpu] = wish.name
        if wish.promised and not wish.standing:
            self.promised += wish.ordinary
        for cell in seat.cells:
            if wish.page:
                key = cell, wish.page
                need = pages_each(wish.guest_memory, wish.page, len(seat.cells))
                self.pages_free[key] = self.pages_free.get(key, 0) - need
            else:
                self.cell_free[cell] = self.cell_free.get(cell, 0) - wish.memory // len(seat.cells)
        if wish.group:
            for place in {self.place_of[cpu] for cpu in seat.exclusive}:
                self.groups[wish.group, place] = self.groups.get((wish.group, place), 0) + 1

    def release(self, claim: Claim) -> None:
        """Give back what a guest has, since it is about to be placed anew; memory and what it shares were left out."""
        for cpu in claim.exclusive:
            if self.holders.get(cpu) == claim.name:
                del self.holders[cpu]
                self.free |= {cpu} & (self.ledger.usable - self.ledger.foreign)
                self.pool |= {cpu} & (self.ledger.usable - self.ledger.topology.isolated)
        self._count(claim, 1)

    def hold(self, claim: Claim) -> None:
        """Write down again what was released, since the guest stays where it is."""
        for cpu in claim.exclusive:
            self.holders.setdefault(cpu, claim.name)
        self.free -= claim.exclusive
        self.pool -= claim.exclusive
        self._count(claim, -1)

    def _count(self, claim: Claim, sign: int) -> None:
        for cell in claim.cells if claim.promised else ():
            if claim.page:
                key, pages = (cell, claim.page), pages_each(claim.guest_memory, claim.page, len(claim.cells))
                self.pages_free[key] = self.pages_free.get(key, 0) + sign * pages
            else:
                self.cell_free[cell] = self.cell_free.get(cell, 0) + sign * claim.memory // len(claim.cells)
        for place in {self.place_of[cpu] for cpu in claim.exclusive if cpu in self.place_of} if claim.group else ():
            self.groups[claim.group, place] = self.groups.get((claim.group, place), 0) - sign

    def expect(self, shared: int, request: float, cells: frozenset[int]) -> None:
        """Write down vCPUs that float, before anything is taken from the pool that they float over."""
        self.shared += shared
        self.requests += request
        if shared and cells and cells <= set(self.in_cell):
            self.bound[cells] = self.bound.get(cells, 0.0) + request

    def objection(self, taken: frozenset[int]) -> str:
        """Return why the pool cannot spare these pCPUs, or an empty text."""
        if not self.ledger.topology.cpus:
            return ""  # a hypervisor that says nothing of its pCPUs
        left, ratio = self.pool - taken, self.ledger.overcommit_cpus
        if self.shared and not left:
            return f"none would be left for the {self.shared} vCPUs that share"
        if self.requests > len(left) + 1e-9:
            return f"{len(left)} would be left, and {self.requests:g} are requested by guests that share"
        if ratio and self.shared > ratio * len(left) + 1e-9:
            return f"{self.shared} vCPUs would share {len(left)}, more than {ratio:g} each"
        for cells, request in self.bound.items():
            there = sum(1 for cpu in left if self.place_of[cpu][0] in cells)
            if there < max(1.0, request) - 1e-9:
                named = ", ".join(map(str, sorted(cells)))
                return f"{there} would be left in cell {named} for guests that are bound to it"
        return ""

    def room(self, wish: Wish, cells: Iterable[int]) -> str:
        """Return why these cells have not the memory that a guest wants of them, or an empty text."""
        chosen = sorted(cells)
        for cell in chosen:
            if wish.page:
                need = pages_each(wish.guest_memory, wish.page, len(chosen))
                have = self.pages_free.get((cell, wish.page), 0)
                if need > have:
                    return f"cell {cell} has {max(0, have)} free hugepages of {wish.page >> 20}M, {need} are needed"
            elif wish.bound and wish.memory // len(chosen) > self.cell_free.get(cell, 0):
                return (
                    f"cell {cell} has {max(0, self.cell_free.get(cell, 0)) >> 20}M of memory that nobody was promised"
                )
        return ""


def books_of(ledger: Ledger, wishes: Sequence[Wish] = ()) -> Books:
    """Return the books of a host as its ledger says.

    :param wishes: guests that are about to be placed: they have what they have until then, but what they share and how
        much memory they take follows from the wish. What stands already is promised before anything new.
    """
    placed = frozenset(wish.name for wish in wishes)
    others = [claim for name, claim in ledger.claims.items() if name not in placed]
    topology = ledger.topology
    holders = dict(ledger.holders)
    cores = topology.cores()
    books = Books(
        ledger=ledger,
        free=set(ledger.usable - frozenset(holders) - ledger.foreign),
        pool=set(ledger.pool),
        holders=holders,
        cores=cores,
        core_of={cpu: core for core in cores for cpu in core},
        place_of={cpu.id: (cpu.cell, cpu.cache) for cpu in topology.cpus if cpu.online},
        in_cell={cell.id: topology.in_cells([cell.id]) for cell in topology.cells},
        promised=sum(claim.ordinary for claim in others if claim.promised),
        cell_free={cell.id: ledger.cell_free(cell.id) for cell in topology.cells},
        pages_free={
            (cell.id, pages.size): ledger.pages_free(cell.id, pages.size)
            for cell in topology.cells
            for pages in cell.pages
        },
    )
    for claim in others:
        if claim.ours and claim.promised and claim.shared:
            books.expect(claim.shared, claim.request, claim.cells)
    for claim in ledger.claims.values():
        _note_group(books, claim)
    for wish in wishes:
        if wish.promised:
            books.expect(wish.shared, wish.request, wish.cells if wish.bound else frozenset())
        if wish.promised and wish.standing:
            books.promised += wish.ordinary
    return books


def _note_group(books: Books, claim: Claim) -> None:
    if claim.group:
        for place in {books.place_of[cpu] for cpu in claim.exclusive if cpu in books.place_of}:
            books.groups[claim.group, place] = books.groups.get((claim.group, place), 0) + 1
