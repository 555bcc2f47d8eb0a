"""An image of a few MiB that boots nothing: enough to define, start and delete guests within a second."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vmhost.drivers.command import run
from vmhost.drivers.images.store import ImageStore

SIZE = 4 << 20
VARIABLE = "VMHOST_IMAGES_DIR"


@contextmanager
def tiny_image(directory: Path, name: str) -> Iterator[Path]:
    """Put an image into a directory of images that this process and its children use meanwhile; give its file."""
    empty = directory / f"{name}.new"
    run(("qemu-img", "create", "-q", "-f", "qcow2", str(empty), str(SIZE)), timeout=30)
    record = ImageStore(directory).add(name, empty, firmware=frozenset({"bios", "uefi"}))
    empty.unlink()
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = str(directory)
    try:
        yield record.path
    finally:
        os.environ.pop(VARIABLE)
        if before is not None:
            os.environ[VARIABLE] = before
