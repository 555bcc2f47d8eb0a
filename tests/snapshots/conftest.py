"""A host in the lab whose guests boot nothing: their disks are written through QEMU's monitor."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.labfixture import InLab
from tests.reliability.image import tiny_image
from tests.reliability.scene import ALL
from vmhost.ops.host import Host

IMAGES = Path("/run/vmhost-images")


@pytest.fixture(scope="module")
def connected(lab: InLab) -> Iterator[Host]:
    """The lab's hypervisor, and an image that boots nothing."""
    del lab
    IMAGES.mkdir(exist_ok=True)
    with tiny_image(IMAGES, "tiny"), Host() as host:
        yield host


@pytest.fixture
def snaphost(connected: Host) -> Iterator[Host]:
    """The same; every guest is removed afterwards, and nothing of it may stay."""
    yield connected
    names = [row.name for row in connected.guests() if row.site]
    if names:
        connected.apply(connected.plan_delete(names, ALL))
    assert [volume.name for pool in connected.observe().pools for volume in pool.volumes] == []
