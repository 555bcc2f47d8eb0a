"""A copy that ends in the middle, while QEMU is at work: nothing is left of it, and the next run heals."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.backup import conftest
from tests.backup.conftest import paused
from tests.backup.test_chain import back_up
from tests.backup.writing import Paused, held_by_point
from tests.labfixture import InLab
from tests.reliability.scene import Command, started
from vmhost.drivers.command import run
from vmhost.drivers.repository.ground import free_at
from vmhost.ops.host import Host

pytestmark = pytest.mark.backup

RATE = "4M"
"""Bytes a second, once QEMU has what it takes at once, 64 MiB: the rest would take 20 s."""
SITE = conftest.SITE.replace("{size: 64M}, {size: 16M}", "{size: SIZE}")
SIZES = {"full": "144M", "incremental": "640M"}
"""QEMU alone copies an increment, and is told to be slow a moment after it has begun: by then a quick disk has much."""
MOVED = re.compile(r"([1-9]|\d\d) %  copy ")
"""What is told when some of it is copied, and not all."""
TRIES = 5
PIECE = 4 << 20


def cancel(_command: Command, host: Host) -> None:
    """End it from another process."""
    (job,) = [job for job in host.jobs() if job.state == "running"]
    host.cancel_job(job.id)


ENDS: dict[str, Callable[[Command, Host], None]] = {
    "INT": lambda command, _host: command.send(signal.SIGINT),
    "KILL": lambda command, _host: command.send(signal.SIGKILL),
    "cancel": cancel,
}


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """Let what is started here hear SIGINT, also where a shell has put these tests into the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def wide(connected: Host, lab: InLab, kind: str) -> Iterator[Paused]:
    """The paused guest with one disk of more than is copied at once."""
    with paused(connected, lab, SITE.replace("SIZE", SIZES[kind])) as guest:
        yield guest


@contextmanager
def copying(guest: Paused, repository: str, kind: str, rate: str = RATE) -> Iterator[Command]:
    """Run a backup of a disk that is written to all over; give it when some of that is copied."""
    how = ["--full"] if kind == "full" else []
    for pattern in range(65, 65 + TRIES):
        guest.write("root", pattern, 0, len(guest.content("root")))
        with started("backup", "run", guest.name, "--repository", repository, "--rate", rate, *how) as command:
            if moved(command):
                yield command
                return
            # QEMU had copied all before it could be told to be slow
            assert command.end() == 0, command.talk
    pytest.fail(f"no copy was seen at work in {TRIES} runs")


def moved(command: Command) -> bool:
    """Read until some of it is copied; False: it came to its end before."""
    assert command.process.stderr is not None
    for line in command.process.stderr:
        command.lines.append(line.rstrip())
        if MOVED.search(line):
            return True
    return False


@pytest.mark.parametrize(
    ("end", "kind"),
    [("INT", "full"), ("KILL", "full"), ("cancel", "full"), ("INT", "incremental"), ("KILL", "incremental")],
)
def test_nothing_is_left_of_a_copy_that_ends_in_the_middle(
    wide: Paused, connected: Host, repository: str, tmp_path: Path, lab: InLab, end: str, kind: str
) -> None:
    back_up(connected, repository)
    with copying(wide, repository, kind) as command:
        assert lab.virsh("backup-dumpxml", "small", check=False).code == 0, "libvirt has a job"
        there = len(connected.backups.list(repository=repository))
        ENDS[end](command, connected)
        code = command.end()
    if end == "KILL":
        assert code == -signal.SIGKILL
        assert connected.interrupted()
        assert connected.backups.plan_restore("small", repository=repository, power_off=True).plan.steps
        connected.recover()
    else:
        assert code == 130, command.talk
        assert "NOT undone" not in command.talk
    assert not connected.interrupted()
    wide.assert_left_alone()
    assert len(connected.backups.list(repository=repository)) == there
    assert list(Path(repository).rglob(".new-*")) == []
    healed = back_up(connected, repository)
    assert healed.kind == "incremental", healed.because
    assert held_by_point(repository, healed.id, wide, tmp_path) == wide.hashes()


@pytest.fixture
def narrow(connected: Host, lab: InLab, tmp_path: Path) -> Iterator[Paused]:
    """The paused guest with one disk in a file system of its own, which has room for it, and for half of it again."""
    place = tmp_path / "narrow"
    place.mkdir()
    run(["mount", "-t", "tmpfs", "-o", "size=110M", "tests", str(place)], timeout=10)
    lab.virsh("pool-create-as", "narrow", "dir", "--target", str(place))
    try:
        with paused(connected, lab, SITE.replace("SIZE", "64M, pool: narrow")) as guest:
            yield guest
    finally:
        lab.virsh("pool-destroy", "narrow")
        run(["umount", "--lazy", str(place)], timeout=10)


def test_a_guest_that_writes_much_while_it_is_copied_does_not_fill_the_place_of_its_disks(
    narrow: Paused, connected: Host, repository: str, tmp_path: Path, lab: InLab
) -> None:
    place = Path(narrow.files["root"]).parent
    with copying(narrow, repository, "full", rate="1M") as command:
        size, before = len(narrow.content("root")), free_at(place)
        for offset in reversed(range(size // 2, size, PIECE)):
            narrow.write("root", 99, offset, PIECE)  # what is overwritten before it was copied is kept
            if free_at(place) < before * 2 // 5:
                break
        code = command.end()
    assert code == 6, command.talk
    assert "NOT undone" not in command.talk
    assert "has left" in command.talk
    assert "try: vmhost backup run small --rate 0" in command.talk
    narrow.assert_left_alone()
    assert free_at(place) >= before - PIECE
    assert list(Path(repository).rglob(".new-*")) == []
    assert "its disks take" in "".join(
        note.text for note in connected.backups.plan("small", repository=repository, full=True).plan.notes
    )
    healed = back_up(connected, repository)
    assert held_by_point(repository, healed.id, narrow, tmp_path) == narrow.hashes()
