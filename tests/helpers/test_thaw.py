"""The guard over a frozen guest: it thaws when its maker dies or takes too long, and at no other time."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from tests.contract.backends import eventually
from vmhost.drivers.thawguard import ProcessThawGuard, ProcessThawGuards
from vmhost.helpers.thaw import watch
from vmhost.model.errors import DriverError
from vmhost.testing.host import layout_in

HOURS = 3600.0


def watched(path: Path, seconds: float) -> tuple[threading.Thread, list[str]]:
    """Watch over the freeze of a file in a thread; return it, and what it did."""
    acts: list[str] = []

    def act() -> bool:
        acts.append("thawed")
        return True

    before = opened(path)
    thread = threading.Thread(target=watch, args=(path, seconds, act), daemon=True)
    thread.start()
    assert eventually(lambda: opened(path) > before or not thread.is_alive(), seconds=30)
    return thread, acts


def opened(path: Path) -> int:
    """How often this process has a file open."""
    found = 0
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            found += link.readlink() == path
    return found


def test_a_freeze_that_has_ended_is_left_alone(tmp_path: Path) -> None:
    guard = ProcessThawGuard(tmp_path / "web")
    thread, acts = watched(tmp_path / "web", HOURS)
    guard.dismiss()
    guard.dismiss()
    thread.join(30)
    assert (thread.is_alive(), acts) == (False, [])
    assert watch(tmp_path / "web", HOURS, lambda: False) == 0, "it had ended before the guard was there"


def test_a_freeze_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    guard = ProcessThawGuard(tmp_path / "web")
    thread, acts = watched(tmp_path / "web", 0.0)
    thread.join(30)
    assert (thread.is_alive(), acts, list(tmp_path.iterdir())) == (False, ["thawed"], [])
    guard.dismiss()


def test_a_guard_of_an_earlier_freeze_leaves_the_next_one_alone(tmp_path: Path) -> None:
    first = ProcessThawGuard(tmp_path / "web")
    thread, acts = watched(tmp_path / "web", HOURS)
    second = ProcessThawGuard(tmp_path / "web")
    del first  # its owner forgets it, as one that has died does
    thread.join(30)
    assert (thread.is_alive(), acts) == (False, [])
    second.dismiss()


FREEZER = """
import sys, time
from pathlib import Path
from vmhost.drivers.thawguard import ProcessThawGuard
guard = ProcessThawGuard(Path(sys.argv[1]))
print("frozen", flush=True)
time.sleep(3600)
"""


def test_whoever_is_killed_leaves_it_to_the_guard(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", FREEZER, str(tmp_path / "web")], stdout=subprocess.PIPE) as freezer:
        assert freezer.stdout is not None
        assert freezer.stdout.readline() == b"frozen\n"
        thread, acts = watched(tmp_path / "web", HOURS)
        assert (thread.is_alive(), acts) == (True, [])
        freezer.kill()
    thread.join(30)
    assert (thread.is_alive(), acts, list(tmp_path.iterdir())) == (False, ["thawed"], [])


def guards() -> set[int]:
    """The processes that watch over freezes."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if b"vmhost.helpers.thaw" in words and b"nobody-at-all" in words:
            found.add(int(entry.name))
    return found


def test_the_guard_is_a_process_of_its_own_that_ends_with_the_freeze(tmp_path: Path) -> None:
    guard = ProcessThawGuards(layout_in(tmp_path), lambda: "test:///default").arm("nobody-at-all", HOURS)
    try:
        assert eventually(lambda: len(guards()) == 1, seconds=30)
        (process,) = guards()
        assert os.getsid(process) == process, "no signal of our terminal reaches it"
    finally:
        guard.dismiss()
    assert eventually(lambda: not guards(), seconds=30)
    assert list((tmp_path / "run" / "frozen").iterdir()) == []


def test_what_cannot_be_guarded_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vmhost.drivers.thawguard.helper_program", lambda *_: ["/nonexistent/python"])
    with pytest.raises(DriverError):
        ProcessThawGuards(layout_in(tmp_path), lambda: "test:///default").arm("nobody-at-all", HOURS)
    assert list((tmp_path / "run" / "frozen").iterdir()) == []
