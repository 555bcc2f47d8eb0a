"""Many processes take VLAN ids at once, and some are killed while they hold the lock: no duplicates, no leak."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.reliability.allocator import RANGE, ports_in
from vmhost.drivers import command
from vmhost.ops.apply import recover_host
from vmhost.ops.host import Host

PROCESSES, EACH = 16, 100
KILLED = {3: (11, "before"), 6: (12, "after"), 9: (113, "after"), 12: (215, "before"), 15: (317, "after")}


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory, if there is one: this is about locks and kills, and waiting for disks takes a minute."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with TemporaryDirectory(dir="/dev/shm") as name:
        yield Path(name)


@pytest.mark.serial
@pytest.mark.timeout(300)
def test_sixteen_processes_take_a_hundred_each_and_some_are_killed(memory: Path) -> None:
    with ExitStack() as stack:
        children = [stack.enter_context(_start(memory, number)) for number in range(PROCESSES)]
        codes = [child.wait(280) for child in children]
    assert [codes[number] for number in KILLED] == [-9] * len(KILLED)
    assert {code for number, code in enumerate(codes) if number not in KILLED} == {0}

    ports = ports_in(memory)
    recover_host(ports)
    assert not ports.journals.any_open()
    got = dict(line.split() for file in memory.glob("*.got") for line in file.read_text().splitlines())
    held = {row.owner: str(row.vid) for row in Host(ports=ports).vlans.list()}
    assert len(set(held.values())) == len(held), "no duplicates"
    assert got.items() <= held.items(), "who was told an id has it"
    assert len(got) >= (PROCESSES - len(KILLED)) * EACH
    unheard = held.keys() - got.keys()
    assert len(unheard) <= len(KILLED), "what a killed process was about to be told, and nothing else"

    host = Host(ports=ports)
    for owner in unheard:
        assert str(host.vlans.allocate(RANGE, owner=owner).vid) == held[owner], "it asks again and has it: no leak"
    given_up = [vid for owner, vid in held.items() if owner.endswith("-0")]
    for vid in given_up:
        host.vlans.release(int(vid))
    states = [row.state for row in host.vlans.list()]
    assert (states.count("resting"), states.count("idle")) == (len(given_up), len(held) - len(given_up))


def _start(directory: Path, number: int) -> command.Child:
    words = [sys.executable, "-m", "tests.reliability.allocator", str(directory), f"p{number}", str(EACH)]
    return command.spawn([*words, *map(str, KILLED.get(number, ()))], env={**os.environ})
