"""Services inside guests as rows, and what their probes say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from vmhost.model.reservations import iso
from vmhost.model.services import Health, ServiceRow
from vmhost.tui.rows.cells import LONGEST, Cell, Column, Line, Signs, Tone, cell, spark

if TYPE_CHECKING:
    from vmhost.model.domains import ObservedDomain
    from vmhost.model.services import DeployedService, ProbeHistory
    from vmhost.ops.servicelogs import LogLine

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
ORDERS: Final = ("health", "service", "guest")
BARS: Final = 30
"""Looks of the past that are drawn."""

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
    return ordered(rows, "health")


def ordered(rows: Iterable[ServiceRow], order: str) -> list[ServiceRow]:
    """Return services in one of :data:`ORDERS`; what is alike comes as the worst first."""
    return sorted(rows, key=lambda row: (getattr(row, order) if order != "health" else "", _rank(row)))


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


def service_lines(
    row: ServiceRow, signs: Signs, past: Sequence[ProbeHistory] = (), troubles: Sequence[str] = ()
) -> list[Line]:
    """Return what is to be said of a service: every probe with its past, and every difference from what was deployed.

    :param troubles: what else is wrong, as with the line to its guest.
    """
    head = Line(f"{row.service} IN {row.guest}{f', unit {row.unit}' if row.unit else ''}", Tone.LIVELY)
    error = [Line(f"{signs.crashed} {text}", Tone.BAD) for text in row.error.splitlines()]
    error += [Line(f"{signs.warning} {text}", Tone.WARN) for text in troubles]
    return [head, *error, *_looks(row, signs, past), *_drift(row, signs)]


def _looks(row: ServiceRow, signs: Signs, past: Sequence[ProbeHistory]) -> Iterator[Line]:
    histories = {one.probe: one for one in past}
    for look in row.looks:
        sign, tone = (signs.mark, Tone.GOOD) if look.good else (signs.crashed, Tone.BAD)
        yield Line(f"{sign} {look.probe}: {look.text} ({_ms(look.seconds)})", tone)
        if look.probe in histories:
            yield from _past(histories.pop(look.probe), signs)
    for one in histories.values():
        yield Line(f"{signs.off} {one.probe}: not asked now", Tone.DIM)
        yield from _past(one, signs)
    if row.roll:
        yield Line(f"{signs.closing} a rolling change to {row.roll} is under way", Tone.WARN)


def _past(one: ProbeHistory, signs: Signs) -> Iterator[Line]:
    """Yield what the watch has seen of a probe: its last looks as bars, and what all that are kept come to."""
    latest = one.latest[-BARS:]
    top = max((seconds for seconds in latest if seconds is not None), default=0.0)
    bars = "".join(
        signs.crashed if seconds is None else spark((seconds,), 1, signs, top=top or 1.0) for seconds in latest
    )
    figures = (("median", one.median), ("95th", one.tail), ("most", one.most))
    times = ", ".join(f"{word} {_ms(seconds)}" for word, seconds in figures if seconds is not None)
    words = f"{times or 'never good'}; {one.looks} looks since {iso(one.since)}"
    yield Line(f"  {bars}  {words}", Tone.DIM)
    if one.last_bad is not None:
        yield Line(f"  {one.bad} bad, the last {iso(one.last_bad)}: {one.text}", Tone.WARN)


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def _drift(row: ServiceRow, signs: Signs) -> Iterator[Line]:
    for item in row.drift:
        yield Line(
            f"{signs.warning} {item.what} is {item.have or 'absent'}, should be {item.want or 'absent'}", Tone.WARN
        )
    if row.looks and not row.drift:
        yield Line("it is as it was deployed", Tone.DIM)


def log_line(line: LogLine) -> Line:
    """Return a line of a journal: the time of day (UTC), the guest, the text, cut where nobody could read it anyway."""
    if not line.at:  # said by vmhost of the guest
        return Line(f"{'-':8} {line.guest}  {line.text[:LONGEST]}", Tone.WARN)
    return Line(f"{datetime.fromtimestamp(line.at, UTC):%H:%M:%S} {line.guest}  {line.text[:LONGEST]}")


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
