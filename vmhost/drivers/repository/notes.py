"""What is noted about points beside them, since they never change: pins, and how their last verification ended."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from vmhost.drivers.files import read_state, write_state
from vmhost.drivers.repository import places
from vmhost.model.errors import Absent, DamagedData
from vmhost.model.points import Point, PointRef

FILE: Final = "notes.json"
VERSION: Final = 1


def with_notes(point: Point) -> Point:
    """Return a point with what is noted about it; notes that cannot be read are none, except that nothing may go."""
    found = _read(point.ref)
    if found is None:
        return replace(point, pinned=True)
    noted = found.get(point.id, {})
    return replace(
        point,
        pinned=bool(noted.get("pinned")),
        verified=str(noted.get("verified", "")),
        damaged=bool(noted.get("damaged")),
    )


def note(ref: PointRef, **values: Any) -> None:
    """Note something about a point; what is noted about points that are gone is dropped."""
    found = _read(ref) or {}
    above = places.points(ref)
    kept = {name: entry for name, entry in found.items() if places.plain_directory(above / name)}
    kept[ref.id] = {**kept.get(ref.id, {}), **values}
    write_state(above.parent / FILE, kept, version=VERSION)


def _read(ref: PointRef) -> dict[str, Any] | None:
    try:
        return read_state(places.points(ref).parent / FILE, newest=VERSION).data
    except Absent:
        return {}
    except DamagedData:
        return None
