"""Whether points are what they were: every byte, every name, and what each lies on."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Final

from vmhost.backupports import Tell
from vmhost.drivers.files import os_errors
from vmhost.drivers.images import inspection
from vmhost.drivers.repository import copying, manifest, places
from vmhost.model.errors import Absent, DamagedData, Refused
from vmhost.model.points import Damage, Point, PointDisk, PointFile, PointRef

LONGEST = 10_000
"""Points that a chain may have: more is a circle."""

LEVELS: Final = 500
"""Files that a disk may consist of: QEMU reads JSON so deep, and no longer words than 128 KiB."""


def chain(ref: PointRef) -> tuple[Point, ...]:
    """Return a point and all that it lies on, itself first.

    :raises Absent: there is no such point; :raises DamagedData: one of them cannot be read, or is missing.
    """
    found: list[Point] = []
    while len(found) < LONGEST:
        directory = places.published(ref)
        if not places.plain_directory(directory):
            if found:
                text = f"lies on {ref.id}, which is not there"
                raise DamagedData(text, subject=found[-1].id, hint=f"vmhost backup list {found[0].name}")
            raise Absent("there is no such point", subject=ref.id, hint="vmhost backup list")
        point = manifest.read(directory, ref.repository)
        found.append(point)
        if not point.parent:
            return tuple(found)
        ref = replace(ref, id=point.parent)
        if any(ref.id == other.id for other in found):
            break
    raise DamagedData("lies on itself", subject=found[0].id, hint="vmhost backup verify --all")


def levels(ref: PointRef, file: str) -> tuple[tuple[Point, PointDisk], ...]:
    """Return a disk of a point and those that it lies on, itself first, each with its point.

    :raises Absent, DamagedData: as :func:`chain`; or the point holds no such disk, or a link leads elsewhere.
    """
    places.check_levels(ref)
    found: list[tuple[Point, PointDisk]] = []
    for point in chain(ref):
        disk = next((disk for disk in point.disks if disk.file == file), None)
        if disk is None:
            break
        found.append((point, disk))
        if not disk.backing:
            return tuple(found)
    raise DamagedData(f"holds no whole {file}", subject=ref.id, hint="vmhost backup verify --all")


def tree(ref: PointRef, file: str) -> str:
    """Return a disk and all that it lies on, as QEMU's JSON; paths are relative to the guest's points.

    QEMU is told each file that it opens: what a header says by the time that it is read leads it nowhere.

    :raises DamagedData: a disk is not, or does not lie on, what its point says; :raises Refused: it lies on too many.
    """
    needed = levels(ref, file)
    if len(needed) > LEVELS:
        hint = f"vmhost backup run --full {needed[0][0].name}"
        raise Refused(f"lies on {len(needed) - 1} points, {LEVELS - 1} are the most", subject=ref.id, hint=hint)
    found = "null"
    for point, disk in reversed(needed):
        if damage := _unfit(places.published(point.ref) / file, disk):
            raise DamagedData(f"{file} {damage}", subject=point.id, hint=f"vmhost backup verify {point.name}")
        opened = json.dumps({"driver": "file", "filename": f"{point.id}/{file}"})
        found = f'{{"driver": "qcow2", "file": {opened}, "backing": {found}}}'
    return found


def _unfit(path: Path, disk: PointDisk) -> str:
    """Return why a file cannot be the disk that it should be, by its header, or empty."""
    try:
        with os_errors(path, "read"), places.opened(path):
            return header_damage(path, disk)
    except Absent:
        return "is missing"


def verify(ref: PointRef, tell: Tell, known: Collection[str] = ()) -> tuple[Damage, ...]:
    """Return everything that is not as it was, of a point and of what it lies on.

    :param known: ids of points among them of which it is only seen that all is there.
    :raises DriverError: something of it cannot be read now, so nobody knows.
    """
    try:
        links = chain(ref)
    except DamagedData as error:
        return (Damage(ref.id, _where(error, ref), error.message),)
    meter = copying.Meter(sum(point.size for point in links if point.id not in known), tell)
    found: list[Damage] = []
    for point in links:
        found += _missing(point) if point.id in known else point_damages(point, meter)
    return tuple(found)


def _missing(point: Point) -> Iterator[Damage]:
    return (damage for file in point.files if (damage := file_damage(point, file, None)) is not None)


def point_damages(point: Point, meter: copying.Meter) -> Iterator[Damage]:
    """Yield what is wrong with one point whose manifest holds."""
    directory = places.published(point.ref)
    yield from _strangers(point, directory)
    with ThreadPoolExecutor(2, thread_name_prefix="verify") as pool:
        for found in pool.map(lambda file: file_damage(point, file, meter, direct=True), point.files):
            if found is not None:
                yield found


def _strangers(point: Point, directory: Path) -> Iterator[Damage]:
    """Yield what should not be there, and the list of sums if it is another one."""
    sums = manifest.sums_of(point, manifest.text_of(point))
    try:
        same = manifest.read_text(directory / places.SUMS) == sums
    except (Absent, DamagedData):
        same = False
    if not same:
        yield Damage(point.id, places.SUMS, "is not what it was")
    known = {places.MANIFEST, places.SUMS, *(file.name for file in point.files)}
    with os_errors(directory, "look into"):
        entries = sorted(directory.iterdir())
    for entry in entries:
        if entry.name not in known:
            yield Damage(point.id, ascii(entry.name)[1:-1], "does not belong to this point")


def file_damage(point: Point, file: PointFile, meter: copying.Meter | None, *, direct: bool = False) -> Damage | None:
    """Return what is wrong with one file of a point, or None.

    :param meter: counts what is read; None: it is only seen that the file is there and how large it is.
    :param direct: as for :func:`copying.hash_file`.
    :raises DriverError: it cannot be read now, which says nothing about what it holds.
    """
    path = places.published(point.ref) / file.name
    try:
        size, digest = copying.hash_file(path, meter.add, direct=direct) if meter else (_size(path), file.sha256)
    except Absent:
        return Damage(point.id, file.name, "is missing")
    except DamagedData as error:
        return Damage(point.id, file.name, error.message)
    if size != file.size:
        return Damage(point.id, file.name, f"has {size} bytes, should have {file.size}")
    if digest != file.sha256:
        return Damage(point.id, file.name, "its hash is another one: it was changed")
    disk = next((disk for disk in point.disks if disk.file == file.name), None)
    text = disk_damage(path, disk) if disk and meter else ""
    return Damage(point.id, file.name, text) if text else None


def _size(path: Path) -> int:
    with os_errors(path, "read"), places.opened(path) as file:
        return os.fstat(file.fileno()).st_size


def disk_damage(path: Path, disk: PointDisk) -> str:
    """Return what is wrong with a qcow2 file, by its header and by its tables, or empty."""
    return header_damage(path, disk) or copying.check(path)


def header_damage(path: Path, disk: PointDisk) -> str:
    """Return what is wrong with a qcow2 file by its header, which says what else QEMU would open, or empty."""
    try:
        facts = inspection.inspect(path)
    except (DamagedData, Refused) as error:
        return error.message
    if facts.format != "qcow2":
        return f"is {facts.format}, not qcow2"
    if facts.backing_file != disk.backing:
        return f"lies on {facts.backing_file or 'nothing'}, should lie on {disk.backing or 'nothing'}"
    if facts.data_file:
        return f"keeps its data in another file ({facts.data_file})"
    if facts.virtual_size != disk.capacity:
        return f"is a disk of {facts.virtual_size} bytes, should be one of {disk.capacity}"
    return ""


def read_document(ref: PointRef, name: str) -> str:
    """Return a small text of a point. :raises Absent: it holds none; :raises DamagedData: it is not what it was."""
    _check_small(ref, name)
    return manifest.read_text(places.published(ref) / name)


def read_file(ref: PointRef, name: str) -> bytes:
    """Return a small file of a point, as :func:`read_document` does a text."""
    _check_small(ref, name)
    with places.opened(places.published(ref) / name) as file:
        return file.read()


def _check_small(ref: PointRef, name: str) -> None:
    point = manifest.read(places.published(ref), ref.repository)
    file = next((file for file in point.files if file.name == name), None)
    if file is None:
        raise Absent(f"holds no {name}", subject=ref.id, hint=f"vmhost backup list {point.name}")
    if damage := file_damage(point, file, copying.Meter(file.size, lambda done, total: None)):
        raise DamagedData(str(damage), subject=ref.id, hint=f"vmhost backup verify {point.name}")


def _where(error: DamagedData, ref: PointRef) -> str:
    """Return the file that an error is about, by its subject."""
    name = Path(error.subject).name
    return name if name in (places.MANIFEST, places.SUMS) else "" if name == ref.id else name
