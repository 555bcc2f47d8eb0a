"""What a host has, who has it, and what would still fit: the ledger as a picture. Nothing here changes anything."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from vmhost.model.capacity import Capacity, CellRow, CpuRow, Fit, GuestShare, PagesRow, Taken
from vmhost.model.observed import Observed
from vmhost.model.spec import GuestSpec, HostSpec, ThresholdSpec
from vmhost.model.stats import LinkLoad
from vmhost.model.units import format_cpuset
from vmhost.plan.books import Books, Wish, books_of
from vmhost.plan.explain import why_not
from vmhost.plan.ledger import Claim, Ledger, ledger_of
from vmhost.plan.placement import refused, wish_of
from vmhost.plan.seating import seat_for

MOST: int = 10_000
"""So many guests of one kind are counted."""


def capacity_of(observed: Observed, host: HostSpec | None, kinds: Sequence[tuple[str, GuestSpec]] = ()) -> Capacity:
    """Return the picture of a host.

    :param kinds: the kinds of guests that are asked about, by name.
    """
    ledger = ledger_of(observed, host)
    taken = tuple(_taken(ledger, observed, thresholds_of(host)))
    sharing = sum(claim.shared for claim in ledger.claims.values() if claim.promised)
    return Capacity(
        cpus=tuple(_cpus(ledger)),
        cells=tuple(_cells(ledger)),
        guests=tuple(_share(claim) for _, claim in sorted(ledger.claims.items())),
        memory=ledger.memory,
        reserve=ledger.reserve_memory,
        promised=ledger.promised,
        free=max(0, ledger.budget - ledger.promised),
        pool=format_cpuset(ledger.pool),
        sharing=sharing,
        all_run=sum(claim.ordinary for claim in ledger.claims.values()),
        fits=tuple(fit(ledger, name, wish_of(spec, kvm=observed.host.kvm)) for name, spec in kinds),
        after_reboot=after_reboot(ledger),
        taken=taken,
        short=short_of(taken),
        loose=ledger.loose,
    )


def fit(ledger: Ledger, kind: str, wish: Wish) -> Fit:
    """Return how many more guests like this would fit, by placing them one after another."""
    books = books_of(ledger)
    for count in range(MOST):
        one = replace(wish, name=f"{kind} {count + 1}")
        reason = _take(books, one)
        if reason:
            return Fit(kind, count, reason)
    return Fit(kind, MOST, "")


def _take(books: Books, wish: Wish) -> str:
    books.expect(wish.shared, wish.request, wish.cells if wish.bound else frozenset())
    reason = refused(books, wish)
    seat = None if reason else seat_for(books, wish)
    if seat is None:
        return reason or why_not(books, wish)
    books.take(wish, seat)
    return ""


def after_reboot(ledger: Ledger) -> tuple[str, ...]:
    """Return why not everything that starts with the host would come up after a reboot; empty when it would."""
    starting = [claim for claim in ledger.claims.values() if claim.autostart]
    told = []
    need = sum(claim.ordinary for claim in starting)
    if need > ledger.budget:
        told.append(f"guests that start with the host need {need >> 20}M of memory, {ledger.budget >> 20}M are there")
    for cell in ledger.topology.cells:
        for pages in cell.pages:
            mine = [claim for claim in starting if claim.page == pages.size and cell.id in claim.cells]
            count = sum(-(-claim.guest_memory // (pages.size * len(claim.cells))) for claim in mine)
            if count > pages.total:
                size = f"{pages.size >> 20}M"
                told.append(f"they need {count} hugepages of {size} in cell {cell.id}, {pages.total} are there")
    missing = {cpu for claim in starting for cpu in claim.exclusive} - ledger.topology.online
    told += [f"pCPU {cpu} is offline, and a guest is pinned to it" for cpu in sorted(missing)]
    return tuple(told)


def _cpus(ledger: Ledger) -> list[CpuRow]:
    pinned: dict[int, list[str]] = {}
    running: dict[int, str] = {}
    for claim in ledger.claims.values():
        for cpu in claim.floating | claim.exclusive:
            pinned.setdefault(cpu, []).append(claim.name)
        running |= {cpu: claim.name for _, cpu in claim.seat}
    rows = []
    for one in ledger.topology.cpus:
        use = _use(one.id, ledger, running)
        names = tuple(sorted(pinned.get(one.id, ())))
        rows.append(CpuRow(one.id, one.cell, one.socket, one.cache, format_cpuset(one.siblings), use, names))
    return rows


def _use(cpu: int, ledger: Ledger, running: Mapping[int, str]) -> str:
    if cpu not in ledger.topology.online:
        return "offline"
    if cpu in ledger.holders:
        claim = ledger.claims[ledger.holders[cpu]]
        return "own" if cpu in running or not claim.seat else "empty"
    if cpu in ledger.reserve_cpus:
        return "reserve"
    return "isolated" if cpu in ledger.topology.isolated else "shared"


def _cells(ledger: Ledger) -> list[CellRow]:
    return [
        CellRow(
            id=cell.id,
            memory=cell.memory,
            unbound=max(0, ledger.cell_free(cell.id)),
            cpus=format_cpuset(cell.cpus),
            pages=tuple(
                PagesRow(pages.size, pages.total, max(0, ledger.pages_free(cell.id, pages.size)))
                for pages in cell.pages
                if pages.total
            ),
        )
        for cell in ledger.topology.cells
    ]


def _share(claim: Claim) -> GuestShare:
    own = format_cpuset(claim.exclusive)
    return GuestShare(
        claim.name, claim.policy, own, claim.shared, claim.request, claim.memory, claim.promised, claim.active
    )


def thresholds_of(host: HostSpec | None) -> ThresholdSpec:
    """Return from how many percent on resources of a host run short."""
    return (host.thresholds if host else None) or ThresholdSpec()


def _taken(ledger: Ledger, observed: Observed, thresholds: ThresholdSpec) -> Iterator[Taken]:
    """Yield what has a threshold: pCPUs by what is requested or owned, memory by what is promised."""
    owned = len(frozenset(ledger.holders) & ledger.usable)
    requested = sum(claim.request for claim in ledger.claims.values() if claim.promised)
    yield Taken("cpu", owned + requested, len(ledger.usable), thresholds.cpu)
    yield Taken("memory", ledger.promised, ledger.budget, thresholds.memory)
    for pool in observed.pools:
        if pool.active:
            yield Taken(f"storage {pool.name}", pool.capacity - pool.available, pool.capacity, thresholds.storage)


def busy_links(
    before: Mapping[str, LinkLoad], after: Mapping[str, LinkLoad], seconds: float, thresholds: ThresholdSpec
) -> tuple[Taken, ...]:
    """Return what uplinks carry of their speed, by what passed between two looks, in the busier way."""
    found: list[Taken] = []
    for name, now in sorted(after.items()):
        if (was := before.get(name)) is not None and now.speed and seconds > 0:
            passed = max(now.received - was.received, now.sent - was.sent)
            found.append(Taken(f"network {name}", 8 * passed / seconds, now.speed, thresholds.network))
    return tuple(found)


def short_of(taken: Iterable[Taken]) -> tuple[str, ...]:
    """Return a sentence about each of what is beyond its threshold."""
    return tuple(
        f"{one.what}: {100 * one.part / one.whole:.0f} percent are taken, {one.threshold} is the threshold"
        for one in taken
        if one.whole and 100 * one.part >= one.threshold * one.whole
    )
