"""A B A B in one run: medians, and the median of the ratios of neighbouring runs, so that noise meets all alike."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One way: its median and 95th percentile in milliseconds, and its ratio to the base."""

    name: str
    median_ms: float
    p95_ms: float
    ratio: float


def interleave(ways: Mapping[str, Callable[[], float | None]], *, base: str, rounds: int, warm: int = 1) -> list[Row]:
    """Run every way once in each round and return a row for each.

    A way that returns a number of seconds has measured itself, because not all that it does counts.
    """
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + warm):
        for name, once in ways.items():
            began = time.perf_counter()
            own = once()
            if turn >= warm:
                times[name].append(time.perf_counter() - began if own is None else own)
    return [row(name, taken, times[base]) for name, taken in times.items()]


def row(name: str, taken: list[float], base: list[float]) -> Row:
    """Return one way's row."""
    ratios = [mine / theirs for mine, theirs in zip(taken, base, strict=True)]
    return Row(name, statistics.median(taken) * 1e3, p95(taken) * 1e3, statistics.median(ratios))


def p95(taken: list[float]) -> float:
    """Return the 95th percentile; of few values it may lie beyond the highest of them."""
    return statistics.quantiles(taken, n=20)[-1] if len(taken) > 1 else taken[0]


def table(title: str, rows: list[Row]) -> None:
    """Print the rows."""
    out = sys.stdout.write
    out(f"\n{title}\n\n| way | median ms | 95th percentile ms | ratio |\n|---|---|---|---|\n")
    for item in rows:
        out(f"| {item.name} | {item.median_ms:.1f} | {item.p95_ms:.1f} | {item.ratio:.2f} |\n")


def report(title: str, rows: list[Row], *, of: str, limit: float) -> int:
    """Print the table; return 1 when the way ``of`` exceeds its limit, else 0."""
    table(title, rows)
    ours = next(item for item in rows if item.name == of)
    kept = ours.ratio <= limit
    sys.stdout.write(f"\n{of}: {ours.ratio:.2f}, promised at most {limit}: {'kept' if kept else 'NOT KEPT'}\n")
    return 0 if kept else 1
