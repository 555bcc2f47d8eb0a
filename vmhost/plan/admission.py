"""Whether guests that are defined can be started now: memory, hugepages and pCPUs as they are at this moment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vmhost.model.observed import Observed, ObservedDomain
from vmhost.model.spec import HostSpec
from vmhost.model.units import format_cpuset, format_size
from vmhost.plan.ledger import Claim, Ledger, ledger_of, pages_each
from vmhost.plan.request import NoCapacity, Refusal


def against_start(starting: Sequence[ObservedDomain], observed: Observed, host: HostSpec | None) -> list[Refusal]:
    """Return every reason against starting these guests together; what runs already is never one.

    Only guests that run count, and those that others are starting now: one that starts with the host may come later,
    and has no more right than this one.
    """
    ledger = ledger_of(observed, host)
    names = [domain.name for domain in starting if not domain.active]
    claims = [ledger.claims[name] for name in names]
    return [
        Refusal(claim.name, text, "vmhost host capacity", NoCapacity)
        for claim in claims
        for text in (*_memory(claim, claims, ledger), *_pages(claim, claims, ledger), *_cpus(claim, ledger))
    ]


def _memory(claim: Claim, claims: Sequence[Claim], ledger: Ledger) -> Iterator[str]:
    running = sum(other.ordinary for other in ledger.claims.values() if other.active)
    together = sum(other.ordinary for other in claims)
    if ledger.memory and running + together > ledger.budget:
        others = f", with the others that start {format_size(together)}" if len(claims) > 1 else ""
        yield (
            f"needs {format_size(claim.ordinary)} of memory, QEMU's own included{others}; guests that run have"
            f" {format_size(running)} of the {format_size(max(0, ledger.budget))} that they may have"
        )


def _pages(claim: Claim, claims: Sequence[Claim], ledger: Ledger) -> Iterator[str]:
    for cell in sorted(claim.cells) if claim.page else ():
        found = ledger.topology.cell(cell)
        pages = found.pages_of(claim.page) if found else None
        mine = [other for other in claims if other.page == claim.page and cell in other.cells]
        need = sum(pages_each(other.guest_memory, other.page, len(other.cells)) for other in mine)
        need += sum(
            pages_each(other.guest_memory, other.page, len(other.cells))
            for other in ledger.claims.values()
            if other.starting and other.page == claim.page and cell in other.cells
        )
        if pages is None or pages.free < 0:
            continue  # the kernel does not say
        if need > pages.free:
            size = format_size(claim.page)
            yield f"needs {need} hugepages of {size} in cell {cell}, {pages.free} are free"


def _cpus(claim: Claim, ledger: Ledger) -> Iterator[str]:
    pinned = frozenset(cpu for _, cpu in claim.seat)
    if gone := pinned - ledger.topology.online:
        yield f"it is pinned to pCPU {format_cpuset(gone)}, which is offline: vmhost apply SITE places it anew"
    for other in ledger.claims.values():
        if other.name != claim.name and other.active and (both := claim.exclusive & other.exclusive):
            yield f"pCPU {format_cpuset(both)} is its own, and {other.name} runs there"
