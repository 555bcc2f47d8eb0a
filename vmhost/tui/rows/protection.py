"""How guests are protected, as rows, and the points and snapshots of one of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vmhost.model.nightly import Protection
from vmhost.model.points import Point
from vmhost.tui.rows.cells import Cell, Column, Line, Signs, Tone, cell, size, span

if TYPE_CHECKING:
    from vmhost.ops.snapshots import SnapshotRow

COLUMNS: Final = (
    Column("name", "GUEST", 14, grows=2, widest=40),
    Column("state", "STATE", 13),
    Column("age", "AGE", 5, rank=1, right=True),
    Column("kind", "KIND", 11, rank=5),
    Column("level", "LEVEL", 11, rank=3),
    Column("verified", "VERIFIED", 20, rank=4),
    Column("points", "POINTS", 6, rank=6, right=True),
    Column("drilled", "DRILLED", 20, rank=7),
    Column("why", "WHY", 20, rank=2, grows=1, widest=80),
)


@dataclass(frozen=True, slots=True)
class Protected:
    """What protects the guests of a host: a row for each guest, the worst first, and all points and snapshots."""

    rows: tuple[Protection, ...] = ()
    points: tuple[Point, ...] = ()
    snapshots: tuple[SnapshotRow, ...] = ()

    def points_of(self, uuid: str) -> list[Point]:
        """Return the points of a guest, the newest first; another guest that had its name has none here."""
        found = [point for point in self.points if point.ref.guest == uuid]
        return sorted(found, key=lambda point: point.generation, reverse=True)


def protection_cells(
    row: Protection, points: Sequence[Point], columns: Sequence[Column], signs: Signs
) -> tuple[Cell, ...]:
    """Return the cells of one guest with its points."""
    newest = next((point for point in points if point.id == row.newest), None)
    verified = newest.verified if newest else "-"
    state = (
        Cell(f"{signs.warning} unprotected", Tone.BAD) if row.problem else Cell(f"{signs.mark} protected", Tone.GOOD)
    )
    cells = {
        "name": cell(row.name),
        "state": state,
        "age": Cell(span(row.age) if row.age >= 0 else "-"),
        "kind": Cell(row.kind or "-"),
        "level": Cell(row.level or "-"),
        "verified": Cell(verified) if verified else Cell("never", Tone.WARN),
        "points": Cell(str(row.points)),
        "drilled": Cell(row.drilled) if row.drilled else Cell("never", Tone.DIM),
        "why": cell(row.problem, Tone.DIM),
    }
    return tuple(cells[column.id] for column in columns)


def kept_lines(name: str, uuid: str, found: Protected, signs: Signs) -> list[Line]:
    """Return the points and snapshots of a guest, the newest first."""
    snapshots = [row for row in found.snapshots if row.guest == name]
    return [*_points(name, found.points_of(uuid), signs), Line(""), *_snapshots(name, snapshots, signs)]


def _points(name: str, points: Sequence[Point], signs: Signs) -> Iterator[Line]:
    yield Line(f"POINTS OF {name}", Tone.LIVELY)
    for point in points:
        notes = [f"verified {point.verified}" if point.verified else "never verified"]
        notes += ["pinned"] if point.pinned else []
        notes += [f"because {point.because}"] if point.because else []
        sign = f"{signs.crashed} DAMAGED " if point.damaged else ""
        text = f"{sign}{point.id}  {point.kind:<11} {point.level:<11} {size(point.size):>5}  {', '.join(notes)}"
        yield Line(text, Tone.BAD if point.damaged else Tone.PLAIN)
    if not points:
        yield Line("it has none: b plans one", Tone.WARN)


def _snapshots(name: str, rows: Sequence[SnapshotRow], signs: Signs) -> Iterator[Line]:
    yield Line(f"SNAPSHOTS OF {name}", Tone.LIVELY)
    for row in reversed(rows):
        here = f" {signs.cursor} its disks rest on it" if row.present else ""
        state = "" if row.state == "whole" else f"  {row.state.upper()}"
        text = f"{row.name}  {row.created}  {row.level:<11} {size(row.size):>5}{state}{here}"
        yield Line(text, Tone.PLAIN if row.state == "whole" else Tone.WARN)
    if not rows:
        yield Line("it has none: N plans one", Tone.DIM)
