"""Why a guest cannot be placed: what it needs, who has it, what is left, and what would do instead."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from vmhost.model.units import format_cpuset, format_size
from vmhost.plan.books import Books, Wish
from vmhost.plan.seating import seat_for


def why_not(books: Books, wish: Wish) -> str:
    """Return the sentence: needs what; held by whom; how much is left; what else would fit."""
    cells = wish.cells or frozenset(books.in_cell)
    where = _where(wish)
    parts = [f"needs {_needs(wish)}{where}"]
    if not wish.own:
        parts += [reason for cell in sorted(cells) if (reason := books.room(wish, [cell]))]
        if wish.cells and wish.cells - set(books.in_cell):
            parts.append(no_cell(books, wish))
    else:
        parts += _cpus(books, wish, cells)
    instead = _instead(books, wish)
    return "; ".join([": ".join(parts[:2]), *parts[2:], *([f"would fit {instead}"] if instead else [])])


def against_pins(books: Books, wish: Wish) -> str:
    """Return what is wrong with pCPUs of the person's choice, or an empty text."""
    topology = books.ledger.topology
    known = {cpu.id for cpu in topology.cpus}
    for vcpu, cpu in wish.pins:
        told = f"vCPU {vcpu} cannot have pCPU {cpu}: "
        if cpu not in known:
            return f"{told}the host has {format_cpuset(known)}"
        if cpu not in topology.online:
            return f"{told}it is offline"
        if cpu in books.ledger.reserve_cpus:
            return f"{told}it is in the host's reserve ({format_cpuset(books.ledger.reserve_cpus)})"
        if cpu in books.holders:
            return f"{told}it is held by {books.holders[cpu]}"
        if cpu in books.ledger.foreign:
            return f"{told}a foreign guest is pinned to it"
        if wish.cells and books.place_of[cpu][0] not in wish.cells:
            return f"{told}it is in cell {books.place_of[cpu][0]}, memory is in {format_cpuset(wish.cells)}"
        taken = sorted(other for other in books.core_of[cpu] if other not in books.free)
        if wish.threads in ("isolate", "require") and taken:
            holder = books.holders.get(taken[0], "the host's reserve")
            return f"{told}{taken[0]}, another thread of its core, is held by {holder}"
    return ""


def _needs(wish: Wish) -> str:
    if not wish.own:
        return f"{format_size(wish.guest_memory)} of memory" + (f" in pages of {wish.page >> 20}M" if wish.page else "")
    count = len(wish.own) + wish.extra
    kind = {"isolate": "isolated core", "require": "thread of whole cores"}.get(wish.threads, "pCPU of its own")
    plural = (
        kind if count == 1 else {"pCPU of its own": "pCPUs of their own"}.get(kind, kind.replace("e", "es", 0) + "s")
    )
    if kind == "thread of whole cores":
        plural = "threads of whole cores"
    return f"{count} {plural}"


def _where(wish: Wish) -> str:
    if wish.cells:
        return f" in cell {format_cpuset(wish.cells)}"
    return " in one cell, or in several alike" if wish.bound or wish.page else ""


def no_cell(books: Books, wish: Wish) -> str:
    """Return that a cell that was asked for is none of the host's."""
    missing = format_cpuset(wish.cells - set(books.in_cell))
    return f"there is no cell {missing}, the host has {format_cpuset(books.in_cell)}"


def _cpus(books: Books, wish: Wish, cells: frozenset[int]) -> Iterator[str]:
    missing = cells - set(books.in_cell)
    if missing:
        yield no_cell(books, wish)
        return
    inside = frozenset(cpu for cell in cells for cpu in books.in_cell[cell])
    held: dict[str, set[int]] = {}
    for cpu in sorted(inside):
        if cpu in books.holders:
            held.setdefault(books.holders[cpu], set()).add(cpu)
    for name, cpus in sorted(held.items()):
        yield f"pCPU{'s' if len(cpus) > 1 else ''} {format_cpuset(cpus)} {_are(cpus)} held by {name}"
    if kept := inside & books.ledger.reserve_cpus:
        yield f"{format_cpuset(kept)} {_are(kept)} in reserve"
    if floating := inside & books.ledger.foreign - frozenset(books.holders):
        yield f"foreign guests are pinned to {format_cpuset(floating)}"
    free = frozenset(books.free) & inside
    if wish.threads == "prefer":
        yield f"free: {len(free)}"
    else:
        whole = [core for core in books.cores if core <= free and (wish.threads == "isolate" or len(core) > 1)]
        yield f"free whole cores{'' if wish.threads == 'isolate' else ' of several threads'}: {len(whole)}"
    if len(free) >= len(wish.own) + wish.extra and (reason := books.objection(free)):
        yield f"not all of them can be taken: {reason}"
    if wish.bound or wish.page:
        yield from (reason for cell in sorted(cells) if (reason := books.room(wish, [cell])))


def _are(cpus: object) -> str:
    return "is" if isinstance(cpus, (set, frozenset)) and len(cpus) == 1 else "are"


def _instead(books: Books, wish: Wish) -> str:
    """Return the smallest change of the wish that could be met now, in words."""
    changes = (
        ("in another cell", {"cells": frozenset[int]()}, bool(wish.cells)),
        ("without hugepages", {"page": 0}, bool(wish.page)),
        ("in another cell without hugepages", {"cells": frozenset[int](), "page": 0}, bool(wish.cells and wish.page)),
        ("without NUMA cells", {"cells": frozenset[int](), "page": 0, "bound": False}, wish.bound),
        (
            "with the other threads of its cores in use (policy dedicated)",
            {"threads": "prefer"},
            wish.threads != "prefer",
        ),
        ("with the rest of QEMU among the others", {"extra": 0}, bool(wish.extra)),
    )
    for words, change, matters in changes:
        if matters:
            seat = seat_for(books, replace(wish, **change))
            if seat is not None:
                cells = f"cell {format_cpuset(seat.cells)}" if seat.cells else ""
                return (
                    f"in {cells}{words.removeprefix('in another cell')}"
                    if words.startswith("in another") and cells
                    else words
                )
    return ""
