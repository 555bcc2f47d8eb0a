"""The records of a guest's snapshots, read from its definition leniently: a newer vmhost may have written them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vmhost.model.snapshots import NO_SNAPSHOTS, SNAPSHOTS, SNAPSHOTS_VERSION, KeptDisk, Level, Snapshot, Snapshots
from vmhost.render.parse.reading import look_into

if TYPE_CHECKING:
    from vmhost.render.parse.reading import Node

_NS: Final = f"{{{SNAPSHOTS}}}"


def parse_snapshots(xml: str | Node) -> Snapshots:
    """Return the records of a definition. :raises DamagedData: it is not well-formed XML."""
    if isinstance(xml, str) and SNAPSHOTS not in xml:
        return NO_SNAPSHOTS
    root = look_into(xml)
    element = root.find(f"metadata/{_NS}snapshots")
    if element is None:
        return NO_SNAPSHOTS
    return Snapshots(
        items=tuple(_snapshot(item) for item in element.findall(f"{_NS}snapshot")),
        present=_number(element.get("present")),
        next=_number(element.get("next")),
        reverted=element.get("reverted", ""),
        frozen=element.get("frozen", ""),
        version=_number(element.get("version")) or SNAPSHOTS_VERSION + 1,
    )


def _snapshot(element: Node) -> Snapshot:
    return Snapshot(
        number=_number(element.get("number")),
        name=element.get("name", ""),
        created=element.get("created", ""),
        level=_level(element.get("level")),
        parent=_number(element.get("parent")),
        disks=tuple(
            KeptDisk(disk.get("id", ""), disk.get("pool", ""), disk.get("volume", ""))
            for disk in element.findall(f"{_NS}disk")
        ),
        nvram=element.get("nvram", ""),
        why=element.get("why", ""),
        merging=element.get("merging") == "yes",
    )


def _level(text: str | None) -> Level:
    """Return the level; of a word that is not known here, the one that promises least."""
    return Level(text) if text in tuple(Level) else Level.CRASH


def _number(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdecimal() else 0
