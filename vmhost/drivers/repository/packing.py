"""Increments that QEMU has written, compressed before they are published."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Final

from vmhost.backupports import Tell
from vmhost.drivers.files import os_errors
from vmhost.drivers.repository import checking, copying, places
from vmhost.model.errors import DamagedData
from vmhost.model.points import Compression, Point

_NEW: Final = ".packed"


def pack(point: Point, file: str, compression: Compression, tell: Tell, rate: int = 0) -> None:
    """Write an increment of a point that was begun anew, compressed, and put that in its place.

    :raises DamagedData: it did not arrive whole, or does not lie on what its point says. :raises DriverError: it could
        not be compressed, and is as QEMU has written it.
    """
    disk = next(disk for disk in point.disks if disk.file == file)
    directory = places.begun(point.ref)
    path, new = directory / file, directory / f"{file}{_NEW}"
    if text := checking.disk_damage(path, disk):  # QEMU may still be about to close it
        raise DamagedData(f"did not arrive whole: {text}", subject=f"{point.id}/{file}")
    below = checking.tree(replace(point.ref, id=point.parent), file)
    itself = json.dumps({"driver": "file", "filename": f"{directory.name}/{file}"})
    source = f'json:{{"driver": "qcow2", "file": {itself}, "backing": {below}}}'
    try:
        copying.make(new)
        copying.convert(
            *(source, "qcow2", new.absolute(), lambda share: tell(int(share * disk.capacity), disk.capacity)),
            cwd=places.points(point.ref),
            rate=rate,
            timeout=copying.patience(disk.capacity, rate),
            compression=compression,
            backing=disk.backing,
        )
        with os_errors(path, "compress"):
            new.replace(path)
    finally:
        new.unlink(missing_ok=True)
