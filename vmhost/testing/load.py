"""What the guests of a fake host use: made up, but the same for a guest and a moment always, and only growing."""

from __future__ import annotations

import math
from collections.abc import Collection
from functools import lru_cache
from typing import Final
from zlib import crc32

from vmhost.model.observed import DomainState
from vmhost.model.stats import DomainStats
from vmhost.render.parse.domain import parse_domain
from vmhost.testing.world import BEGINNING, Domain, World

_PERIOD: Final = 90.0
_TURN: Final = 2 * math.pi / _PERIOD
_SWING: Final = 0.8 / _TURN
_MIB: Final = 1 << 20


def stats_of(world: World, dear: Collection[str] | None = None) -> tuple[DomainStats, ...]:
    """Return the counters of all domains; ``dear`` as for ``ports.Hypervisor``."""
    seconds = world.now - BEGINNING
    return tuple(
        _running(domain, seconds, asked=dear is None or domain.uuid in dear)
        if domain.state is DomainState.RUNNING
        else _resting(domain, asked=dear is None or domain.uuid in dear)
        if domain.state.active
        else DomainStats(domain.uuid, domain.state)
        for domain in world.domains.values()
    )


def _running(domain: Domain, seconds: float, *, asked: bool) -> DomainStats:
    vcpus, memory, phase, share = _character(domain.uuid, domain.live_xml)
    wave = math.sin(_TURN * seconds + phase)
    # The integral of share * (1 + 0.8 cos(...)): a load that comes and goes, a counter that never falls.
    busy = share * (seconds + _SWING * wave) + 10.0
    moved = int(busy * _MIB)
    cpu_time = int(busy * vcpus * 1e9)
    if not asked:
        return DomainStats(domain.uuid, domain.state, cpu_time, received=moved * 5, sent=moved >> 1, whole=False)
    used = int(memory * (0.35 + 0.3 * share + 0.1 * wave))
    return DomainStats(
        domain.uuid,
        domain.state,
        cpu_time,
        memory,
        used,
        used + (64 << 20),
        moved * 3,
        moved * 2,
        moved * 5,
        moved >> 1,
    )


def _resting(domain: Domain, *, asked: bool) -> DomainStats:
    """Return the counters of a paused domain: they stand still."""
    if not asked:
        return DomainStats(domain.uuid, domain.state, 1_000_000_000, whole=False)
    _, memory, _, _ = _character(domain.uuid, domain.live_xml)
    return DomainStats(domain.uuid, domain.state, 1_000_000_000, memory, memory // 2, memory // 2)


@lru_cache(maxsize=8192)
def _character(uuid: str, xml: str) -> tuple[int, int, float, float]:
    """Return vCPUs and memory, where in its wave a guest is, and the share of its vCPUs that it uses on average."""
    facts, number = parse_domain(xml), crc32(uuid.encode())
    return facts.vcpus, facts.memory, (number % 628) / 100, 0.02 + 0.58 * ((number >> 10) % 1000 / 1000) ** 2
