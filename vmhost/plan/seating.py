"""pCPUs for one guest: which cores, which of their threads, in which cells. Pure, deterministic, quick."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Final

from vmhost.plan.books import Books, Seat, Wish

Core = frozenset[int]
MOST_COMBINED: Final = 8
"""On hosts of more cells only neighbours are combined."""


def seat_for(books: Books, wish: Wish) -> Seat | None:
    """Return a place for a guest, or None: what it has now if that still is right, the best one otherwise."""
    for cells in cell_sets(books, wish):
        if cells is not None and books.room(wish, cells):
            continue
        if not wish.own:
            if _pool_in(books, wish, cells):
                return Seat(cells=tuple(sorted(cells or ())))
            continue
        for fixed in _fixed(books, wish):
            for allowed in _scopes(books, wish, cells):
                found = choose(books, wish, allowed, fixed)
                if found is not None and not books.objection(found.exclusive):
                    pins = found.pins if fixed or not wish.mirror else in_line(books, found.pins)
                    return Seat(pins, found.extra, found.exclusive, tuple(sorted(cells or ())))
    return None


def in_line(books: Books, pins: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    """Return the same pCPUs in the order in which they lie, so that neighbours among the vCPUs are neighbours."""
    lying = sorted((cpu for _, cpu in pins), key=lambda cpu: (books.place_of[cpu], min(books.core_of[cpu]), cpu))
    return tuple(zip((vcpu for vcpu, _ in pins), lying, strict=True))


def cell_sets(books: Books, wish: Wish) -> Iterator[frozenset[int] | None]:
    """Yield the sets of cells that a guest's memory may be bound to, the best first; None: it is bound to none.

    While it runs its memory stays where it is: no set is without the cells of pCPUs that it may keep, unless a person
    has chosen its pCPUs.
    """
    if not (wish.bound or wish.page):
        yield wish.cells or None
        return
    if wish.cells:
        yield wish.cells
        return
    stay = frozenset(books.place_of[cpu][0] for cpu in _kept(books, wish).values()) if wish.runs else frozenset()
    yield from (cells for cells in _sets(books, wish) if wish.pins or stay <= cells)


def _sets(books: Books, wish: Wish) -> Iterator[frozenset[int]]:
    """Yield what it has, the cells of its pCPUs, each cell for itself, and several together."""
    if wish.keep_cells and wish.keep_cells <= set(books.in_cell):
        yield wish.keep_cells
    cells = sorted(books.in_cell, key=lambda cell: (_crowd(books, wish, cell), cell))
    held = {books.place_of[cpu][0] for _, cpu in wish.keep if cpu in books.place_of}
    if held:
        yield frozenset(held)
    for cell in cells:
        yield frozenset({cell})
    if len(cells) <= MOST_COMBINED:
        for size in range(2, len(cells) + 1):
            yield from map(frozenset, combinations(cells, size))
        return
    for cell in cells:
        near = [other for other, _ in sorted(_distances(books, cell), key=lambda pair: (pair[1], pair[0]))]
        for size in range(2, len(near) + 1):
            yield frozenset(near[:size])


def _distances(books: Books, cell: int) -> tuple[tuple[int, int], ...]:
    found = books.ledger.topology.cell(cell)
    return found.distances if found and found.distances else tuple((other, 20) for other in books.in_cell)


def _crowd(books: Books, wish: Wish, cell: int) -> tuple[int, int]:
    """Return the rank of a cell: those with guests of the same group last; the fullest first, or with spread last."""
    together = sum(count for (group, place), count in books.groups.items() if group == wish.group and place[0] == cell)
    free = sum(1 for cpu in books.in_cell[cell] if cpu in books.free)
    return (together if wish.group else 0), (-free if books.ledger.spread else free)


def _pool_in(books: Books, wish: Wish, cells: frozenset[int] | None) -> bool:
    there = books.pool if cells is None else {cpu for cpu in books.pool if books.place_of[cpu][0] in cells}
    return bool(there) or not books.ledger.topology.cpus


def _fixed(books: Books, wish: Wish) -> Iterator[dict[int, int]]:
    """Yield which vCPUs stay where they are, by choice or because they run there: first all, then only the chosen."""
    pins = dict(wish.pins)
    if kept := _kept(books, wish):
        yield {**pins, **kept}
    yield pins


def _kept(books: Books, wish: Wish) -> dict[int, int]:
    """Return the pCPUs that its vCPUs have now and may have further on."""
    pins, wanted = dict(wish.pins), frozenset(wish.own)
    kept = {vcpu: cpu for vcpu, cpu in wish.keep if vcpu in wanted and vcpu not in pins and cpu in books.free}
    return {vcpu: cpu for vcpu, cpu in kept.items() if cpu not in pins.values()}


def _scopes(books: Books, wish: Wish, cells: frozenset[int] | None) -> Iterator[frozenset[int]]:
    """Yield the pCPUs to choose from, the best set first: what the kernel leaves alone, one cache, one cell, all."""
    allowed = frozenset(cpu for cpu in books.free if cells is None or books.place_of[cpu][0] in cells)
    alone = allowed & books.ledger.topology.isolated
    count = len(wish.own) + wish.extra
    if len(alone) >= count:
        yield alone
    for depth in (2, 1):
        groups: dict[tuple[int, ...], set[int]] = {}
        for cpu in allowed:
            groups.setdefault(books.place_of[cpu][:depth], set()).add(cpu)
        if len(groups) < 2 and depth == 2:
            continue
        for place in sorted(groups, key=lambda place: (*_rank(books, wish, place, allowed), place)):
            if len(groups[place]) >= count:
                yield frozenset(groups[place])
    yield allowed


def _rank(books: Books, wish: Wish, place: tuple[int, ...], allowed: frozenset[int]) -> tuple[int, ...]:
    """Return the rank of a cell or cache: where others of its group are last, then as full as is wished, cell first."""
    ranks = []
    for depth in range(1, len(place) + 1):
        inside = sum(1 for cpu in allowed if books.place_of[cpu][:depth] == place[:depth])
        ranks.append(-inside if books.ledger.spread else inside)
    together = sum(n for (group, at), n in books.groups.items() if group == wish.group and at[0] == place[0])
    closer = sum(n for (group, at), n in books.groups.items() if group == wish.group and at[: len(place)] == place)
    return (together, closer, *ranks) if wish.group else (0, 0, *ranks)


def choose(books: Books, wish: Wish, allowed: frozenset[int], fixed: Mapping[int, int]) -> Seat | None:
    """Return a place among these pCPUs with those vCPUs fixed, or None."""
    taken = frozenset(fixed.values())
    if not taken <= (allowed if not wish.pins else frozenset(books.free)):
        return None
    rest = [vcpu for vcpu in wish.own if vcpu not in fixed]
    if wish.threads == "isolate":
        return _isolated(books, wish, allowed, dict(fixed), rest)
    if wish.threads == "require":
        picked = _required(books, allowed, taken, len(rest))
    else:
        picked = _preferred(books, allowed - taken, taken, len(rest), spare=_spare(wish, allowed, taken))
    if picked is None:
        return None
    pins = {**fixed, **dict(zip(rest, picked, strict=True))}
    used = frozenset(pins.values())
    extra = -1
    if wish.extra:
        left = sorted(allowed - used, key=lambda cpu: (books.core_of[cpu] <= books.free, cpu))
        if not left:
            return None
        extra = wish.keep_extra if wish.keep_extra in left else left[0]
    return Seat(tuple(sorted(pins.items())), extra, used | ({extra} if extra >= 0 else frozenset()))


def _spare(wish: Wish, allowed: frozenset[int], taken: frozenset[int]) -> frozenset[int]:
    """Return what is left for the rest of QEMU, if that stays where it is."""
    return frozenset({wish.keep_extra}) & allowed - taken if wish.extra else frozenset()


def _whole(books: Books, allowed: frozenset[int]) -> list[Core]:
    """Return the cores of which every online thread may be taken."""
    return [core for core in books.cores if core <= allowed]


def _isolated(books: Books, wish: Wish, allowed: frozenset[int], pins: dict[int, int], rest: list[int]) -> Seat | None:
    cores = {books.core_of[cpu] for cpu in pins.values()}
    if len(cores) != len(pins) or not all(core <= books.free for core in cores):
        return None
    others = [core for core in _whole(books, allowed) if core not in cores]
    if wish.extra and wish.keep_extra >= 0:
        others.sort(key=lambda core: wish.keep_extra in core)
    if len(others) < len(rest) + wish.extra:
        return None
    # Cores of few threads first: nothing is lost by leaving theirs empty.
    others.sort(key=lambda core: (len(core), min(core)) if wish.keep_extra not in core else (999, 0))
    pins |= {vcpu: min(core) for vcpu, core in zip(rest, others, strict=False)}
    extra = -1
    if wish.extra:
        last = others[-1] if wish.keep_extra in others[-1] else others[len(rest)]
        extra = wish.keep_extra if wish.keep_extra in last else min(last)
        cores.add(last)
    used = cores | set(others[: len(rest)])
    return Seat(tuple(sorted(pins.items())), extra, frozenset(cpu for core in used for cpu in core))


def _required(books: Books, allowed: frozenset[int], taken: frozenset[int], count: int) -> list[int] | None:
    """Return threads that, with those taken, fill whole cores of several threads each."""
    begun = {books.core_of[cpu] for cpu in taken}
    if any(len(core) < 2 or not core <= frozenset(books.free) for core in begun):
        return None
    picked = sorted(cpu for core in begun for cpu in core if cpu not in taken)
    need = count - len(picked)
    if need < 0:
        return None
    others = [core for core in _whole(books, allowed) if len(core) > 1 and core not in begun]
    # Which numbers of threads can be made of whole cores, and by which (a host has cores of few sizes).
    made: dict[int, tuple[Core, ...]] = {0: ()}
    for core in sorted(others, key=lambda core: (-len(core), min(core))):
        if need in made:
            break
        for total, cores in list(made.items()):
            if total + len(core) <= need:
                made.setdefault(total + len(core), (*cores, core))
    if need not in made:
        return None
    return picked + [cpu for core in sorted(made[need], key=min) for cpu in sorted(core)]


def _preferred(
    books: Books, free: frozenset[int], taken: frozenset[int], count: int, *, spare: frozenset[int]
) -> list[int] | None:
    """Return threads: those beside its own first, then whole cores, and what remains from cores that are begun."""
    if len(free) < count:
        return None
    groups: dict[Core, list[int]] = {}
    for cpu in sorted(free, key=lambda cpu: (cpu in spare, cpu)):
        groups.setdefault(books.core_of[cpu], []).append(cpu)
    picked: list[int] = []
    beside = [core for core in groups if core & taken]
    whole = sorted((core for core in groups if core <= free and core not in beside), key=min)
    begun = sorted(
        (core for core in groups if core not in beside and not core <= free), key=lambda c: (len(groups[c]), min(c))
    )
    for core in beside:
        picked += groups[core]
    for core in whole:
        if len(picked) + len(core) <= count:
            picked += groups.pop(core)
    for core in (*begun, *(core for core in whole if core in groups)):
        picked += groups[core]
    return picked[:count]
