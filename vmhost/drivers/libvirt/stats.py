"""The counters of all domains in one call: ``virConnectGetAllDomainStats`` of
https://libvirt.org/html/libvirt-libvirt-domain.html.

Per-vCPU figures are left out: they cost as much as all others together, and the total says what a person looks for.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any, Final

import libvirt

from vmhost.drivers.libvirt.connection import Handle
from vmhost.model.domains import DomainState
from vmhost.model.stats import DomainStats

_STATES: Final = dict(enumerate(DomainState))
_CHEAP: Final = libvirt.VIR_DOMAIN_STATS_STATE | libvirt.VIR_DOMAIN_STATS_CPU_TOTAL | libvirt.VIR_DOMAIN_STATS_INTERFACE
_DEAR: Final = libvirt.VIR_DOMAIN_STATS_BALLOON | libvirt.VIR_DOMAIN_STATS_BLOCK
"""What libvirt has to ask QEMU for, guest by guest: milliseconds of each."""

_NOWAIT: Final = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
_KIB: Final = 1024


def read_stats(handle: Handle, dear: Collection[str] | None = None) -> tuple[DomainStats, ...]:
    """Return the counters of all domains; of one whose QEMU is busy or hangs, those that libvirt has itself.

    :param dear: whose dear ones are wanted; None: everybody's.
    """
    if dear is None:
        every = handle.getAllDomainStats(_CHEAP | _DEAR, _NOWAIT)
        return tuple(_stats(domain.UUIDString(), values) for domain, values in every)
    found = [(domain.UUIDString(), domain, values) for domain, values in handle.getAllDomainStats(_CHEAP, _NOWAIT)]
    asked = [domain for uuid, domain, _ in found if uuid in dear]
    answers = handle.domainListGetStats(asked, _DEAR, _NOWAIT) if asked else ()
    more = {domain.UUIDString(): values for domain, values in answers}
    return tuple(_stats(uuid, {**values, **more[uuid]} if uuid in more else values) for uuid, _, values in found)


def _stats(uuid: str, values: Mapping[str, Any]) -> DomainStats:
    get = values.get  # thousands of these are made every two seconds
    state = _STATES.get(get("state.state", 0), DomainState.NO_STATE)
    if not state.active:
        return DomainStats(uuid, state)
    read = written = received = sent = 0
    told = "balloon.rss" in values  # libvirt leaves it and the disks out while somebody else speaks with QEMU
    for first, second in _names("block", "rd", "wr", get("block.count", 0)):
        read += get(first, 0)
        written += get(second, 0)
    for first, second in _names("net", "rx", "tx", get("net.count", 0)):
        received += get(first, 0)
        sent += get(second, 0)
    available = get("balloon.available", 0)
    used = max(0, available - get("balloon.usable", get("balloon.unused", 0))) if available else 0
    memory, resident = get("balloon.current", 0), get("balloon.rss", 0)
    cpu_time = get("cpu.time", 0)
    return DomainStats(
        uuid, state, cpu_time, memory * _KIB, used * _KIB, resident * _KIB, read, written, received, sent, told
    )


@lru_cache(maxsize=256)
def _names(kind: str, first: str, second: str, count: int) -> tuple[tuple[str, str], ...]:
    """Return what libvirt calls two counters of each of so many devices."""
    return tuple((f"{kind}.{number}.{first}.bytes", f"{kind}.{number}.{second}.bytes") for number in range(count))
