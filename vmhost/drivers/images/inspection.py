"""What an image file is, read from its headers alone, before QEMU sees it."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from vmhost.drivers.files import os_errors
from vmhost.drivers.images import qcow2
from vmhost.drivers.images.signatures import COMPRESSED, FORMATS, HEAD, LAYOUTS, TAIL, found
from vmhost.model.errors import DamagedData, Refused

LARGEST: Final = 64 << 40
"""Bytes of virtual size that an image may claim: more than ext4's largest file is a mistake or an attack."""


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What the headers of an image say; nothing else of it was read.

    ``format`` is ``qcow2``, ``raw``, or what else QEMU would recognise (``vmdk``, ...); sizes are bytes. ``layout`` is
    what a raw disk holds: ``gpt``, ``mbr``, ``iso9660``, or empty. ``backing_file`` and ``data_file`` are other files
    that it would make QEMU open. ``version`` is that of the format, 0 where it has none.
    """

    format: str
    virtual_size: int
    file_size: int
    version: int = 0
    layout: str = ""
    backing_file: str = ""
    data_file: str = ""
    encryption: str = ""
    compression: str = ""
    snapshots: int = 0
    dirty: bool = False


def inspect(path: Path) -> ImageFacts:
    """Say what an image file is.

    :raises Absent: there is none; :raises Refused: it is no regular file.
    :raises DamagedData: it is cut short, its header contradicts itself, or it is two formats at once.
    """
    with _opened(path) as (handle, size):
        head, tail = os.pread(handle, HEAD, 0), os.pread(handle, TAIL, max(0, size - TAIL))
        formats = found(FORMATS, head, tail)
        if len(formats) > 1:
            raise DamagedData(f"carries the marks of {' and '.join(formats)} at once", subject=str(path))
        if formats == ("qcow2",):
            return _qcow2_facts(path, handle, size)
        if formats:
            return ImageFacts(formats[0], virtual_size=0, file_size=size)
        wrapped = found(COMPRESSED, head, tail)
        if wrapped:
            return ImageFacts(wrapped[0], virtual_size=0, file_size=size)
        layouts = found(LAYOUTS, head, tail)
        return ImageFacts("raw", virtual_size=size, file_size=size, layout=layouts[0] if layouts else "")


def admit(path: Path, *, expect: Literal["qcow2", "raw"] | None = None) -> ImageFacts:
    """Inspect a file that is to become an image, and let it pass only if QEMU can be given it without harm.

    :param expect: the format that its source promises; None: qcow2 or raw.
    :raises Refused: it would make QEMU open other files (a backing or data file), is encrypted, or of another format.
    :raises DamagedData: as :func:`inspect`; or it is empty, holds no disk, or claims a size that cannot be.
    """
    facts = inspect(path)
    _check_format(path, facts, expect)
    if facts.backing_file:
        raise _refused(path, f"has a backing file ({facts.backing_file}), which QEMU would open")
    if facts.data_file:
        raise _refused(path, f"keeps its data in another file ({facts.data_file}), which QEMU would open")
    if facts.encryption:
        raise _refused(path, f"is encrypted ({facts.encryption})")
    if facts.dirty:
        hint = f"qemu-img check -r all {shlex.quote(str(path))}"
        raise DamagedData("was not closed properly by whoever wrote it", subject=str(path), hint=hint)
    if not 0 < facts.virtual_size <= LARGEST or facts.virtual_size % 512:
        raise DamagedData(f"claims a size of {facts.virtual_size} bytes", subject=str(path))
    if facts.format == "raw" and not facts.layout:
        raise DamagedData("holds no disk: neither a partition table nor a file system to boot from", subject=str(path))
    return facts


def _check_format(path: Path, facts: ImageFacts, expect: str | None) -> None:
    if facts.format in {mark.format for mark in COMPRESSED}:
        raise Refused(f"is compressed ({facts.format}); unpack it first", subject=str(path))
    if facts.format not in ("qcow2", "raw"):
        target = shlex.quote(str(path.with_suffix(".qcow2")))
        hint = f"qemu-img convert -f {facts.format} -O qcow2 {shlex.quote(str(path))} {target}"
        raise Refused(f"is of format {facts.format}, not qcow2 or raw", subject=str(path), hint=hint)
    if expect is not None and facts.format != expect:
        raise DamagedData(f"is {facts.format}, though it should be {expect}", subject=str(path))


def _refused(path: Path, why: str) -> Refused:
    return Refused(why, subject=str(path), hint=f"qemu-img info {shlex.quote(str(path))}")


@contextmanager
def _opened(path: Path) -> Iterator[tuple[int, int]]:
    """Open a regular file for reading and yield its handle and size; a FIFO or device is never waited for or read."""
    with os_errors(path, "read"):
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise Refused("is not a regular file", subject=str(path), hint=f"ls -l {shlex.quote(str(path))}")
        with os_errors(path, "read"):
            yield handle, status.st_size
    finally:
        os.close(handle)


def _qcow2_facts(path: Path, handle: int, size: int) -> ImageFacts:
    try:
        header = qcow2.parse(lambda offset, count: os.pread(handle, count, offset), size)
    except qcow2.Malformed as error:
        raise DamagedData(f"qcow2: {error}", subject=str(path)) from error
    if header.corrupt:
        raise DamagedData("qcow2: it is marked as corrupt", subject=str(path))
    return ImageFacts(
        "qcow2",
        virtual_size=header.virtual_size,
        file_size=size,
        version=header.version,
        backing_file=header.backing_file,
        data_file=header.data_file or ("unnamed" if header.external_data else ""),
        encryption=header.encryption,
        compression=header.compression,
        snapshots=header.snapshots,
        dirty=header.dirty,
    )
