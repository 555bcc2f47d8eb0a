"""A guest that writes on through a full point and its increments: each of them is its instant, and boots.

The guest writes numbered records with their checksums: each to its first disk, then to its second one, then it says
that it did. Its vCPU stands still while the instant is taken, so that there is something to compare it with; before and
after that, while a point is copied, it writes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.backup.conftest import disks_of
from tests.backup.writing import content_of, point_directory
from tests.contract.backends import eventually
from tests.labfixture import InLab
from tests.speaking import Speaking, boot_small_guests, spoken_with
from vmhost.model.events import Event, StepDone, StepStarted
from vmhost.model.permit import Permit
from vmhost.model.points import Point
from vmhost.ops.backups import raise_failures
from vmhost.ops.host import Host
from vmhost.ops.sites import parse_site

SECONDS = 400
"""How long all of this may take."""

pytestmark = [pytest.mark.backup, pytest.mark.timeout(SECONDS)]

SITE = """
apiVersion: vmhost/v1
name: writing
guests:
  writer:
    image: tiny
    memory: 128M
    disks: [{size: 16M}, {size: 16M}]
    ready: {by: none}
"""
INCREMENTS = 24
BETWEEN = 4
"""Records that are written at least between two points."""

BLOCK, FIRST = 4096, 1024
"""Record N is block FIRST + N of both disks."""
DEVICES = {"root": "vda", "data1": "vdb"}
PAUSE = 0.15
"""Seconds that the guest rests after each record, however fast its machine is."""
ROOM = int(SECONDS / PAUSE)
"""Blocks of a disk that hold all records that there can be in that time."""
WRITE = f"""\
put() {{ echo "$record $sum" | \
dd of=/dev/$1 bs={BLOCK} seek=$(({FIRST} + i)) count=1 conv=sync,fsync,notrunc 2>/dev/null; }}; \
{{ (i=0; while :; do i=$((i + 1)); record="record $i $(dd if=/dev/urandom bs=96 count=1 2>/dev/null | base64 -w 0)"; \
sum=$(echo "$record" | sha256sum | cut -c 1-64); put vda && put vdb && echo "acknowledged $i"; \
sleep {PAUSE}; done) & }}"""
READ = f"""\
for disk in vda vdb; do dd if=/dev/$disk bs={BLOCK} skip={FIRST} count={ROOM} 2>/dev/null >/read; \
sha256sum </read; tr -d '\\0' </read | grep -c '^record '; done"""


@dataclass
class Taken:
    """A point, what was acknowledged before and after it was taken, what the disks held, and how many records."""

    point: Point
    before: int
    after: int
    instant: dict[str, bytes]
    held: dict[str, int] = field(default_factory=dict)


@pytest.fixture
def writer(connected: Host, lab: InLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Speaking]:
    """A guest that writes records."""
    boot_small_guests(tmp_path, monkeypatch)
    connected.apply(connected.plan(parse_site(SITE)))
    try:
        with spoken_with(lab, "writer") as shell:
            shell.ask(WRITE)
            yield shell
    finally:
        names = [row.name for row in connected.guests()]
        files = [path for name in names for _, path in disks_of(connected, name)]
        connected.apply(connected.plan_delete(names, Permit(power_off=True, disks=True)))
        assert not any(Path(path).exists() for path in files)


def records(content: bytes) -> int:
    """How many records a disk holds, one after the other; each has its number and its checksum."""
    for number in range(1, ROOM):
        block = content[(FIRST + number) * BLOCK : (FIRST + number + 1) * BLOCK].rstrip(b"\0")
        if not block:
            return number - 1
        record, _, found = block.rstrip(b"\n").rpartition(b" ")
        assert record.startswith(b"record %d " % number)
        assert hashlib.sha256(record + b"\n").hexdigest().encode() == found
    raise AssertionError("no room is left for records")


def acknowledged(writer: Speaking) -> int:
    """The last record that the guest said it has written."""
    return int(re.findall(r"acknowledged (\d+)\r?\n", "acknowledged 0\n" + writer.said.read_text())[-1])


def take(writer: Speaking, host: Host, lab: InLab, repository: str, scratch: Path) -> Taken:
    """Take a point while the guest writes; its vCPU stands still for the instant, when its disks are read, too."""
    files = {disk: Path(path) for disk, path in disks_of(host, "writer")}
    start = acknowledged(writer)
    assert eventually(lambda: acknowledged(writer) >= start + BETWEEN, seconds=60)
    before, instant = acknowledged(writer), dict[str, bytes]()

    def stand_still(event: Event) -> None:
        if isinstance(event, StepStarted) and "the instant" in event.why:
            lab.virsh("suspend", "writer")
            instant.update((disk, content_of(path, scratch, of_running=True)) for disk, path in files.items())
        elif isinstance(event, StepDone) and "the instant" in event.why:
            lab.virsh("resume", "writer")

    results = host.backups.run(["writer"], repository=repository, on_event=stand_still)
    raise_failures(results)
    assert results[0].point is not None
    return Taken(results[0].point, before, acknowledged(writer), instant)


def test_a_guest_writes_on_and_each_point_is_its_instant(
    writer: Speaking, connected: Host, repository: str, tmp_path: Path, lab: InLab
) -> None:
    points = [take(writer, connected, lab, repository, tmp_path) for _ in range(INCREMENTS + 1)]
    assert [taken.point.kind for taken in points] == ["full", *["incremental"] * INCREMENTS]
    lab.virsh("destroy", "writer")
    for taken in points:
        directory = point_directory(repository, taken.point.id)
        disks = {disk: content_of(directory / f"{disk}.qcow2", tmp_path) for disk in DEVICES}
        assert disks == taken.instant, taken.point.id
        first, second = (records(disks[disk]) for disk in DEVICES)
        assert taken.before <= second <= taken.after + 1, "what it said to be written is there"
        assert second <= first <= second + 1, "both disks are of one instant"
        taken.held = {"root": first, "data1": second}
    assert [taken.held["data1"] for taken in points] == sorted({taken.held["data1"] for taken in points})
    assert all(not found.damages for found in connected.backups.verify(repository=repository))
    boot(connected, lab, repository, [points[0], points[INCREMENTS // 2], points[-1]])


def boot(host: Host, lab: InLab, repository: str, points: list[Taken]) -> None:
    """Restore points as guests of their own, which are booted with that, and read their disks themselves."""
    names = {f"copy-{taken.point.generation}": taken for taken in points}
    for name, taken in names.items():
        host.apply(host.backups.plan_restore_as("writer", name, point=taken.point.id, repository=repository))
    for name, taken in names.items():
        with spoken_with(lab, name) as shell:
            first, root, second, data1 = shell.ask(READ).replace("-", "").split()
        assert (int(root), int(data1)) == (taken.held["root"], taken.held["data1"])
        assert {"root": first, "data1": second} == {
            disk: hashlib.sha256(content[FIRST * BLOCK : (FIRST + ROOM) * BLOCK]).hexdigest()
            for disk, content in taken.instant.items()
        }
