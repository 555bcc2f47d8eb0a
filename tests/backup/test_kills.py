"""SIGKILL of vmhost, of QEMU and of libvirtd in the middle: no job is left, no point is harmed, the next run heals."""

from __future__ import annotations

import json
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.backup.test_chain import back_up, of_two_instants, scribble
from tests.backup.victim import KEEP
from tests.backup.writing import Kept, Paused, held_by_point
from tests.conftest import FULL, FULL_LIMIT, SEED
from tests.labfixture import InLab
from vmhost.drivers.command import Completed, run
from vmhost.model.errors import VmhostError
from vmhost.model.events import Event, StepDone
from vmhost.ops.host import Host
from vmhost.plan.reconcile import LONGEST

pytestmark = [pytest.mark.backup, pytest.mark.timeout(FULL_LIMIT if FULL else 400)]

SAMPLE, WITHIN = 6, 4
"""Points of each kind in an ordinary run, and within the calls of a restore; a full run takes them all."""


def victim(operation: str, repository: str, number: int | str, place: str, guest: str = "small") -> Completed:
    """Run an operation that kills itself."""
    words = (operation, guest, repository, str(number), place)
    return run((sys.executable, "-P", "-m", "tests.backup.victim", *words), timeout=90, check=False)


def assert_killed(done: Completed) -> None:
    """It came to the call at which it was to kill itself."""
    assert done.code == -9, f"{done.argv[-2:]}: {done.code}, after {done.text} calls: {done.stderr.decode()}"


def chosen(calls: int, full_run: bool, what: str) -> list[tuple[int, str]]:
    """The points at which to kill: a sample from the printed seed, or all of them."""
    places = [(number, place) for number in range(calls) for place in ("before", "after")]
    if full_run:
        return places
    return sorted(random.Random(f"{SEED} {what}").sample(places, SAMPLE))


def lying_on_the_last_full(host: Host, repository: str) -> int:
    """Return how many points lie on the last full copy."""
    kinds = [point.kind for point in host.backups.list(repository=repository)]
    return kinds[::-1].index("full")


def test_vmhost_is_killed_while_it_takes_a_point(
    small: Paused, connected: Host, repository: str, tmp_path: Path, lab: InLab, full_run: bool
) -> None:
    chance = random.Random(9)
    scribble(small, chance)
    instants = {back_up(connected, repository).id: small.hashes()}
    calls = int(victim("run", repository, -1, "count").text)
    instants[connected.backups.list(repository=repository)[-1].id] = small.hashes()
    for number, place in chosen(calls, full_run, "run"):
        scribble(small, chance, 1)
        before = {point.id for point in connected.backups.list(repository=repository)}
        assert_killed(victim("run", repository, number, place))
        late = {point.id for point in connected.backups.list(repository=repository)} - before
        instants |= dict.fromkeys(late, small.hashes())
        scribble(small, chance, 1)
        chain = lying_on_the_last_full(connected, repository)
        point = back_up(connected, repository)  # settles what was left, and takes a point
        where = f"{number} {place}"
        # A full run takes more points than may lie on one full copy
        assert point.kind == ("full" if chain == LONGEST else "incremental"), f"{where}: {point.because}"
        instants[point.id] = small.hashes()
        small.assert_left_alone()
        assert list(Path(repository).rglob(".new-*")) == [], where
        assert len(lab.virsh("checkpoint-list", "small", "--name").text.split()) == 1, where
        assert not connected.interrupted()
    there = {point.id for point in connected.backups.list(repository=repository)}
    assert there <= instants.keys()
    assert {point: held_by_point(repository, point, small, tmp_path) for point in there} == {
        point: instants[point] for point in there
    }


def test_vmhost_and_libvirtd_are_killed_while_old_points_are_deleted(
    small: Paused, connected: Host, repository: str, tmp_path: Path, lab: InLab, full_run: bool
) -> None:
    chance, instants = random.Random(12), dict[str, dict[str, str]]()
    for full in (True, False, False, True, False):
        scribble(small, chance, 2)
        instants[back_up(connected, repository, full=full).id] = small.hashes()
    kept = set(list(instants)[-2:])
    keep, place = tmp_path / "keep", Path(repository)
    shutil.copytree(place, keep)

    def left() -> set[str]:
        """The points that are there, each of them whole."""
        points = connected.backups.list(repository=repository)
        assert all(not found.damages for found in connected.backups.verify(repository=repository))
        return {point.id for point in points}

    def as_before() -> None:
        """Each victim finds the same, so that each makes the same calls."""
        shutil.rmtree(place)
        shutil.copytree(keep, place)

    def prune(on_event: Callable[[Event], None] | None = None) -> None:
        connected.apply(connected.backups.plan_prune(["small"], KEEP, repository=repository), on_event=on_event)

    calls = int(victim("prune", repository, -1, "count").text)
    assert left() == kept
    for number, where in chosen(calls, full_run, "prune"):
        as_before()
        assert_killed(victim("prune", repository, number, where))
        before = left()
        assert kept <= before <= instants.keys(), f"{number} {where}: before recovery, too"
        connected.recover()
        assert left() == before, f"{number} {where}: what was not begun is left to the next prune"
        assert list(place.rglob(".new-*")) == [], f"{number} {where}: what was begun is finished"
        prune()
        assert left() == kept, f"{number} {where}"
        assert list(place.rglob(".new-*")) == [], f"{number} {where}"
        assert not connected.interrupted()
    as_before()
    struck = []

    def strike(event: Event) -> None:
        if isinstance(event, StepDone) and "delete point" in event.why and not struck:
            struck.append(event)
            lab.restart_libvirtd(kill=True)

    prune(strike)
    assert struck
    assert left() == kept
    point = back_up(connected, repository)
    assert point.kind == "incremental", point.because
    instants[point.id] = small.hashes()
    assert {one: held_by_point(repository, one, small, tmp_path) for one in left()} == {
        one: instants[one] for one in (*kept, point.id)
    }


def test_vmhost_is_killed_while_it_restores(
    small: Paused, connected: Host, repository: str, tmp_path: Path, lab: InLab, full_run: bool
) -> None:
    then, now = of_two_instants(small, connected, repository, lab, random.Random(10))

    kept = Kept(small, tmp_path)  # each victim finds the same, so that each makes the same calls
    calls = int(victim("restore", repository, -1, "count").text)
    kept.put_back()
    asked = int(victim("restore", repository, -1, "within").text)
    within = list(range(asked)) if full_run else random.Random(f"{SEED} within").sample(range(asked), WITHIN)
    for number, place in [*chosen(calls, full_run, "restore"), *((number, "within") for number in within)]:
        kept.put_back()
        assert_killed(victim("restore", repository, number, place))
        left = small.held(tmp_path)
        assert all(left[disk] in (now[disk], then[disk]) for disk in left), "before recovery too, no disk is half"
        connected.recover()
        assert small.held(tmp_path) in (now, then), f"{number} {place}: of one instant, all of them"
        directory = Path(small.files["root"]).parent
        assert list(directory.glob("*.restored-*")) == [], f"{number} {place}"
        if small.held(tmp_path) == now:
            assert list(directory.glob("*.before-*")) == [], f"{number} {place}"


@pytest.mark.parametrize("disk", ["data1", "root"], ids=["all", "half"])
def test_what_a_guest_writes_after_a_killed_restore_stays(
    small: Paused, connected: Host, repository: str, tmp_path: Path, lab: InLab, disk: str
) -> None:
    """It is started by others than vmhost, as by libvirt after a power cut, and ended again; then somebody settles.

    Once both disks were replaced when vmhost was killed, once only the first was.
    """
    chance = random.Random(15)
    scribble(small, chance)
    then = {name: bytes(small.content(name)) for name in small.files}
    back_up(connected, repository)
    scribble(small, chance)
    small.flush()
    before = small.hashes()
    lab.virsh("destroy", "--graceful", "small")

    def start_and_end(*, writing: bool) -> None:
        lab.virsh("start", "--paused", "small")
        if writing:
            small.write("root", 0xA5, 1 << 20, 1 << 16)
            small.flush()
        lab.virsh("destroy", "--graceful", "small")
        small.await_end()

    directory = Path(small.files["root"]).parent
    replaced = ["root", "data1"] if disk == "data1" else ["root"]
    for writing in (False, True):
        assert_killed(victim("restore", repository, f"replace {small.files[disk]}", "done"))
        assert len(list(directory.glob("*.before-*"))) == len(replaced)
        if writing:
            small.model |= {name: bytearray(then[name]) for name in replaced}
        start_and_end(writing=writing)
        (settled,) = connected.recover()
        assert small.held(tmp_path) == (small.hashes() if writing else before)
        assert list(directory.glob("*.restored-*")) == []
        assert len(list(directory.glob("*.before-*"))) == (len(replaced) if writing else 0)
        assert not connected.interrupted()
    assert f"small has gone on with {' and '.join(small.files[name] for name in replaced)}" in str(settled)
    assert (f"{small.files['data1']} is still what it was" in str(settled)) == (disk == "root")
    connected.apply(connected.backups.plan_confirm("small"))
    lab.virsh("start", "--paused", "small")
    point = back_up(connected, repository)
    assert held_by_point(repository, point.id, small, tmp_path) == small.hashes()


def test_what_a_job_that_libvirt_lost_has_left_in_qemu_is_no_hindrance(
    small: Paused, connected: Host, repository: str, tmp_path: Path, lab: InLab
) -> None:
    back_up(connected, repository)
    scribble(small, random.Random(11))
    nodes = json.loads(lab.virsh("qemu-monitor-command", "small", '{"execute": "query-named-block-nodes"}').text)
    node = next(
        one["node-name"] for one in nodes["return"] if one["drv"] == "qcow2" and one["file"] == small.files["root"]
    )
    added = {"execute": "block-dirty-bitmap-add", "arguments": {"node": node, "name": "backup-vda"}}
    assert json.loads(lab.virsh("qemu-monitor-command", "small", json.dumps(added)).text).get("return") == {}
    point = back_up(connected, repository)
    assert point.kind == "incremental"
    assert held_by_point(repository, point.id, small, tmp_path) == small.hashes()


def test_a_bitmap_that_one_of_the_disks_has_lost_is_no_hindrance(
    small: Paused, connected: Host, repository: str, tmp_path: Path, lab: InLab
) -> None:
    """libvirt refuses to drop such a checkpoint, though its other bitmap is there."""
    first = back_up(connected, repository)
    scribble(small, random.Random(13))
    nodes = json.loads(lab.virsh("qemu-monitor-command", "small", '{"execute": "query-named-block-nodes"}').text)
    holding = [
        one["node-name"]
        for one in nodes["return"]
        if any(bitmap["name"] == first.checkpoint for bitmap in one.get("dirty-bitmaps", ()))
    ]
    assert len(holding) == 2
    lost = {"execute": "block-dirty-bitmap-remove", "arguments": {"node": holding[0], "name": first.checkpoint}}
    assert json.loads(lab.virsh("qemu-monitor-command", "small", json.dumps(lost)).text).get("return") == {}
    point = back_up(connected, repository)
    assert "the record of what changed" in point.because
    assert lab.virsh("checkpoint-list", "small", "--name").text.split() == [point.checkpoint]
    said = lab.virsh("qemu-monitor-command", "small", '{"execute": "query-named-block-nodes"}').text
    assert first.checkpoint not in said
    scribble(small, random.Random(14))
    point = back_up(connected, repository)
    assert point.kind == "incremental"
    assert held_by_point(repository, point.id, small, tmp_path) == small.hashes()


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("who", ["qemu", "guest", "libvirtd"])
def test_the_other_side_ends_in_the_middle(
    small: Paused, connected: Host, repository: str, tmp_path: Path, lab: InLab, who: str, full: bool
) -> None:
    chance = random.Random(f"{who} {full}")
    scribble(small, chance)
    first = back_up(connected, repository).id
    instant = small.hashes()
    scribble(small, chance)
    small.flush()
    ends: dict[str, Callable[[], None]] = {
        "qemu": lambda: run(["kill", "-9", str(small.pid())], timeout=10) and None,
        "guest": lambda: lab.virsh("destroy", "small") and None,
        "libvirtd": lambda: lab.restart_libvirtd(kill=True),
    }

    def strike(event: Event) -> None:
        if isinstance(event, StepDone) and "instant" in event.why:
            ends[who]()

    (result,) = connected.backups.run(["small"], repository=repository, full=full, on_event=strike)
    points = {point.id for point in connected.backups.list(repository=repository)}
    if result.error is not None:
        assert isinstance(result.error, VmhostError)
        assert points == {first}
    if who != "libvirtd":
        small.await_end()
        lab.virsh("start", "--paused", "small")
    healed = back_up(connected, repository)
    small.assert_left_alone()
    assert held_by_point(repository, healed.id, small, tmp_path) == small.hashes(), healed.because
    assert held_by_point(repository, first, small, tmp_path) == instant
    assert list(Path(repository).rglob(".new-*")) == []
    assert not connected.interrupted()
