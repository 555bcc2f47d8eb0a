"""Placing guests: 500 on 256 pCPUs in 8 cells from an empty host, one more on the full host, and growth with guests."""

from __future__ import annotations

import sys
from statistics import median
from time import perf_counter

from vmhost.model.spec import GuestSpec
from vmhost.model.topology import Topology
from vmhost.plan.books import Wish
from vmhost.plan.ledger import Ledger, claim_of_spec
from vmhost.plan.placement import place, wish_of
from vmhost.plan.tuning import tuning_of
from vmhost.render.parse.topology import parse_topology
from vmhost.testing import builders
from vmhost.testing.topologies import Shape, capabilities, kernel

PROMISED = {"500 guests": 1.0, "one more": 0.020}
"""Seconds."""
GROWTH = 3
"""What one of 2,000 guests may cost, of what one of 100 costs."""
SHAPE = Shape(cells=8, sockets=2, cores=16, threads=2, caches=8, memory=512 << 30)
COUNTS = (100, 250, 500, 1000, 2000)


def host() -> Topology:
    """256 pCPUs in 8 cells, built."""
    return parse_topology(capabilities(SHAPE), kernel(SHAPE))


def guests(count: int) -> list[GuestSpec]:
    """Every tenth guest wants two pCPUs of its own, every fortieth whole cores; others share."""
    made = []
    for number in range(count):
        cpus: dict[str, object] = {"count": 2}
        if number % 10 == 0 and number < 600:
            cpus["policy"] = "isolated" if number % 40 == 0 else "dedicated"
        made.append(builders.guest(f"g{number:04}", cpus=cpus, memory="1G"))
    return made


def full(ledger: Ledger, specs: list[GuestSpec]) -> Ledger:
    """Return the ledger of the host with these guests on it."""
    seats = place(ledger, [wish_of(spec, kvm=True) for spec in specs]).seats
    claims = {}
    for spec in specs:
        seat = seats[spec.name]
        tuning = tuning_of(spec, seat, ledger)
        claims[spec.name] = claim_of_spec(spec, [tuning], ledger.topology, kvm=True, active=True, autostart=False)
    return Ledger(topology=ledger.topology, memory=ledger.memory, claims=claims)


def seconds(ledger: Ledger, wishes: list[Wish], rounds: int = 5) -> float:
    """Return the median time of placing these, and see that all are placed."""
    times = []
    for _ in range(rounds):
        start = perf_counter()
        placed = place(ledger, wishes)
        times.append(perf_counter() - start)
        assert not placed.refusals, placed.refusals
    return median(times)


def measure() -> dict[str, float]:
    """Return the times in seconds by what was done."""
    topology = host()
    empty = Ledger(topology=topology, memory=topology.memory)
    found = {f"{n} guests": seconds(empty, [wish_of(spec, kvm=True) for spec in guests(n)]) for n in COUNTS}
    crowded = full(empty, guests(500))
    more = builders.guest("one-more", cpus={"count": 4, "policy": "dedicated"}, memory="4G")
    found["one more"] = seconds(crowded, [wish_of(more, kvm=True)], rounds=25)
    return found


def main() -> int:
    """Measure, print, and return 1 when a promise is not kept."""
    found = measure()
    per_guest = found["2000 guests"] / 2000 / (found["100 guests"] / 100)
    print("\nPlacing guests on a host of 256 pCPUs in 8 cells, which is built; one more: beside 500\n")
    print("| what | median ms | promised at most |\n|---|---|---|")
    for what, took in found.items():
        promise = f"{1000 * PROMISED[what]:.0f}" if what in PROMISED else "-"
        print(f"| {what} | {1000 * took:.1f} | {promise} |")
    kept = all(found[what] <= promised for what, promised in PROMISED.items()) and per_guest <= GROWTH
    verdict = "kept" if kept else "NOT KEPT"
    print(f"\none of 2,000 costs {per_guest:.2f} times one of 100, promised at most {GROWTH}: {verdict}\n")
    return int(not kept)


if __name__ == "__main__":
    sys.exit(main())
