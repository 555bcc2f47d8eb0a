"""Guests on pCPUs and cells: a pure function of topology, ledger and wishes. Equal input gives an equal answer.

What runs stays where it runs: a guest that is placed keeps its pCPUs as long as they still are right for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vmhost.model.spec import GuestSpec
from vmhost.model.spec.resources import exclusive_vcpus
from vmhost.model.units import format_size, parse_cpuset
from vmhost.plan.books import Books, Seat, Wish, books_of
from vmhost.plan.exhaust import seat_all, small
from vmhost.plan.explain import against_pins, no_cell, why_not
from vmhost.plan.ledger import APART, Claim, Ledger, whole_cores
from vmhost.plan.overhead import overhead
from vmhost.plan.running import NOTHING, Running
from vmhost.plan.seating import seat_for
from vmhost.plan.shape import mirrors

__all__ = ["Placed", "Seat", "Wish", "place", "wish_of"]


@dataclass(frozen=True, slots=True)
class Placed:
    """Where each guest is placed, by name, and why others cannot be."""

    seats: dict[str, Seat]
    refusals: dict[str, str]
    order: tuple[str, ...] = ()


def wish_of(spec: GuestSpec, *, kvm: bool, had: Claim | None = None, extra: int = -1, now: Running = NOTHING) -> Wish:
    """Return what a guest wants; ``had`` is what it has now, ``extra`` the pCPU of the rest of its QEMU.

    :param now: what it runs on with: vCPUs that it is to lose keep pCPUs of their own as long as they are there.
    """
    cpus, memory = spec.cpus, spec.memory
    size = max(memory.size, now.memory)
    own = exclusive_vcpus(cpus)
    if own and had:
        own |= frozenset(vcpu for vcpu, _ in had.seat if cpus.count <= vcpu < now.vcpus)
    return Wish(
        name=spec.name,
        policy=cpus.policy or "shared",
        own=tuple(sorted(own)),
        shared=max(cpus.count, now.vcpus) - len(own),
        threads="isolate" if whole_cores(spec) else cpus.threads or "prefer",
        pins=tuple(sorted((cpus.pins or {}).items())),
        keep=had.seat if had else (),
        runs=now != NOTHING,
        extra=int(cpus.emulator == "own"),
        keep_extra=extra,
        request=cpus.request or 0.0,
        memory=size + overhead(spec, kvm=kvm, now=now),
        guest_memory=size,
        page=memory.page,
        cells=parse_cpuset(memory.cells) if memory.cells else frozenset(),
        mirror=mirrors(spec),
        bound=bool(memory.page) or mirrors(spec) or _strict(spec),
        promised=spec.state == "running" or spec.autostart or bool(had and had.active),
        group=spec.labels.get(APART, ""),
    )


def _strict(spec: GuestSpec) -> bool:
    return spec.memory.numa == "strict" or (spec.memory.cells is not None and spec.memory.numa is None)


def place(ledger: Ledger, wishes: Sequence[Wish]) -> Placed:
    """Return a seat for every wish, or why it cannot be met.

    Until its turn comes a guest has what the ledger says of it. Those that give pCPUs up come first, then those that
    have some, then pins of the person's choice, whole cores, threads, the largest first; shared ones come last. In this
    order they can move one after another. On a host of up to eight cores all ways are tried before one is refused.
    """
    books = books_of(ledger, wishes)
    seats: dict[str, Seat] = {}
    refusals: dict[str, str] = {}
    order = sorted(wishes, key=_rank)
    for number, wish in enumerate(order):
        had = ledger.claims.get(wish.name)
        if had:
            books.release(had)
        reason = refused(books, wish)
        seat = None if reason else seat_for(books, wish)
        if seat is None and not reason and wish.own and small(books):
            again = _rearranged(ledger, wishes, order[: number + 1])
            if again is not None:
                seats |= again
                books = _rewritten(ledger, wishes, order[: number + 1], again)
                continue
        if seat is None:
            refusals[wish.name] = reason or why_not(books, wish)
            if had:
                books.hold(had)
            continue
        seats[wish.name] = seat
        books.take(wish, seat)
    return Placed(seats, refusals, tuple(wish.name for wish in order))


def _rank(wish: Wish) -> tuple[int, int, str]:
    if not wish.own:
        return (-1 if wish.keep else 5), 0, wish.name
    kind = 0 if wish.keep else 1 if wish.pins else {"isolate": 2, "require": 3}.get(wish.threads, 4)
    return kind, -len(wish.own) - wish.extra, wish.name


def refused(books: Books, wish: Wish) -> str:
    """Return why a wish cannot be met wherever it is placed."""
    if (
        wish.promised
        and not wish.standing
        and wish.ordinary + books.promised > books.ledger.budget
        and books.ledger.memory
    ):
        return _no_memory(books, wish)
    if wish.policy == "isolated" and not wish.keep and (names := books.ledger.loose):
        return (
            f"policy isolated needs cores that nobody else runs on, and foreign guests are not pinned:"
            f" {', '.join(names)}; pin them, or take policy dedicated"
        )
    if wish.cells - set(books.in_cell):
        return no_cell(books, wish)
    if wish.pins and (reason := against_pins(books, wish)):
        return reason
    if not wish.own and wish.promised and not wish.standing and (reason := books.objection(frozenset())):
        return f"the pool of {len(books.pool)} shared pCPUs is too small: {reason}"
    return ""


def _no_memory(books: Books, wish: Wish) -> str:
    ledger = books.ledger
    kept = f", {format_size(ledger.reserve_memory)} are kept in reserve" if ledger.reserve_memory else ""
    kept += f", {format_size(ledger.pooled)} are hugepages" if ledger.pooled else ""
    left = format_size(max(0, ledger.budget - books.promised))
    return (
        f"needs {format_size(wish.ordinary)} of memory, QEMU's own included; of the host's"
        f" {format_size(ledger.memory)} {format_size(books.promised)} are promised{kept}: {left} are left"
    )


def _rearranged(ledger: Ledger, wishes: Sequence[Wish], order: Sequence[Wish]) -> dict[str, Seat] | None:
    """Return other seats for those of these that are new, so that the last one has one too; what runs stays."""
    trial = books_of(ledger, wishes)
    seats: dict[str, Seat] = {}
    for wish in order:
        if had := ledger.claims.get(wish.name):
            trial.release(had)
        if wish.keep:
            seat = seat_for(trial, wish)
            if seat is None:
                return None
            seats[wish.name] = seat
            trial.take(wish, seat)
    rest = [wish for wish in order if wish.own and not wish.keep]
    found = seat_all(trial, rest)
    return None if found is None else seats | {wish.name: seat for wish, seat in zip(rest, found, strict=True)}


def _rewritten(ledger: Ledger, wishes: Sequence[Wish], order: Iterable[Wish], seats: dict[str, Seat]) -> Books:
    books = books_of(ledger, wishes)
    for wish in order:
        if had := ledger.claims.get(wish.name):
            books.release(had)
        if wish.name in seats:
            books.take(wish, seats[wish.name])
    return books
