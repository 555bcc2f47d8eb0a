"""A copy that ends in the middle, while QEMU is at work: nothing is left of it, and the next run heals."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.backup.conftest import paused
from tests.backup.test_chain import back_up
from tests.backup.writing import Paused, held_by_point
from tests.labfixture import InLab
from tests.reliability.scene import Command, started
from vmhost.ops.host import Host

pytestmark = pytest.mark.backup

RATE = "4M"
"""Bytes a second, once QEMU has what it takes at once, 64 MiB: the rest would take 20 s."""
SITE = """
apiVersion: vmhost/v1
name: backups
guests:
  small:
    image: tiny
    memory: 64M
    disks: [{size: 144M}]
    state: stopped
    ready: {by: none}
"""
MOVED = re.compile(r"([1-9]|\d\d) %  copy ")
"""What is told when some of it is copied, and not all."""
TRIES = 5


def cancel(_command: Command, host: Host) -> None:
    """End it from another process."""
    (job,) = [job for job in host.jobs() if job.state == "running"]
    host.cancel_job(job.id)


ENDS: dict[str, Callable[[Command, Host], None]] = {
    "INT": lambda command, _host: command.send(signal.SIGINT),
    "KILL": lambda command, _host: command.send(signal.SIGKILL),
    "cancel": cancel,
}


@pytest.fixture
def wide(connected: Host, lab: InLab) -> Iterator[Paused]:
    """The paused guest with one disk of more than QEMU copies at once."""
    with paused(connected, lab, SITE) as guest:
        yield guest


@contextmanager
def copying(guest: Paused, repository: str, kind: str) -> Iterator[Command]:
    """Run a backup of a disk that is written to all over; give it when some of that is copied."""
    how = ["--full"] if kind == "full" else []
    for pattern in range(65, 65 + TRIES):
        guest.write("root", pattern, 0, len(guest.content("root")))
        with started("backup", "run", guest.name, "--repository", repository, "--rate", RATE, *how) as command:
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
