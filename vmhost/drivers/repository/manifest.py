"""A point's manifest: one JSON file in one spelling, with a checksum over itself; nothing in it is believed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict, fields
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar

from vmhost.drivers.files import checksum, os_errors
from vmhost.drivers.repository import places
from vmhost.model.errors import Absent, DamagedData
from vmhost.model.points import Point, PointDisk, PointFile, PointRef

T = TypeVar("T", PointDisk, PointFile)

VERSION: Final = 1
_LARGEST: Final = 4 << 20
_HEX: Final = re.compile(r"[0-9a-f]{64}")
_BESIDE: Final = ("ref", "pinned", "verified", "damaged")
_TIME: Final = re.compile(r"[12]\d{3}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_MOST: Final = 1 << 63
_KINDS: Final = ("full", "incremental")
_LEVELS: Final = ("application", "filesystem", "crash")


class Newer(DamagedData):
    """A file is a newer vmhost's."""


def text_of(point: Point) -> str:
    """Return the manifest of a point; its own place is not in it, so it may move."""
    data = {key: value for key, value in asdict(point).items() if key not in _BESIDE}
    data |= {"id": point.ref.id, "guest": point.ref.guest, "host": point.ref.host}
    document = {"version": VERSION, "sha256": checksum([VERSION, data]), "data": data}
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


def sums_of(point: Point, manifest: str) -> str:
    """Return what ``sha256sum --check`` reads; the manifest comes first."""
    from hashlib import sha256

    lines = [f"{sha256(manifest.encode()).hexdigest()}  {places.MANIFEST}"]
    lines += [f"{file.sha256}  {file.name}" for file in point.files]
    return "\n".join(lines) + "\n"


def read(directory: Path, repository: str) -> Point:
    """Return the point in a directory.

    :raises DamagedData: its manifest is damaged, lies about its place, is a newer vmhost's, or names what lies outside.
    """
    path = directory / places.MANIFEST
    try:
        text = read_text(path)
    except Absent as error:
        raise _damaged(path, "is missing") from error
    point = _point(path, data_in(path, text, newest=VERSION), directory, repository)
    if text_of(point) != text:
        raise _damaged(path, "is not spelled as vmhost spells it")
    return point


def data_in(path: Path, text: str, *, newest: int) -> dict[str, Any]:
    """Return the data of a JSON text that carries its version and its checksum; ``path`` is where it came from.

    :raises DamagedData: it does not hold; :raises Newer: it is a newer vmhost's.
    """
    try:
        document = json.loads(text)
        version, data, found = document["version"], document["data"], document["sha256"]
        wanted = checksum([version, data])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _damaged(path, "is no file of vmhost") from error
    if not isinstance(version, int) or not isinstance(data, dict):
        raise _damaged(path, "is no file of vmhost")
    if version > newest:
        text = f"was written by a newer vmhost (format {version})"
        raise Newer(text, subject=str(path), hint="vmhost --version")
    if found != wanted:
        raise _damaged(path, "its checksum does not hold")
    return data


def read_text(path: Path) -> str:
    """Return a small file, which is no symbolic link.

    :raises Absent: there is none; :raises DamagedData: it is a link, no file, or no text; :raises DriverError: it
        cannot be read now, which says nothing about what it holds.
    """
    with os_errors(path, "read"), places.opened(path) as file:
        data = file.read(_LARGEST + 1)
    if len(data) > _LARGEST:
        raise _damaged(path, "is far too long")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise _damaged(path, "is no text") from error


def _point(path: Path, data: dict[str, Any], directory: Path, repository: str) -> Point:
    try:
        ref = PointRef(repository, _text(data["host"]), _text(data["guest"]), _text(data["id"]))
        point = Point(
            ref=ref,
            generation=_number(data["generation"]),
            taken=checked_time(data["taken"]),
            kind=_one_of(data["kind"], _KINDS),
            name=_text(data["name"]),
            host_name=_text(data["host_name"]),
            because=_text(data["because"]),
            parent=_text(data["parent"]),
            level=_one_of(data["level"], _LEVELS),
            site=_text(data["site"]),
            checkpoint=_text(data["checkpoint"]),
            nvram=_text(data["nvram"]),
            disks=tuple(_exact(PointDisk, disk) for disk in data["disks"]),
            files=tuple(_exact(PointFile, file) for file in data["files"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, f"lacks something: {error}") from error
    if places.published(ref) != directory:
        raise _damaged(path, f"says that it belongs to {ref.host!a}/{ref.guest!a}/{ref.id!a}")
    _check_names(path, point)
    return point


def _check_names(path: Path, point: Point) -> None:
    """:raises DamagedData: a name leads out of the repository, or a file that is used is not listed."""
    listed = {file.name for file in point.files}
    for file in point.files:
        places.checked(file.name, "a file")
        if not _HEX.fullmatch(file.sha256):
            raise _damaged(path, f"{file.name}: no hash")
    if point.site:
        places.checked(point.site, "a site")
    for disk in point.disks:
        places.checked(disk.id, "a disk")
        if disk.file not in listed:
            raise _damaged(path, f"disk {disk.id!a} is not among its files")
        wanted = f"../{places.checked(point.parent, 'a point')}/{disk.file}" if point.kind == "incremental" else ""
        if disk.backing not in ("", wanted):
            raise _damaged(path, f"{disk.file} lies on {disk.backing!a}, outside of what it may lie on")


def _exact(kind: type[T], data: Any) -> T:
    """Return a value of numbers and texts, each field of which is there and is what it should be."""
    checks: dict[str, Callable[[Any], Any]] = {"int": _number, "str": _text}
    return kind(**{item.name: checks[str(item.type)](data[item.name]) for item in fields(kind)})


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _MOST:
        raise TypeError(f"{ascii(value)[:40]} is no number")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{ascii(value)[:40]} is no text")
    value.encode()
    return value


def checked_time(value: Any) -> str:
    """Return a time in UTC, which exists: nobody who computes with it has to look again."""
    if not _TIME.fullmatch(_text(value)):
        raise ValueError(f"{ascii(value)[:40]} is no time")
    datetime.fromisoformat(value)
    return str(value)


def _one_of(value: Any, words: tuple[str, ...]) -> Any:
    if value not in words:
        raise ValueError(f"{ascii(value)[:40]} is none of {', '.join(words)}")
    return value


def _damaged(path: Path, why: str) -> DamagedData:
    return DamagedData(why, subject=str(path), hint="vmhost backup verify --all")
