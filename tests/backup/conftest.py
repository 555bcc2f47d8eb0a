"""A lab with guests that boot nothing and run paused; their disks are written through QEMU's monitor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.backup.writing import Paused
from tests.labfixture import InLab
from tests.reliability.image import tiny_image
from vmhost.model.permit import Permit
from vmhost.ops.host import Host, connect
from vmhost.ops.sites import parse_site

SITE = """
apiVersion: vmhost/v1
name: backups
guests:
  small:
    image: tiny
    memory: 64M
    disks: [{size: 64M}, {size: 16M}]
    state: stopped
    ready: {by: none}
"""


@pytest.fixture(scope="module")
def connected(lab: InLab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """The lab's hypervisor, and an image that its guests start from."""
    del lab
    with tiny_image(tmp_path_factory.mktemp("images"), "tiny"), connect() as opened:
        yield opened


@pytest.fixture
def repository(tmp_path: Path) -> str:
    """Where a repository may be made."""
    return str(tmp_path / "repository")


@pytest.fixture
def small(connected: Host, lab: InLab) -> Iterator[Paused]:
    """A guest of two disks, running but paused from its first instruction on."""
    with paused(connected, lab, SITE) as guest:
        yield guest


@contextmanager
def paused(host: Host, lab: InLab, site: str) -> Iterator[Paused]:
    """The guest ``small`` as a site says, running but paused; nothing is left of it."""
    host.apply(host.plan(parse_site(site)))
    lab.virsh("start", "--paused", "small")
    guest = Paused(lab, "small", dict(disks_of(host, "small")))
    yield guest
    files = [Path(path) for path in guest.files.values()]
    host.apply(host.plan_delete(["small"], Permit(power_off=True, disks=True)))
    for path in files:
        for left in path.parent.glob(f"{path.name}*"):
            left.unlink()


def disks_of(host: Host, name: str) -> Iterator[tuple[str, str]]:
    """Yield the id and the file of every disk of a guest that is written to."""
    for disk in host.observe().domain(name).facts.disks:
        if not disk.readonly:
            yield disk.alias.removeprefix("ua-disk-"), disk.source
