"""Who has which pCPUs, and what of the host is still to be had: the map of the host's screen."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Final

from vmhost.model.capacity import Capacity, CellRow, CpuRow, Fit
from vmhost.model.units import format_cpuset, format_size, parse_cpuset
from vmhost.ops.guestview import Pins
from vmhost.tui.rows.cells import Line, Signs, Tone

FITS: Final = ("small", "medium", "large")
"""The kinds of guests whose number is told."""

_LABEL: Final = 14
_SIGN: Final = {"shared": ".", "own": "#", "empty": "-", "reserve": "R", "isolated": "i", "offline": "x"}
_MINE: Final = "@"
_WORDS: Final = {
    "shared": "shared",
    "own": "somebody's own",
    "empty": "kept empty",
    "reserve": "the host's",
    "isolated": "isolated, free",
    "offline": "offline",
}
_CORES: Final = 16
"""Cores in a row of the map; threads of one core stand together."""


def core_lines(capacity: Capacity, signs: Signs) -> list[Line]:
    """Return the map of cores with its legend, who has some alone, memory and hugepages, and what still fits."""
    return [*_map(capacity), *_owners(capacity), *_memory(capacity, signs), *_rest(capacity, signs)]


def guest_core_lines(capacity: Capacity, pins: Pins) -> list[Line]:
    """Return the map of cores with those marked that one guest is held to, and where each of its vCPUs may run."""
    mine = frozenset(cpu for _, cpus in pins.vcpus for cpu in parse_cpuset(cpus))
    return [*_map(capacity, mine), Line(""), *_places(capacity, pins)]


def room_lines(fit: Fit) -> list[Line]:
    """Return what the ledger says of one more guest of a size."""
    if fit.count:
        return [Line(f"it fits: the ledger has room for {fit.count} of this size", Tone.GOOD)]
    return [Line(f"it does not fit: {fit.then}", Tone.BAD)]


def _places(capacity: Capacity, pins: Pins) -> Iterator[Line]:
    yield Line("PINS", Tone.LIVELY)
    for vcpu, cpus in pins.vcpus:
        yield Line(f"{f'vCPU {vcpu}':<{_LABEL}}pCPU {cpus}")
    if not pins.vcpus:
        pool = capacity.pool or "every pCPU"
        yield Line(f"{'vCPUs':<{_LABEL}}not pinned: {capacity.sharing} vCPUs of all guests share {pool}")
    if pins.emulator:
        yield Line(f"{'emulator':<{_LABEL}}pCPU {pins.emulator}")


def _map(capacity: Capacity, mine: frozenset[int] = frozenset()) -> Iterator[Line]:
    yield Line("CORES", Tone.LIVELY)
    for cell, cpus in groupby(capacity.cpus, key=lambda cpu: cpu.cell):
        cores = list(_cores(list(cpus)))
        for start in range(0, len(cores), _CORES):
            row = cores[start : start + _CORES]
            name = f"cell {cell}" if not start else ""
            numbers = format_cpuset(cpu.id for core in row for cpu in core)
            marks = " ".join("".join(_MINE if cpu.id in mine else _SIGN[cpu.use] for cpu in core) for core in row)
            yield Line(f"{name:<{_LABEL}}{marks}  {numbers}")
    used = {cpu.use for cpu in capacity.cpus}
    words = [f"{_SIGN[use]} {_WORDS[use]}" for use in _SIGN if use in used]
    if mine:
        words.insert(0, f"{_MINE} its own pins")
    yield Line(" " * _LABEL + "  ".join(words), Tone.DIM)


def _cores(cpus: list[CpuRow]) -> Iterator[tuple[CpuRow, ...]]:
    """Yield the pCPUs of a cell by core, in the order of each core's first."""
    by_core: dict[str, list[CpuRow]] = {}
    for cpu in cpus:
        by_core.setdefault(cpu.siblings or str(cpu.id), []).append(cpu)
    yield from (tuple(core) for core in by_core.values())


def _owners(capacity: Capacity) -> Iterator[Line]:
    for guest in capacity.guests:
        if guest.own:
            yield Line(f"{guest.name[: _LABEL - 1]:<{_LABEL}}{guest.own} ({guest.policy})")
    if capacity.sharing:
        pool = capacity.pool or "no pCPU"
        yield Line(f"{'others':<{_LABEL}}{capacity.sharing} vCPUs share {pool}")
    if capacity.loose:
        yield Line(f"{'foreign':<{_LABEL}}may run on every pCPU: {', '.join(capacity.loose)}", Tone.DIM)


def _memory(capacity: Capacity, signs: Signs) -> Iterator[Line]:
    yield Line("")
    yield Line("PROMISED", Tone.LIVELY)
    text = f"{format_size(capacity.promised)} of {format_size(capacity.memory)}, {format_size(capacity.free)} free"
    kept = f", {format_size(capacity.reserve)} kept for the host" if capacity.reserve else ""
    yield Line(f"{'memory':<{_LABEL}}{text}{kept}")
    if len(capacity.cells) > 1:
        yield from (_cell(cell) for cell in capacity.cells)
    for cell in capacity.cells:
        for pages in cell.pages:
            size = format_size(pages.size)
            yield Line(f"{'hugepages':<{_LABEL}}cell {cell.id}: {pages.free} of {pages.total} free, {size} each")
    yield from (Line(f"{signs.warning} {text}", Tone.WARN) for text in capacity.short)


def _cell(cell: CellRow) -> Line:
    unbound = f"{format_size(cell.unbound)} of {format_size(cell.memory)} bound to no guest"
    return Line(f"{f'cell {cell.id}':<{_LABEL}}pCPUs {cell.cpus}, {unbound}")


def _rest(capacity: Capacity, signs: Signs) -> Iterator[Line]:
    for fit in capacity.fits:
        then = f"; then {fit.then}" if fit.then else ""
        yield Line(f"{fit.kind:<{_LABEL}}{fit.count} more would fit{then}")
    for text in capacity.after_reboot:
        yield Line(f"{signs.warning} after a reboot: {text}", Tone.WARN)
    for one in capacity.starved:
        text = f"{one.name}: vCPU {one.vcpu} waits {100 * one.share:.0f} percent of the time; {one.by} runs there"
        yield Line(f"{signs.warning} {text}", Tone.WARN)
    if capacity.pressure:
        told = ", ".join(f"{what} {percent:g} percent" for what, percent in capacity.pressure)
        yield Line(f"{'pressure':<{_LABEL}}{told}")
