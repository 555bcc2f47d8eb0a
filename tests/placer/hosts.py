"""Hosts, guests and the rules of exclusivity, said a second time and simply, to hold the placer against."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any

from vmhost.model.spec import GuestSpec
from vmhost.model.topology import Topology
from vmhost.plan.books import Seat, Wish
from vmhost.plan.ledger import Ledger
from vmhost.render.parse.topology import parse_topology
from vmhost.testing import builders
from vmhost.testing.topologies import Shape, capabilities, kernel

MIB = 1 << 20
GIB = 1 << 30


def topology(shape: Shape) -> Topology:
    return parse_topology(capabilities(shape), kernel(shape))


def ledger(shape: Shape, **more: Any) -> Ledger:
    made = topology(shape)
    return Ledger(topology=made, memory=made.memory, **more)


def spec(name: str = "g", memory: str = "64M", **cpus: Any) -> GuestSpec:
    return builders.guest(name, memory=memory, cpus={"count": 1, **cpus})


def is_right(wish: Wish, seat: Seat, host: Ledger, taken: frozenset[int]) -> bool:
    """Whether a seat is what was asked for, judged without the placer's own code."""
    free = host.topology.online - host.reserve_cpus - taken
    used = [cpu for _, cpu in seat.pins]
    cores = {cpu: core for core in host.topology.cores() for cpu in core}
    if [vcpu for vcpu, _ in seat.pins] != list(wish.own) or len(set(used)) != len(used):
        return False
    if wish.extra and (seat.extra < 0 or seat.extra in used):
        return False
    mine = set(used) | ({seat.extra} if seat.extra >= 0 else set())
    if wish.threads == "isolate":
        if len({cores[cpu] for cpu in mine}) != len(mine):
            return False
        mine = {other for cpu in mine for other in cores[cpu]}
    if wish.threads == "require" and any(len(cores[cpu]) < 2 or not cores[cpu] <= set(used) for cpu in used):
        return False
    if any(dict(seat.pins)[vcpu] != cpu for vcpu, cpu in wish.pins):
        return False
    return mine == seat.exclusive and mine <= free


def any_way(wishes: Sequence[Wish], host: Ledger, *, sharing: int = 0) -> bool:
    """Whether there is a way to seat all of these guests, by trying each set of pCPUs for each of them."""
    online = sorted(host.topology.online - host.reserve_cpus)

    def fits(number: int, taken: frozenset[int]) -> bool:
        if number == len(wishes):
            return not sharing or bool(host.topology.online - host.reserve_cpus - host.topology.isolated - taken)
        wish = wishes[number]
        free = [cpu for cpu in online if cpu not in taken]
        return any(fits(number + 1, taken | used) for used in _ways(wish, free, host))

    return fits(0, frozenset())


def _ways(wish: Wish, free: Sequence[int], host: Ledger) -> Iterable[frozenset[int]]:
    cores = host.topology.cores()
    need = len(wish.own) + wish.extra
    if wish.threads == "isolate":
        whole = [core for core in cores if core <= set(free)]
        yield from (frozenset().union(*chosen) for chosen in combinations(whole, need))
    elif wish.threads == "require":
        whole = [core for core in cores if core <= set(free) and len(core) > 1]
        for size in range(len(whole) + 1):
            for chosen in combinations(whole, size):
                filled = frozenset().union(*chosen)
                if len(filled) == len(wish.own):
                    rest = [cpu for cpu in free if cpu not in filled]
                    yield from (filled | set(more) for more in combinations(rest, wish.extra))
    else:
        yield from map(frozenset, combinations(free, need))


__all__ = ["GIB", "MIB", "any_way", "is_right", "ledger", "spec", "topology"]
