"""SIGKILL and failures at points of creating and deleting a guest, on real libvirtd.

``make test`` takes a sample of the points from a printed seed, ``make test-full`` all of them. After each, any next
command settles what was left; the host equals the state before or after; the same command then succeeds.
"""

from __future__ import annotations

import hashlib
import os
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.labfixture import InLab
from tests.reliability.image import tiny_image
from tests.reliability.scene import held_locks
from vmhost.drivers.command import Completed, run
from vmhost.engine.observe import observe
from vmhost.model.permit import Permit
from vmhost.ops.host import Host
from vmhost.ops.sites import load_site

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1800)]

SAMPLE = 12
RECOVERY = 10.0
"""Seconds that the next command may take to settle an interrupted operation."""

SITE = """
apiVersion: vmhost/v1
name: sweep
bridges: {br-sweep: {address: 10.98.0.1/24}}
networks: {lan: {bridge: br-sweep, subnet: 10.98.0.0/24}}
guests:
  victim:
    image: tiny
    memory: 64M
    disks: [{size: 16M}, {size: 8M}]
    nics: [{network: lan}]
    autostart: true
    ready: {by: none}
"""
BYSTANDER = SITE.replace("sweep", "other").replace("10.98", "10.97").replace("victim", "bystander")


@dataclass(frozen=True)
class Snapshot:
    """What must not change: domains by name and state, volumes with their hashes, bridges, journals, addresses that
    somebody holds, consoles' logs, and locks that somebody still has.
    """

    domains: tuple[tuple[str, str, bool], ...]
    volumes: tuple[tuple[str, str, str], ...]
    links: tuple[str, ...]
    journals: tuple[str, ...]
    addresses: tuple[tuple[str, str], ...]
    consoles: int
    held: tuple[str, ...]


@pytest.fixture(scope="module")
def host(lab: InLab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A host with a tiny image and a bystander whose disks must survive everything."""
    del lab
    with tiny_image(tmp_path_factory.mktemp("images"), "tiny"), Host() as host:
        other = tmp_path_factory.mktemp("sites") / "other.yaml"
        other.write_text(BYSTANDER)
        host.apply(host.plan(load_site(other)))
        yield host
        host.apply(host.plan_delete(["bystander"], Permit(power_off=True, disks=True)))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site whose guest is created and deleted."""
    path = tmp_path_factory.mktemp("sites") / "sweep.yaml"
    path.write_text(SITE)
    return path


def look(host: Host) -> Snapshot:
    """Return the host as it is; names of new guests' volumes differ from run to run, so they count by kind."""
    observed = observe(host.ports)
    victims = {domain.uuid for domain in observed.domains if domain.name == "victim"}
    return Snapshot(
        tuple((domain.name, str(domain.raw.state), domain.raw.autostart) for domain in observed.domains),
        tuple(
            sorted(
                (pool.name, volume.name, hashlib.sha256(Path(volume.path).read_bytes()).hexdigest())
                if volume.name[:36] not in victims
                else (pool.name, f"VICTIM{volume.name[36:]}", "")
                for pool in observed.pools
                for volume in pool.volumes
            )
        ),
        tuple(sorted(link.name for link in observed.links if link.name.startswith("br-"))),
        tuple(sorted(path.name for path in (host.ports.layout.state / "journal").glob("[!.]*"))),
        tuple(sorted((one.owner, one.value) for one in observed.reservations if not one.until)),
        len(list(host.ports.layout.logs.glob("*.console.log"))),
        held_locks(host),
    )


def victim(operation: str, site: Path, number: int, how: str) -> Completed:
    """Run the operation in a process that springs its trap."""
    argv = (sys.executable, "-m", "tests.reliability.victim", operation, str(site), str(number), how)
    return run(argv, timeout=120, check=False)


def settle(host: Host) -> float:
    """Let the next command settle what was interrupted; return the seconds it took."""
    began = time.monotonic()
    host.recover()
    return time.monotonic() - began


def points(count: int, full: bool, label: str) -> list[tuple[int, str]]:
    """Return the points of this run: all, or a sample from a printed seed."""
    ways = ("kill-before", "kill-after", "fail-before", "fail-after")
    every = [(number, how) for number in range(count) for how in ways]
    if full:
        return every
    seed = int(os.environ.get("VMHOST_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
    sys.stderr.write(f"\n{label}: {SAMPLE} of {len(every)} points, seed {seed}\n")
    return random.Random(seed).sample(every, SAMPLE)


@pytest.mark.parametrize("operation", ["create", "delete"])
def test_killed_and_failing_operations_leave_nothing(
    operation: str, host: Host, site: Path, full_run: bool, lab: InLab
) -> None:
    del lab
    absent = look(host)
    counted = victim("create", site, 0, "count")
    assert counted.code == 0, counted.stderr
    present = look(host)
    assert absent != present
    calls = int(victim("delete", site, 0, "count").text) if operation == "delete" else int(counted.text)
    if operation == "create":
        host.apply(host.plan_delete(["victim"], Permit(power_off=True, disks=True)))
    assert look(host) == absent
    for number, how in points(calls, full_run, operation):
        where = f"{operation}, call {number} of {calls}, {how}"
        if operation == "delete":
            host.apply(host.plan(load_site(site)))
        ended = victim(operation, site, number, how)
        assert settle(host) < RECOVERY, where
        after = look(host)
        assert after in (absent, present), f"{where}: {ended.stderr.decode()}"
        again = victim(operation, site, 0, "count")
        gone_already = operation == "delete" and after == absent
        assert again.code == (3 if gone_already else 0), f"{where}: {again.stderr.decode()}"
        assert look(host) == (present if operation == "create" else absent), where
        if operation == "create":
            host.apply(host.plan_delete(["victim"], Permit(power_off=True, disks=True)))
        assert look(host) == absent, where
