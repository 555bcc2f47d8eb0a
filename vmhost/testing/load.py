"""What the guests of a fake host use: made up, but the same for a guest and a moment always, and only growing."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final
from zlib import crc32

from vmhost.model.observed import DomainState
from vmhost.model.stats import DomainStats
from vmhost.render.parse.domain import parse_domain
from vmhost.testing.world import BEGINNING, Domain, World

_PERIOD: Final = 90.0
_MIB: Final = 1 << 20


def stats_of(world: World) -> tuple[DomainStats, ...]:
    """Return the counters of all domains."""
    seconds = world.now - BEGINNING
    return tuple(
        _running(domain, seconds)
        if domain.state is DomainState.RUNNING
        else _resting(domain)
        if domain.state.active
        else DomainStats(domain.uuid, domain.state)
        for domain in world.domains.values()
    )


def _running(domain: Domain, seconds: float) -> DomainStats:
    vcpus, memory = _machine(domain.live_xml)
    phase, share = _character(domain.uuid)
    wave = math.sin(2 * math.pi * seconds / _PERIOD + phase)
    # The integral of share * (1 + 0.8 cos(...)): a load that comes and goes, a counter that never falls.
    busy = share * (seconds + 0.8 * _PERIOD / (2 * math.pi) * wave) + 10.0
    used = int(memory * (0.35 + 0.3 * share + 0.1 * wave))
    return DomainStats(
        domain.uuid,
        domain.state,
        int(busy * vcpus * 1e9),
        memory,
        used,
        min(memory, used + 64 * _MIB),
        int(busy * 3 * _MIB),
        int(busy * 2 * _MIB),
        int(busy * 5 * _MIB),
        int(busy * 0.4 * _MIB),
    )


def _resting(domain: Domain) -> DomainStats:
    """Return the counters of a paused domain: they stand still."""
    _, memory = _machine(domain.live_xml)
    return DomainStats(domain.uuid, domain.state, 1_000_000_000, memory, memory // 2, memory // 2)


@lru_cache(maxsize=8192)
def _machine(xml: str) -> tuple[int, int]:
    facts = parse_domain(xml)
    return facts.vcpus, facts.memory


@lru_cache(maxsize=8192)
def _character(uuid: str) -> tuple[float, float]:
    """Return where in its wave a guest is, and the share of its vCPUs that it uses on average: 2 to 60 per cent."""
    number = crc32(uuid.encode())
    return (number % 628) / 100, 0.02 + 0.58 * ((number >> 10) % 1000 / 1000) ** 2
