"""Random histories of writes, points, prunes, snapshots, lost bitmaps and kills of vmhost, libvirtd and QEMU.

After each step the points that are there are those that must be, and the newest holds what a plain array of bytes says;
at the end all of them do. ``make test`` goes through the same history each time; ``make test-full`` through a longer
one from the printed seed.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.backup.test_chain import scribble
from tests.backup.test_kills import victim
from tests.backup.victim import KEEP
from tests.backup.writing import Paused, held_by_point
from tests.labfixture import InLab
from vmhost.drivers.command import run
from vmhost.model.errors import Refused
from vmhost.model.permit import Permit
from vmhost.ops.backups import raise_failures
from vmhost.ops.host import Host

pytestmark = [pytest.mark.backup, pytest.mark.timeout(3000)]

STEPS, ALL_STEPS = 15, 300
SEED = "5"
CALLS = 40
"""No operation makes many more calls than that; one that makes fewer is not killed."""


@dataclass
class History:
    """A guest, its repository, and what each of its points and snapshots must hold."""

    guest: Paused
    host: Host
    lab: InLab
    repository: str
    scratch: Path
    chance: random.Random
    points: dict[str, dict[str, str]] = field(default_factory=dict)
    snapshots: dict[str, dict[str, bytes]] = field(default_factory=dict)
    steps: int = 0

    def __post_init__(self) -> None:
        self.guest.hashes()  # takes note of how large the disks are, before anything lies on their files

    def step(self) -> str:
        """Do something that is drawn, settle what is left of it, and return what it was."""
        self.steps += 1
        scribble(self.guest, self.chance, self.chance.randrange(1, 4))
        acts: list[Callable[[], str]] = [self.back_up] * 5 + [self.prune] * 2 + [self.lose_bitmap, self.snapshot]
        acts += [self.lose_qemu, self.lose_libvirtd] + ([self.merge, self.revert] if self.snapshots else [])
        told = self.chance.choice(acts)()
        self.check(told)
        return told

    def back_up(self) -> str:
        told = self._struck("run")
        new = self._there() - self.points.keys()
        self.points |= dict.fromkeys(new, self.guest.hashes())
        return told

    def prune(self) -> str:
        told = self._struck("prune")
        there = self._there()
        assert there <= self.points.keys(), told
        newest = list(self.points)[-KEEP.last :]
        assert set(newest) <= there, told
        self.points = {point: held for point, held in self.points.items() if point in there}
        return told

    def lose_bitmap(self) -> str:
        """Take away what shows the changes since the last point: as libvirt would, or behind its back."""
        names = self.lab.virsh("checkpoint-list", "small", "--name").text.split()
        if not names:
            return "no bitmap to lose"
        if self.chance.random() < 0.5:
            # which libvirt refuses where the bitmap is lost already
            return f"checkpoint-delete: {self.lab.virsh('checkpoint-delete', 'small', names[-1], check=False).code}"
        nodes = json.loads(self._ask({"execute": "query-named-block-nodes"}))["return"]
        holding = [
            one["node-name"]
            for one in nodes
            if any(bitmap["name"] == names[-1] for bitmap in one.get("dirty-bitmaps", ()))
        ]
        for node in holding[:1]:
            self._ask({"execute": "block-dirty-bitmap-remove", "arguments": {"node": node, "name": names[-1]}})
        return f"of {len(holding)} bitmaps one was removed"

    def snapshot(self) -> str:
        if len(self.snapshots) > 2:
            return self.merge()
        name = f"s{self.steps}"
        self.host.apply(self.host.snapshots.plan_create("small", name))
        self.snapshots[name] = {disk: bytes(self.guest.content(disk)) for disk in self.guest.files}
        return f"snapshot {name}"

    def merge(self) -> str:
        name = self.chance.choice(sorted(self.snapshots))
        try:
            self.host.apply(self.host.snapshots.plan_delete("small", name))
        except Refused as refused:  # after going back, two may rest on one
            if f"rest on snapshot {name}" not in refused.message:
                raise
            return refused.message
        del self.snapshots[name]
        return f"snapshot {name} was merged"

    def revert(self) -> str:
        name = self.chance.choice(sorted(self.snapshots))
        before = {disk: bytes(self.guest.content(disk)) for disk in self.guest.files}
        self.host.apply(self.host.snapshots.plan_revert("small", name, Permit(power_off=True, discard_saved=True)))
        for safety in {row.name for row in self.host.snapshots.list("small")} - self.snapshots.keys():
            self.snapshots[safety] = before
        self.guest.model = {disk: bytearray(data) for disk, data in self.snapshots[name].items()}
        self._stand_still()
        return f"back to snapshot {name}"

    def lose_qemu(self) -> str:
        self.guest.flush()
        run(["kill", "-9", str(self.guest.pid())], timeout=10)
        self.guest.await_end()
        self._stand_still()
        return "QEMU was killed"

    def lose_libvirtd(self) -> str:
        self.lab.restart_libvirtd(kill=True)
        return "libvirtd was killed"

    def check(self, told: str) -> None:
        """The points are those that must be; the newest holds what it must."""
        assert self._there() == self.points.keys(), told
        assert not self.host.interrupted(), told
        assert list(Path(self.repository).rglob(".new-*")) == [], told
        if self.points:
            newest = list(self.points)[-1]
            assert held_by_point(self.repository, newest, self.guest, self.scratch) == self.points[newest], told

    def check_all(self) -> None:
        """Every point holds what it must, by qemu-img and by its hashes; and the next run takes one more."""
        results = self.host.backups.run(["small"], repository=self.repository)
        raise_failures(results)
        assert results[0].point is not None
        self.points[results[0].point.id] = self.guest.hashes()
        found = {point: held_by_point(self.repository, point, self.guest, self.scratch) for point in self._there()}
        assert found == self.points
        assert all(not one.damages for one in self.host.backups.verify(repository=self.repository))
        assert {row.name for row in self.host.snapshots.list("small")} == self.snapshots.keys()

    def _struck(self, operation: str) -> str:
        """Do it in a process of its own, which may be killed in the middle; then settle what it left."""
        number = self.chance.randrange(CALLS) if self.chance.random() < 0.6 else -1
        place = self.chance.choice(["before", "after"])
        done = victim(operation, self.repository, number, place if number >= 0 else "count")
        told = f"{operation}, killed {place} call {number}: {done.code} {done.stderr.decode()[-300:]}"
        assert done.code in (0, -9) or (operation == "prune" and not self.points), told
        self.host.recover()
        return told

    def _there(self) -> set[str]:
        return {point.id for point in self.host.backups.list(repository=self.repository)}

    def _ask(self, command: dict[str, object]) -> str:
        return self.lab.virsh("qemu-monitor-command", "small", json.dumps(command)).text

    def _stand_still(self) -> None:
        """Let the guest run, and its vCPU not."""
        if "shut off" in self.lab.virsh("domstate", "small").text:
            self.lab.virsh("start", "--paused", "small")
        elif "running" in self.lab.virsh("domstate", "small").text:
            self.lab.virsh("suspend", "small")


def test_every_point_of_a_random_history_equals_its_instant(
    small: Paused, connected: Host, repository: str, tmp_path: Path, lab: InLab, full_run: bool
) -> None:
    drawn = os.environ.get("VMHOST_TEST_SEED") or str(random.SystemRandom().randrange(1 << 32))
    seed = drawn if full_run else SEED
    history = History(small, connected, lab, repository, tmp_path, random.Random(f"{seed} backups"))
    told: list[str] = []
    try:
        for _ in range(ALL_STEPS if full_run else STEPS):
            told.append(history.step())
        history.check_all()
    except BaseException:
        print(f"seed {seed}, after step {history.steps}:", *told, sep="\n")
        raise
