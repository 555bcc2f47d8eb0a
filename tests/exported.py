"""Disks that qemu-nbd serves at a socket."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.contract.backends import eventually
from vmhost.drivers.command import run
from vmhost.drivers.imagelock import is_open

CLUSTER = 64 << 10


def filled(directory: Path, size: int, clusters: Mapping[int, int]) -> Path:
    """Make a qcow2 disk: the byte that each cluster of it is full of; those that are not named are not there."""
    path = directory / "source.qcow2"
    run(("qemu-img", "create", "-q", "-f", "qcow2", str(path), str(size)), timeout=60)
    words = [word for number, byte in clusters.items() for word in ("-c", f"write -P {byte} {number * 64}k 64k")]
    if words:
        run(("qemu-io", "-f", "qcow2", *words, str(path)), timeout=60)
    return path


@contextmanager
def exported(disk: Path, form: str = "qcow2") -> Iterator[Path]:
    """Serve a disk as ``vda``; yields the socket."""
    place = disk.parent / "disk.sock"
    words = ("qemu-nbd", "--read-only", "-f", form, "-x", "vda", "-k", str(place), "--persistent", "--shared=4")
    with subprocess.Popen((*words, str(disk))) as server:
        try:
            # It listens before it opens what it serves
            assert eventually(lambda: place.exists() and is_open(str(disk)), seconds=20)
            yield place
        finally:
            server.kill()
    place.unlink(missing_ok=True)
