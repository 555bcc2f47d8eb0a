"""What is noted about points beside them, since they never change: pins, and how their last verification ended."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from vmhost.drivers.files import os_errors, write_state
from vmhost.drivers.repository import manifest, places
from vmhost.model.errors import Absent, DamagedData
from vmhost.model.points import Point, PointRef

FILE: Final = "notes.json"
VERSION: Final = 1
_LOCK: Final = ".notes.lock"
_KINDS: Final = {"pinned": bool, "verified": str, "damaged": bool}


def with_notes(point: Point) -> Point:
    """Return a point with what is noted about it; where that is damaged nothing is known, and nothing may go."""
    try:
        noted = read(places.points(point.ref)).get(point.id, {})
    except DamagedData:
        return replace(point, pinned=True)
    return replace(point, **noted)


def note(ref: PointRef, **values: bool | str) -> None:
    """Note something about a point; what is noted about points that are gone is dropped.

    :raises DamagedData: what is noted cannot be read; it would be lost, and pins with it.
    """
    above = places.points(ref)
    lock = places.locked(above.parent / _LOCK, ref.id, "notes something about it")
    with os_errors(above.parent, "note"), lock:
        kept = {name: entry for name, entry in read(above).items() if places.plain_directory(above / name)}
        kept[ref.id] = {**kept.get(ref.id, {}), **values}
        write_state(above.parent / FILE, kept, version=VERSION)


def read(above: Path) -> dict[str, dict[str, Any]]:
    """Return what is noted about the points in a directory, by their ids. :raises DamagedData: it cannot be read."""
    path = above.parent / FILE
    try:
        found = manifest.data_in(path, manifest.read_text(path), newest=VERSION)
    except Absent:
        return {}
    except DamagedData as error:
        raise _damaged(path, error.message) from error
    for name, entry in found.items():
        if not isinstance(entry, dict) or not all(_is_known(key, value) for key, value in entry.items()):
            raise _damaged(path, f"says nothing about {name[:80]!a} that can be understood")
    return found


def _is_known(key: str, value: Any) -> bool:
    if type(value) is not _KINDS.get(key):
        return False
    if key == "verified" and value:
        try:
            manifest.checked_time(value)
        except ValueError:
            return False
    return True


def _damaged(path: Path, why: str) -> DamagedData:
    quoted = shlex.quote(str(path))
    text = f"{why}; until it is moved away all points beside it stay, and none is pinned, unpinned or marked"
    return DamagedData(text, subject=str(path), hint=f"mv {quoted} {shlex.quote(f'{path}.damaged')}")
