"""What all may use together: never more at once, in the order of asking, and what a dead one had is free."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.contract.backends import eventually
from vmhost.drivers.locks import FileLocks
from vmhost.model.errors import Cancelled, Refused
from vmhost.ports import NOT_AT_ALL, Layout, Locks, Waiting
from vmhost.testing.locks import FakeLocks

FORK = multiprocessing.get_context("fork")
WHOLE = 100


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(*(tmp_path / name for name in ("state", "run", "etc", "images", "disks", "logs")))


@pytest.fixture(params=["file", "fake"])
def locks(request: pytest.FixtureRequest, layout: Layout) -> Locks:
    """The real ones and the fake ones."""
    return FileLocks(layout) if request.param == "file" else FakeLocks()


class Asking:
    """Somebody who asks for a share, has it, and gives it back when he is told to."""

    def __init__(self, locks: Locks, share: int, whole: int = WHOLE) -> None:
        self.told: list[str] = []
        self.has, self.gave_up, self._free = (threading.Event() for _ in range(3))
        self.cancelled = False
        waiting = Waiting(cancelled=lambda: self.cancelled, told=self.told.append)

        def ask() -> None:
            try:
                with locks.budget(share, whole, waiting):
                    self.has.set()
                    self._free.wait(60)
            except Cancelled:
                self.gave_up.set()

        self._thread = threading.Thread(target=ask)
        self._thread.start()

    def end(self) -> None:
        self._free.set()
        self._thread.join(60)
        assert not self._thread.is_alive()


def has(asking: Asking) -> bool:
    """Whether he gets his share in time; it is never waited for a fixed time."""
    return asking.has.wait(30)


def waits(asking: Asking) -> bool:
    """Whether he was told that he has to wait, and does."""
    return eventually(lambda: asking.told) and not asking.has.is_set()


def test_shares_are_had_in_the_order_of_asking_and_never_more_than_the_whole(locks: Locks) -> None:
    one, two = Asking(locks, 50), Asking(locks, 50)
    assert has(one)
    assert has(two)
    three = Asking(locks, 100)
    assert waits(three)
    assert "100 a second" in three.told[0]
    four = Asking(locks, 50)  # it would fit before the third, which would then wait for ever
    one.end()
    assert waits(four)
    assert not three.has.is_set()
    two.end()
    assert has(three)
    assert not four.has.is_set()
    three.end()
    assert has(four)
    more = Asking(locks, 70, whole=60)  # of a smaller whole than its own share: alone
    assert waits(more)
    four.end()
    assert has(more)
    more.end()


def test_who_gives_up_is_in_nobodys_way(locks: Locks) -> None:
    one = Asking(locks, 100)
    assert has(one)
    two, three = Asking(locks, 100), None
    assert waits(two)
    three = Asking(locks, 100)
    assert waits(three)
    two.cancelled = True
    assert two.gave_up.wait(30)
    two.end()
    one.end()
    assert has(three)
    three.end()


def test_who_has_waited_long_enough_gives_up_and_is_in_nobodys_way(locks: Locks) -> None:
    refused = pytest.raises(Refused, match="did not end in 0 s")
    with locks.budget(WHOLE, WHOLE), refused, locks.budget(WHOLE, WHOLE, NOT_AT_ALL):
        pass
    with locks.budget(WHOLE, WHOLE, NOT_AT_ALL):
        pass


def test_whoever_waits_is_told_for_whom_and_not_for_ever(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vmhost.drivers.shares.PATIENCE", 0.0)
    told: list[str] = []
    with FileLocks(layout, command="vmhost backup run").budget(WHOLE, WHOLE):
        asking = FileLocks(layout).budget(WHOLE, WHOLE, Waiting(told=told.append))
        with pytest.raises(Refused, match=f"vmhost backup run, pid {os.getpid()}, for") as caught, asking:
            pass
    assert caught.value.hint == f"ps -fp {os.getpid()}"
    (words,) = told
    assert f"100 a second; waiting for vmhost backup run, pid {os.getpid()}, for" in words
    assert words.endswith(f"(ps -fp {os.getpid()})")


def test_what_a_killed_one_had_is_free_and_nothing_is_left(layout: Layout) -> None:
    ready, say = os.pipe()

    def hold(then: Callable[[], None]) -> None:
        with FileLocks(layout).budget(WHOLE, WHOLE):
            os.write(say, b"1")
            then()

    process = FORK.Process(target=hold, args=(signal.pause,))
    process.start()
    assert os.read(ready, 1) == b"1"
    one = Asking(FileLocks(layout), WHOLE)
    assert waits(one)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(30)
    assert has(one)
    one.end()
    assert [path.name for path in (layout.runtime / "locks").glob("budget-*")] == []


def test_many_processes_never_have_more_than_the_whole_though_some_are_killed(layout: Layout, tmp_path: Path) -> None:
    """Each writes down its share while it has it; whoever finds too much says so."""
    place = tmp_path / "had"
    place.mkdir()

    def use(number: int) -> None:
        chance = random.Random(number)
        for turn in range(6):
            share = chance.choice((20, 40, 60))
            with FileLocks(layout).budget(share, WHOLE):
                mine = place / f"{share}-{number}"
                mine.touch()
                if sum(int(path.name.partition("-")[0]) for path in place.iterdir()) > WHOLE:
                    (tmp_path / "broken").touch()
                mine.unlink()
                if turn == number and number < 3:
                    os.kill(os.getpid(), signal.SIGKILL)

    with ExitStack() as ends:
        processes = [FORK.Process(target=use, args=(number,)) for number in range(8)]
        for process in processes:
            process.start()
            ends.callback(process.join, 60)
    assert [process.exitcode for process in processes] == [*[-9] * 3, *[0] * 5]
    assert not (tmp_path / "broken").exists()
    with FileLocks(layout).budget(WHOLE, WHOLE):
        assert len(list((layout.runtime / "locks").glob("budget-*"))) == 1
