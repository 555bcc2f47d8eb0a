"""Every way to seat a few guests on a small host: the answer is no only when there is none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from itertools import product
from typing import Final

from vmhost.plan.books import Books, Seat, Wish
from vmhost.plan.seating import cell_sets, choose, in_line

SMALL: Final = 8
"""So many cores a host may have for all ways to be tried."""

_THREADS: Final = 3


def small(books: Books) -> bool:
    """Whether all ways can be tried."""
    return len(books.cores) <= SMALL and all(len(core) <= _THREADS for core in books.cores)


def seat_all(books: Books, wishes: Sequence[Wish]) -> list[Seat] | None:
    """Return a seat for each of these guests, all of which want pCPUs of their own, or None when there is no way."""
    return _search(books, wishes, 0, set())


def _search(books: Books, wishes: Sequence[Wish], number: int, failed: set[object]) -> list[Seat] | None:
    if number == len(wishes):
        return []
    key = number, _signature(books)
    if key in failed:
        return None
    for seat in ways(books, wishes[number]):
        after = _copied(books)
        after.take(wishes[number], seat)
        rest = _search(after, wishes, number + 1, failed)
        if rest is not None:
            return [seat, *rest]
    failed.add(key)
    return None


def ways(books: Books, wish: Wish) -> Iterator[Seat]:
    """Yield the seats of one guest, of those that differ by the names of equal cores only one."""
    seen: set[object] = set()
    fixed = dict(wish.pins)
    for cells in cell_sets(books, wish):
        if cells is not None and books.room(wish, cells):
            continue
        allowed = frozenset(cpu for cpu in books.free if cells is None or books.place_of[cpu][0] in cells)
        for chosen in _choices(books, wish, allowed, frozenset(fixed.values())):
            found = choose(books, wish, chosen | frozenset(fixed.values()), fixed)
            if found is None or books.objection(found.exclusive):
                continue
            key = cells, _shape(books, found.exclusive)
            if key not in seen:
                seen.add(key)
                pins = found.pins if fixed or not wish.mirror else in_line(books, found.pins)
                yield Seat(pins, found.extra, found.exclusive, tuple(sorted(cells or ())))


def _choices(books: Books, wish: Wish, allowed: frozenset[int], fixed: frozenset[int]) -> Iterator[frozenset[int]]:
    """Yield sets of pCPUs that have exactly as many as are wanted, whole cores where those are wanted."""
    need = len(wish.own) + wish.extra - len(fixed)
    isolated = books.ledger.topology.isolated
    parts: list[list[frozenset[int]]] = []
    for core in books.cores:
        free = sorted(core & allowed - fixed, key=lambda cpu: (cpu not in isolated, cpu))
        if wish.threads == "isolate":
            parts.append([frozenset(), core] if core <= allowed and not core & fixed else [frozenset()])
        else:
            parts.append([frozenset(free[:count]) for count in range(len(free) + 1)])
    for picked in product(*parts):
        size = sum(1 for part in picked if part) if wish.threads == "isolate" else sum(map(len, picked))
        if size == need:
            yield frozenset(cpu for part in picked for cpu in part)


def _shape(books: Books, taken: frozenset[int]) -> object:
    """Return what of the taking matters to others: how many threads of cores of which kind."""
    return tuple(sorted((*_kind(books, core), len(core & taken)) for core in books.cores if core & taken))


def _kind(books: Books, core: frozenset[int]) -> tuple[int, int, int, int, int]:
    first = min(core)
    place = books.place_of[first]
    isolated = len(core & books.ledger.topology.isolated)
    return place[0], len(core), len(core & books.free), len(core & books.pool), isolated


def _signature(books: Books) -> object:
    return (
        tuple(sorted(books.free)),
        tuple(sorted(books.pages_free.items())),
        tuple(sorted(books.cell_free.items())),
    )


def _copied(books: Books) -> Books:
    other = copy(books)
    other.free, other.pool, other.holders = set(books.free), set(books.pool), dict(books.holders)
    other.cell_free, other.pages_free = dict(books.cell_free), dict(books.pages_free)
    other.groups = dict(books.groups)
    return other
