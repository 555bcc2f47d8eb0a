"""What is kept of a guest as rows: its points in the repository, and its snapshots in its own storage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from vmhost.tui.rows.cells import Cell, Column, Signs, Tone, cell, lasting, size

if TYPE_CHECKING:
    from vmhost.model.drills import DrillRecord
    from vmhost.model.points import Point
    from vmhost.ops.protectionview import Guarded, ProtectionView
    from vmhost.ops.snapshots import SnapshotRow

COLUMNS: Final = (
    Column("what", "KEPT", 8),
    Column("name", "NAME", 23, grows=2, widest=40),
    Column("age", "AGE", 4, rank=1, right=True),
    Column("kind", "KIND", 11, rank=5),
    Column("level", "LEVEL", 11, rank=4),
    Column("size", "SIZE", 5, rank=2, right=True),
    Column("verified", "VERIFIED", 8, rank=3, right=True),
    Column("drilled", "DRILLED", 8, rank=6, right=True),
    Column("notes", "NOTES", 16, rank=2, grows=1, widest=120),
)


@dataclass(frozen=True, slots=True)
class Kept:
    """A point, with its last drill, or a snapshot; ``age`` in seconds. ``whole``: neither it nor what it lies on is
    known to be damaged.
    """

    age: float
    point: Point | None = None
    snapshot: SnapshotRow | None = None
    drill: DrillRecord | None = None
    verified: float | None = None
    drilled: float | None = None
    whole: bool = True

    @property
    def key(self) -> str:
        """What it is known by among those of its guest."""
        if self.point is not None:
            return f"point {self.point.ref.host} {self.point.id}"
        return f"snapshot {self.name}"

    @property
    def name(self) -> str:
        """The id of a point, the name of a snapshot."""
        if self.point is not None:
            return self.point.id
        return self.snapshot.name if self.snapshot else ""


def kept_of(guest: Guarded, view: ProtectionView) -> tuple[Kept, ...]:
    """Return what is kept of a guest: snapshots, then points, each the newest first."""
    rows = [row for row in reversed(view.snapshots) if row.guest == guest.name and guest.objectives is not None]
    return (
        *(Kept(_age(row.created, view.now), snapshot=row) for row in rows),
        *(_of_point(point, view) for point in view.points.get(guest.uuid, ())),
    )


def _of_point(point: Point, view: ProtectionView) -> Kept:
    drill = view.drills.get((point.ref.guest, point.id))
    return Kept(
        _age(point.taken, view.now),
        point=point,
        drill=drill,
        verified=_age(point.verified, view.now) if point.verified else None,
        drilled=_age(drill.started, view.now) if drill else None,
        whole=point.ref in view.whole,
    )


def _age(time: str, now: float) -> float:
    try:
        return max(0.0, now - datetime.fromisoformat(time).timestamp())
    except ValueError:  # somebody wrote something else into the definition
        return 0.0


def kept_cells(kept: Kept, columns: Sequence[Column], signs: Signs) -> tuple[Cell, ...]:
    """Return the cells of a point or snapshot."""
    cells = _point_cells(kept, kept.point, signs) if kept.point else _snapshot_cells(kept, signs)
    return tuple(cells[column.id] for column in columns)


def _point_cells(kept: Kept, point: Point, signs: Signs) -> dict[str, Cell]:
    drilled = Cell("never", Tone.DIM) if kept.drilled is None else Cell(lasting(kept.drilled))
    if kept.drill is not None and kept.drill.failed:
        drilled = Cell(f"{signs.crashed} {drilled.text}", Tone.BAD)
    bad = not kept.whole
    notes = ["DAMAGED"] if point.damaged else ["LIES ON A DAMAGED POINT"] if bad else []
    notes += ["pinned"] if point.pinned else []
    notes += [f"drill failed: {kept.drill.failed}"] if kept.drill and kept.drill.failed else []
    notes += [point.because or f"since {point.parent}"] if point.because or point.parent else []
    verified = Cell("never", Tone.WARN) if kept.verified is None else Cell(lasting(kept.verified), Tone.GOOD)
    return {
        "what": Cell("point"),
        "name": cell(point.id, Tone.BAD if bad else Tone.PLAIN),
        "age": Cell(lasting(kept.age)),
        "kind": cell(point.kind),
        "level": cell(point.level),
        "size": Cell(size(point.size)),
        "verified": Cell(f"{signs.crashed} bad", Tone.BAD) if bad else verified,
        "drilled": drilled,
        "notes": cell(", ".join(notes), Tone.BAD if bad else Tone.DIM),
    }


def _snapshot_cells(kept: Kept, signs: Signs) -> dict[str, Cell]:
    row = kept.snapshot
    assert row is not None
    notes = [] if row.state == "whole" else [row.state.upper()]
    notes += ["its disks rest on it"] if row.present else []
    notes += [f"on {row.on}"] if row.on else []
    notes += [row.why] if row.why else []
    return {
        "what": Cell("snapshot", Tone.LIVELY),
        "name": cell(row.name, Tone.PLAIN if row.state == "whole" else Tone.WARN),
        "age": Cell(lasting(kept.age)),
        "kind": Cell("-", Tone.DIM),
        "level": cell(row.level),
        "size": Cell(size(row.size)),
        "verified": Cell("-", Tone.DIM),
        "drilled": Cell("-", Tone.DIM),
        "notes": cell(", ".join(notes), Tone.DIM if row.state == "whole" else Tone.WARN),
    }
