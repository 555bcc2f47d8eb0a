"""A host in the lab with an image that boots nothing: QEMU's threads and groups are real all the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.labfixture import InLab
from tests.reliability.image import tiny_image
from tests.reliability.scene import ALL
from vmhost.drivers.command import run
from vmhost.drivers.images.store import ImageStore
from vmhost.ops.host import Host, connect

IMAGES = Path("/run/vmhost-images")


@pytest.fixture(scope="module")
def connected(lab: InLab) -> Iterator[Host]:
    """The lab's hypervisor, and the images that its guests start from."""
    IMAGES.mkdir(exist_ok=True)
    with tiny_image(IMAGES, "tiny"), connect() as opened:
        yield opened


@pytest.fixture
def placed_host(connected: Host) -> Iterator[Host]:
    """The same; every guest is removed afterwards."""
    yield connected
    names = [row.name for row in connected.guests() if row.site]
    if names:
        connected.apply(connected.plan_delete(names, ALL))


@pytest.fixture(scope="module")
def busy_image(connected: Host) -> str:
    """An image whose boot sector jumps to itself: a guest that always wants all that it can get. Gives its name."""
    sector, disk = IMAGES / "busy.raw", IMAGES / "busy.new"
    sector.write_bytes(b"\xeb\xfe".ljust(510, b"\0") + b"\x55\xaa" + bytes((4 << 20) - 512))
    run(("qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(sector), str(disk)), timeout=30)
    ImageStore(IMAGES).add("busy", disk, firmware=frozenset({"bios"}))
    for made in (sector, disk):
        made.unlink()
    return "busy"
