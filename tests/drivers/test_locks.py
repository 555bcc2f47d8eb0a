from __future__ import annotations

import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vmhost.drivers.holders import read_holder
from vmhost.drivers.locks import FileLocks
from vmhost.model.errors import Cancelled, Conflict, PermissionDenied, VmhostError
from vmhost.ports import NOT_AT_ALL, Layout, Waiting

ONE = "11111111-1111-4111-8111-111111111111"
TWO = "22222222-2222-4222-8222-222222222222"
FORK = multiprocessing.get_context("fork")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(*(tmp_path / name for name in ("state", "run", "etc", "images", "disks", "logs")))


@contextmanager
def held_elsewhere(
    layout: Layout, uuid: str = "", command: str = "vmhost apply", *, starts: bool = False
) -> Iterator[int]:
    """Another process holds the host's lock, or a guest's."""
    # Pipes, not multiprocessing's events: those do not survive that a waiter is killed.
    ready, say_ready = os.pipe()
    released, release = os.pipe()

    def hold() -> None:
        os.close(release)
        locks = FileLocks(layout, command=command)
        with locks.guests([uuid], starts=starts) if uuid else locks.host():
            os.write(say_ready, b"1")
            os.read(released, 1)

    process = FORK.Process(target=hold)
    process.start()
    os.close(say_ready)
    try:
        assert os.read(ready, 1) == b"1"
        yield process.pid or 0
    finally:
        for handle in (release, ready, released):
            os.close(handle)
        process.join(10)


def test_sixteen_processes_never_two_at_once_though_holders_are_killed(layout: Layout, tmp_path: Path) -> None:
    inside, broken, entries = tmp_path / "inside", tmp_path / "broken", tmp_path / "entries"
    rounds, killed = 6, 5
    chance = random.Random(7)
    dies_at = {number: chance.randrange(rounds) for number in chance.sample(range(16), killed)}

    def work(number: int) -> None:
        locks = FileLocks(layout, timeout=50)
        for turn in range(rounds):
            with locks.host(), locks.guests([ONE]):
                inside.write_text(str(number))
                time.sleep(0.002)
                if inside.read_text() != str(number):
                    broken.write_text(f"{number} was not alone")
                with entries.open("a") as file:
                    file.write(f"{number}\n")
                if dies_at.get(number) == turn:
                    os.kill(os.getpid(), signal.SIGKILL)

    processes = [FORK.Process(target=work, args=(number,)) for number in range(16)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(55)
    codes = [process.exitcode for process in processes]
    assert sorted(codes) == sorted([-signal.SIGKILL] * killed + [0] * (16 - killed))
    assert not broken.exists()
    expected = (16 - killed) * rounds + sum(turn + 1 for turn in dies_at.values())
    assert len(entries.read_text().split()) == expected


def test_a_killed_owner_frees_its_lock_at_once(layout: Layout) -> None:
    with held_elsewhere(layout) as pid:
        with pytest.raises(Conflict), FileLocks(layout, timeout=0).host():
            pass
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        began = time.monotonic()
        with FileLocks(layout, timeout=50).host():
            assert time.monotonic() - began < 10


def test_others_see_which_guests_are_being_started_as_long_as_they_are(layout: Layout) -> None:
    locks = FileLocks(layout)
    assert locks.starting() == frozenset()
    with held_elsewhere(layout, ONE):
        assert locks.starting() == frozenset(), "a lock alone starts nothing"
    with held_elsewhere(layout, ONE, starts=True), locks.guests([TWO], starts=True):
        assert locks.starting() == {ONE}, "what we start ourselves is no news to us"
    assert locks.starting() == frozenset()
    with held_elsewhere(layout, ONE, starts=True) as pid:
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert locks.starting() == frozenset(), "who died starts nothing any more"
        with locks.guests([ONE], NOT_AT_ALL):
            pass


def test_a_child_that_outlives_its_parent_does_not_keep_the_lock(layout: Layout) -> None:
    # As QEMU or a session's libvirtd would: started while the lock was held, and still there when we are dead.
    script = (
        "import subprocess, sys, os, signal; from pathlib import Path; from vmhost.ports import Layout\n"
        "from vmhost.drivers.locks import FileLocks; from vmhost.drivers.journals import FileJournals\n"
        "layout = Layout(*([Path(sys.argv[1])] * 6)); writer = FileJournals(layout).begin('op')\n"
        "with FileLocks(layout).host():\n"
        "    print(subprocess.Popen(['sleep', '20'], close_fds=False, stdout=subprocess.DEVNULL).pid, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(layout.state)], stdout=subprocess.PIPE, cwd=Path.cwd(), timeout=20
    )
    child = int(done.stdout)
    try:
        os.kill(child, 0)
        same = Layout(*([layout.state] * 6))
        with FileLocks(same, timeout=0).host():
            pass
    finally:
        os.kill(child, signal.SIGKILL)


def test_the_holder_is_named(layout: Layout) -> None:
    with held_elsewhere(layout, command="vmhost apply shop.yaml") as pid:
        with pytest.raises(Conflict) as caught, FileLocks(layout, timeout=0.1).host():
            pass
        text = rf"lock of the host: held by vmhost apply shop.yaml, pid {pid}, for \d+ s; gave up after 0 s"
        assert re.fullmatch(text, str(caught.value))
        assert caught.value.hint == f"ps -fp {pid}"


def test_a_waiter_is_told_once_and_gets_the_lock(layout: Layout) -> None:
    told: list[str] = []
    with held_elsewhere(layout, uuid=ONE) as pid:

        def hear(text: str) -> None:
            told.append(text)
            os.kill(pid, signal.SIGKILL)

        with FileLocks(layout, timeout=50).guests([ONE], Waiting(told=hear)):
            pass
    assert len(told) == 1
    assert f"pid {pid}" in told[0]
    assert told[0].startswith(f"lock of guest {ONE} is held by vmhost apply")


def test_nobody_waits_when_it_is_free(layout: Layout) -> None:
    told: list[str] = []
    with FileLocks(layout).host(Waiting(told=told.append)):
        pass
    assert told == []


def test_who_gives_up_waiting_is_heard_at_once(layout: Layout) -> None:
    asked = threading.Event()
    with held_elsewhere(layout, uuid=ONE) as pid:
        threading.Timer(0.2, asked.set).start()
        began = time.monotonic()
        with pytest.raises(Cancelled) as caught, FileLocks(layout).guests([TWO, ONE], Waiting(cancelled=asked.is_set)):
            pass
        assert time.monotonic() - began < 10
        assert f"pid {pid}" in caught.value.message
        assert caught.value.subject == f"lock of guest {ONE}"
        with FileLocks(layout).guests([TWO], NOT_AT_ALL):
            pass  # what it had taken before is free


def test_who_does_not_want_to_wait_is_refused_at_once_and_told_nothing(layout: Layout) -> None:
    told: list[str] = []
    with held_elsewhere(layout):
        began = time.monotonic()
        with pytest.raises(Conflict), FileLocks(layout).host(Waiting(seconds=0.0, told=told.append)):
            pass
        assert time.monotonic() - began < 10
    assert told == []


def test_a_stale_holder_is_not_blamed(layout: Layout) -> None:
    with held_elsewhere(layout) as pid:
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert read_holder(layout.runtime / "locks" / "host.lock") is None


def test_the_holder_is_forgotten_after_a_release(layout: Layout) -> None:
    path = layout.runtime / "locks" / "host.lock"
    with FileLocks(layout).host():
        holder = read_holder(path)
        assert holder is not None
        assert holder.pid == os.getpid()
    assert read_holder(path) is None


def test_guests_do_not_exclude_each_other(layout: Layout) -> None:
    with held_elsewhere(layout, uuid=ONE), FileLocks(layout, timeout=0).guests([TWO]):
        pass


def test_a_failed_call_keeps_nothing(layout: Layout) -> None:
    with held_elsewhere(layout, uuid=TWO):
        with pytest.raises(Conflict), FileLocks(layout, timeout=0.1).guests([ONE, TWO]):
            pass
        with held_elsewhere(layout, uuid=ONE):
            pass
    with FileLocks(layout).host(), FileLocks(layout).guests([TWO, ONE, TWO]):
        pass


def test_opposite_orders_do_not_deadlock(layout: Layout) -> None:
    def take(order: list[str]) -> None:
        for _ in range(10):
            with FileLocks(layout, timeout=20).guests(order):
                time.sleep(0.001)

    processes = [FORK.Process(target=take, args=(order,)) for order in ([ONE, TWO], [TWO, ONE])]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0, 0]


class TestOrder:
    def test_the_host_comes_first(self, layout: Layout) -> None:
        locks = FileLocks(layout)
        with locks.guests([ONE]), pytest.raises(VmhostError, match="the order is host, then guests"), locks.host():
            pass

    def test_guests_go_by_uuid(self, layout: Layout) -> None:
        locks = FileLocks(layout)
        with locks.guests([TWO]), pytest.raises(VmhostError, match="the order is"), locks.guests([ONE]):
            pass
        with locks.guests([ONE]), locks.guests([TWO]):
            pass

    def test_taking_it_twice_is_an_error_and_no_deadlock(self, layout: Layout) -> None:
        with (
            FileLocks(layout).host(),
            pytest.raises(VmhostError, match="this thread holds it"),
            FileLocks(layout).host(),
        ):
            pass
        with FileLocks(layout).host():
            pass

    def test_another_thread_waits_like_another_process(self, layout: Layout) -> None:
        seen: list[str] = []

        def other() -> None:
            with FileLocks(layout, timeout=50).host():
                seen.append("other")

        with FileLocks(layout).host():
            thread = threading.Thread(target=other)
            thread.start()
            thread.join(0.2)
            seen.append("first")
        thread.join(50)
        assert seen == ["first", "other"]

    def test_an_error_in_the_block_releases(self, layout: Layout) -> None:
        with pytest.raises(KeyboardInterrupt), FileLocks(layout).host():
            raise KeyboardInterrupt
        with held_elsewhere(layout):
            pass


def test_a_uuid_that_is_none_makes_no_file(layout: Layout) -> None:
    with pytest.raises(VmhostError, match="not the UUID"), FileLocks(layout).guests(["../../etc/x"]):
        pass
    assert list((layout.runtime / "locks").iterdir()) == []


def test_a_lock_file_that_is_a_link_is_refused(layout: Layout, tmp_path: Path) -> None:
    (layout.runtime / "locks").mkdir(parents=True, mode=0o700)
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (layout.runtime / "locks" / "host.lock").symlink_to(victim)
    with pytest.raises(VmhostError), FileLocks(layout, timeout=0).host():
        pass
    assert victim.read_text() == "precious"


def test_who_may_not_lock_is_told_so(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    layout.runtime.mkdir(parents=True)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(PermissionDenied), FileLocks(layout).host():
        pass


def test_no_lock_no_filelock() -> None:
    code = "import sys, vmhost.drivers.locks; sys.exit('filelock' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
