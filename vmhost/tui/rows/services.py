"""Services inside guests as rows, and what their probes say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from vmhost.model.services import Health, ServiceRow
from vmhost.tui.rows.cells import Cell, Column, Line, Signs, Tone, cell

if TYPE_CHECKING:
    from vmhost.model.domains import ObservedDomain
    from vmhost.model.services import DeployedService

COLUMNS: Final = (
    Column("service", "SERVICE", 14, grows=1, widest=30),
    Column("guest", "GUEST", 14, grows=2, widest=30),
    Column("health", "HEALTH", 13),
    Column("version", "VERSION", 10, rank=2),
    Column("env", "ENV", 6, rank=5),
    Column("state", "UNIT IS", 16, rank=1),
    Column("drift", "DRIFT", 5, rank=3, right=True),
    Column("since", "SINCE", 27, rank=4),
)
_HEALTH: Final = {
    Health.UP: ("running", Tone.GOOD),
    Health.DOWN: ("crashed", Tone.BAD),
    Health.STARTING: ("closing", Tone.WARN),
    Health.UNKNOWN: ("off", Tone.DIM),
}
_ORDER: Final = (Health.DOWN, Health.STARTING, Health.UNKNOWN, Health.UP)


def service_key(row: ServiceRow) -> str:
    """Return what a row is known by."""
    return f"{row.guest}/{row.service}"


def worst_first(rows: Sequence[ServiceRow]) -> list[ServiceRow]:
    """Return services, those that are not reached or not well first, then those that somebody changed."""
    return sorted(rows, key=_rank)


def _rank(row: ServiceRow) -> tuple[bool, int, bool, str, str]:
    return not row.error, _ORDER.index(row.health), not row.drift, row.service, row.guest


def service_cells(row: ServiceRow, columns: Sequence[Column], signs: Signs) -> tuple[Cell, ...]:
    """Return the cells of a service in a guest."""
    sign, tone = _HEALTH[row.health]
    health = Cell(f"{getattr(signs, sign)} {row.health}{', rolling' if row.roll else ''}", tone)
    asked = bool(row.looks or row.state)
    cells = {
        "service": cell(row.service),
        "guest": cell(row.guest),
        "health": Cell(f"{signs.warning} unreached", Tone.BAD) if row.error else health,
        "version": cell(row.version),
        "env": cell(row.env or "-"),
        "state": cell(row.state or "-"),
        "drift": Cell(str(len(row.drift)), Tone.WARN) if row.drift else Cell("no" if asked else "-", Tone.DIM),
        "since": cell(row.since or "-"),
    }
    return tuple(cells[column.id] for column in columns)


def service_lines(row: ServiceRow, signs: Signs) -> list[Line]:
    """Return what is to be said of a service: every probe, and every difference from what was deployed."""
    head = Line(f"{row.service} IN {row.guest}{f', unit {row.unit}' if row.unit else ''}", Tone.LIVELY)
    error = [Line(f"{signs.crashed} {line}", Tone.BAD) for line in row.error.splitlines()]
    return [head, *error, *_looks(row, signs), *_drift(row, signs)]


def _looks(row: ServiceRow, signs: Signs) -> Iterator[Line]:
    for look in row.looks:
        sign, tone = (signs.mark, Tone.GOOD) if look.good else (signs.crashed, Tone.BAD)
        yield Line(f"{sign} {look.probe}: {look.text} ({look.seconds * 1000:.0f} ms)", tone)
    if row.roll:
        yield Line(f"{signs.closing} a rolling change to {row.roll} is under way", Tone.WARN)


def _drift(row: ServiceRow, signs: Signs) -> Iterator[Line]:
    for item in row.drift:
        yield Line(
            f"{signs.warning} {item.what} is {item.have or 'absent'}, should be {item.want or 'absent'}", Tone.WARN
        )
    if row.looks and not row.drift:
        yield Line("it is as it was deployed", Tone.DIM)


def deployed_lines(domain: ObservedDomain) -> list[Line]:
    """Return what was deployed into a guest, as its definition tells; nobody is asked."""
    found = domain.metadata.services if domain.metadata else ()
    if not found:
        return [Line("no service was deployed to it", Tone.DIM)]
    return [Line(f"{item.name} {item.version}{_deployed(item)}") for item in found]


def _deployed(item: DeployedService) -> str:
    words = [item.env] if item.env else []
    words += [f"deployed {item.deployed} by {item.user}"] if item.deployed else []
    words += ["stopped by a person"] if item.stopped else []
    words += [f"rolling to {item.roll}"] if item.roll else []
    return f"  ({', '.join(words)})" if words else ""
