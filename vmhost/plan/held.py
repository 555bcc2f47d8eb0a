"""How a guest is held against how it should be, field by field."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import count
from typing import Final

from vmhost.model.memorysteps import PlugMemory, UnplugMemory
from vmhost.model.observed import Observed, ObservedDomain
from vmhost.model.plan import Change, Planned
from vmhost.model.spec import CpuSpec, MemorySpec
from vmhost.model.steps import SetMemory, SetVcpus
from vmhost.model.tuning import PERIOD, Tuning
from vmhost.model.units import format_size
from vmhost.plan.applied import applied_spec
from vmhost.plan.running import KNOWN, live_facts
from vmhost.plan.shape import mirrors
from vmhost.plan.tuning import defined, live_tuning, normal, on_live, retune_steps
from vmhost.render.parse.domain import alias_of
from vmhost.render.parse.reading import look_into
from vmhost.render.parse.tuning import parse_tuning
from vmhost.render.parse.units import int_of, size_of
from vmhost.render.shape import parse_shape

_LIVE: Final = (
    ("cpus.pins", "pins"),
    ("cpus.emulator", "emulator"),
    ("cpus.iothreads.pins", "io"),
    ("cpus.shares", "shares"),
    ("cpus.limit", "limit"),
    ("cpus.vcpu_limit", "vcpu_limit"),
    ("cpus.emulator_limit", "emulator_limit"),
    ("memory.limit", "hard_limit"),
    ("memory.swap_limit", "swap_limit"),
)
_AT_BOOT: Final = (
    ("cpus.iothreads", "iothreads"),
    ("memory.hugepages", "page"),
    ("memory.locked", "locked"),
    ("memory.cells", "cells"),
    ("memory.numa", "cell_mode"),
)
SHAPE: Final = "cpus.topology"
MODULE: Final = 128 << 20
"""Linux on x86-64 takes memory in blocks of so much (Documentation/admin-guide/mm/memory-hotplug.rst)."""
_FIELDS: Final = frozenset(field for field, _ in (*_LIVE, *_AT_BOOT))
_QUOTAS: Final = frozenset({"limit", "vcpu_limit", "emulator_limit"})


def is_live(field: str) -> bool:
    """Whether a field is one of those that may change while a guest runs."""
    return field in _FIELDS or field in ("cpus.count", "memory.size")


def can_plug(domain: ObservedDomain, cpus: CpuSpec) -> bool:
    """Whether a running guest was started with room for so many vCPUs; to give some back it needs a stop."""
    if not domain.raw.live_xml or (cpus.max or cpus.count) != domain.facts.max_vcpus:
        return False
    live = live_facts(domain.raw.live_xml)
    return live.vcpus <= cpus.count <= live.max_vcpus


def can_blow(domain: ObservedDomain, memory: MemorySpec) -> bool:
    """Whether the balloon of a running guest can leave it so much; it cannot give more than the guest was started
    with.
    """
    if not domain.raw.live_xml or (memory.max or memory.size) != domain.facts.max_memory or memory.hugepages:
        return False
    return memory.size <= started_memory(domain)


def can_plug_memory(domain: ObservedDomain, memory: MemorySpec) -> bool:
    """Whether a running guest was started with room for a memory module that brings it to so much."""
    if not domain.raw.live_xml or (memory.max or memory.size) != domain.facts.max_memory or memory.hugepages:
        return False
    live, more = look_into(domain.raw.live_xml), memory.size - started_memory(domain)
    room = live.find("maxMemory")
    if room is None or more <= 0 or more % MODULE:
        return False
    slots = int_of(room.get("slots")) - len(live.findall("devices/memory"))
    return slots > 0 and memory.size <= size_of(room, "KiB")


def started_memory(domain: ObservedDomain) -> int:
    """Return the bytes of memory that a running guest has been given: at its start, and plugged in since."""
    return _started_memory(domain.raw.live_xml)


@lru_cache(maxsize=KNOWN)
def _started_memory(xml: str) -> int:
    return size_of(look_into(xml).find("memory"), "KiB")


def waits_for_boot(domain: ObservedDomain, cpus: CpuSpec, memory: MemorySpec) -> bool:
    """Whether a running guest gets other vCPUs or memory by a boot only; what can change at once is no reason."""
    facts = domain.facts
    plugged = facts.vcpus == cpus.count or can_plug(domain, cpus)
    blown = facts.memory == memory.size or can_blow(domain, memory) or can_plug_memory(domain, memory)
    most = (cpus.max or cpus.count, memory.max or memory.size)
    return domain.active and not (plugged and blown and most == (facts.max_vcpus, facts.max_memory))


def live_steps(
    domain: ObservedDomain, cpus: CpuSpec, memory: MemorySpec, tuning: Tuning, why: str, observed: Observed
) -> Iterator[Planned]:
    """Yield the steps that bring a running guest to a spec at once, as far as it goes: vCPUs, balloon, the rest."""
    uuid, name, live = domain.uuid, domain.name, live_facts(domain.raw.live_xml)
    vcpus = live.vcpus
    if can_plug(domain, cpus) and vcpus < cpus.count:
        text = f"{name}: plug vCPUs {vcpus} -> {cpus.count}"
        yield Planned(SetVcpus(uuid, name, cpus.count), SetVcpus(uuid, name, vcpus), Change.LIVE, name, text)
        vcpus = cpus.count
    if can_blow(domain, memory):
        yield from _balloon(domain, live.memory, memory.size)
    yield from retune_steps(domain, tuning, why, observed, vcpus=vcpus)
    if can_plug_memory(domain, memory):
        yield from _plug_memory(domain, live.memory, memory.size)


def _balloon(domain: ObservedDomain, have: int, want: int) -> Iterator[Planned]:
    if have != want:
        uuid, name = domain.uuid, domain.name
        text = f"{name}: balloon {format_size(have)} -> {format_size(want)}"
        yield Planned(SetMemory(uuid, name, want), SetMemory(uuid, name, have), Change.LIVE, name, text)


def _plug_memory(domain: ObservedDomain, have: int, size: int) -> Iterator[Planned]:
    """Yield what plugs in what is missing, after a limit of memory was raised, and lets the balloon go."""
    uuid, name, more = domain.uuid, domain.name, size - started_memory(domain)
    taken = {alias_of(module) for module in look_into(domain.raw.live_xml).findall("devices/memory")}
    alias = next(free for number in count(1) if (free := f"ua-memory-{number}") not in taken)
    do, undo = PlugMemory(uuid, name, alias, more), UnplugMemory(uuid, name, alias)
    yield Planned(
        do, undo, Change.LIVE, name, f"{name}: plug {format_size(more)} of memory, {format_size(size)} in all"
    )
    yield from _balloon(domain, have + more, size)


def held_differences(
    tuning: Tuning, cpus: CpuSpec, domain: ObservedDomain, observed: Observed
) -> Iterator[tuple[str, str, str, bool]]:
    """Yield every field that differs, in the definition or in what runs, as wanted and as it is; whether it can change
    while the guest runs comes last.
    """
    online = observed.topology.online
    want, have = normal(defined(tuning, cpus), online), normal(parse_tuning(domain.raw.xml), online)
    running = domain.active and bool(domain.raw.live_xml)
    want_now = normal(on_live(tuning, domain), online) if running else want
    have_now = normal(live_tuning(domain), online) if running else want_now
    for field, name in _LIVE:
        if getattr(want, name) != getattr(have, name):
            yield field, told(want, name), told(have, name), True
        elif getattr(want_now, name) != getattr(have_now, name):
            yield field, told(want_now, name), f"{told(have_now, name) or 'none'} while it runs", True
    for field, name in _AT_BOOT:
        if getattr(want, name) != getattr(have, name):
            yield field, told(want, name), told(have, name), False
    if tuning.shape is not None and tuning.shape != (shown := parse_shape(domain.raw.xml)):
        yield SHAPE, str(tuning.shape), str(shown), False
    if tuning.shape is None and cpus.topology is None and mirrors(applied_spec(domain)):
        yield SHAPE, "", "host", False


def told(tuning: Tuning, name: str) -> str:
    """Return a field of a tuning as people write it."""
    value = getattr(tuning, name)
    if name in ("pins", "io"):
        return " ".join(f"{vcpu}={cpus}" for vcpu, cpus in value)
    if name in _QUOTAS:
        return f"{value / PERIOD:g}" if value else ""
    if name in ("hard_limit", "swap_limit", "page"):
        return format_size(value) if value else ""
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value) if value else ""
