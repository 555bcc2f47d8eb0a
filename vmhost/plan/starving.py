"""Who does not get the pCPUs that it wants, and who has them meanwhile: two looks at the kernel's own counters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from vmhost.model.capacity import Starved
from vmhost.model.tuning import Held

STARVING: Final = 0.2
"""The part of the time that a vCPU has to wait for a pCPU before its guest counts as starved."""


def starved(
    before: Mapping[str, Held], after: Mapping[str, Held], names: Mapping[str, str], seconds: float
) -> tuple[Starved, ...]:
    """Return the guests that wait, those that wait most first.

    :param names: of guests by UUID; :param seconds: between both looks.
    """
    found = []
    for uuid, now in after.items():
        if uuid not in before or seconds <= 0:
            continue
        waited = {vcpu: wait / seconds / 1e9 for vcpu, _, wait in _between(before[uuid], now)}
        if not waited:
            continue
        vcpu = max(waited, key=lambda number: (waited[number], -number))
        if waited[vcpu] >= STARVING:
            by = _busiest(uuid, dict(now.vcpus).get(vcpu, frozenset()), before, after)
            found.append(Starved(names.get(uuid, uuid), vcpu, min(1.0, waited[vcpu]), names.get(by, by)))
    return tuple(sorted(found, key=lambda one: (-one.share, one.name)))


def _between(before: Held, after: Held) -> list[tuple[int, int, int]]:
    """Return how long each vCPU ran and waited between two looks; nothing of one that was started anew."""
    if before.pid != after.pid:
        return []
    then = {vcpu: (ran, wait) for vcpu, ran, wait in before.waits}
    return [(vcpu, ran - then[vcpu][0], wait - then[vcpu][1]) for vcpu, ran, wait in after.waits if vcpu in then]


def _busiest(waiting: str, cpus: frozenset[int], before: Mapping[str, Held], after: Mapping[str, Held]) -> str:
    """Return the guest whose vCPUs ran most where this one may run: another one, if any ran there."""
    ran: dict[str, int] = {}
    for uuid, now in after.items():
        if uuid == waiting or uuid not in before:
            continue
        places = dict(now.vcpus)
        ran[uuid] = sum(took for vcpu, took, _ in _between(before[uuid], now) if places.get(vcpu, cpus) & cpus)
    best = max(ran, key=lambda uuid: (ran[uuid], uuid), default=waiting)
    return best if ran.get(best) else "the host itself"
