"""The guard over a frozen guest: it thaws when its maker dies or takes too long, and at no other time."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import IO
from uuid import uuid4

import pytest

from tests.contract.backends import eventually
from vmhost.drivers.helperprogram import start_beside_us
from vmhost.drivers.thawguard import ProcessThawGuard, ProcessThawGuards
from vmhost.helpers.thaw import thaw, watch
from vmhost.model.errors import Absent, DriverError
from vmhost.testing.host import layout_in

HOURS = 3600.0


def watched(path: Path, seconds: float) -> tuple[threading.Thread, list[str]]:
    """Watch over the freeze of a file in a thread; return it, and what it did."""
    acts: list[str] = []

    def act(_there: Callable[[], bool]) -> bool:
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
    assert watch(tmp_path / "web", HOURS, lambda _: False) == 0, "it had ended before the guard was there"


def test_nobody_sees_the_file_before_it_is_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guard of an earlier freeze that looked then would take its owner for dead."""
    seen: list[bool] = []
    flock = fcntl.flock

    def looked(file: IO[bytes], how: int) -> None:
        seen.append((tmp_path / "web").exists())
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", looked)
    guard = ProcessThawGuard(tmp_path / "web")
    assert (seen, [path.name for path in tmp_path.iterdir()]) == ([False], ["web"])
    guard.dismiss()


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


def test_a_guard_that_is_at_work_hears_that_it_is_dismissed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its agent hangs, its owner thaws by other means; the next freeze must not be thawed."""
    guard, asked = ProcessThawGuard(tmp_path / "web"), list[str]()

    def connect(uri: str) -> None:
        asked.append(uri)
        guard.dismiss()
        raise DriverError("its agent does not answer") if len(asked) == 1 else Absent("the guest has ended")

    monkeypatch.setattr("vmhost.drivers.libvirt.connect", connect)
    monkeypatch.setattr("vmhost.helpers.thaw.PAUSE", 0.0)
    assert watch(tmp_path / "web", 0.0, lambda there: thaw("test:///default", "web", there)) == 0
    assert asked == ["test:///default"]


@pytest.mark.parametrize(
    ("user", "systemd_run", "plain"),
    [(0, "exit 0", False), (0, "exit 1", True), (0, None, True), (1000, "exit 0", True)],
    ids=["systemd starts it", "systemd refuses", "no systemd-run", "an ordinary user"],
)
def test_what_systemd_does_not_start_is_started_plainly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user: int, systemd_run: str | None, plain: bool
) -> None:
    if systemd_run is not None:
        program = tmp_path / "systemd-run"
        program.write_text(f'#!/bin/sh\necho "$4" >>{tmp_path}/units\n{systemd_run}\n')
        program.chmod(0o755)
    started: list[list[str]] = []
    monkeypatch.setattr("vmhost.drivers.helperprogram.has_systemd", lambda: True)
    monkeypatch.setattr("os.geteuid", lambda: user)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("vmhost.drivers.programs._SYSTEM_PATH", str(tmp_path))
    monkeypatch.setattr(
        "vmhost.drivers.helperprogram.spawn",
        lambda words: started.append(words) or SimpleNamespace(pid=1, reap=lambda: None),
    )
    for _ in range(2):
        start_beside_us(["true"], "vmhost-thaw-web", "thaws web")
    assert started == [["true"]] * 2 * plain
    if systemd_run is not None and user == 0:
        first, second = (tmp_path / "units").read_text().split()
        assert first.startswith("--unit=vmhost-thaw-web-")
        assert first != second, "two freezes of one guest may be guarded at once"


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


def guards(uuid: str) -> set[int]:
    """The processes that watch over freezes of a guest."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if b"vmhost.helpers.thaw" in words and uuid.encode() in words:
            found.add(int(entry.name))
    return found


def test_the_guard_is_a_process_of_its_own_that_ends_with_the_freeze(tmp_path: Path) -> None:
    uuid = str(uuid4())  # the processes of other tests are on this machine, too
    guard = ProcessThawGuards(layout_in(tmp_path), lambda: "test:///default").arm(uuid, HOURS)
    try:
        assert eventually(lambda: len(guards(uuid)) == 1, seconds=30)
        (process,) = guards(uuid)
        assert os.getsid(process) == process, "no signal of our terminal reaches it"
    finally:
        guard.dismiss()
    assert eventually(lambda: not guards(uuid), seconds=30)
    assert list((tmp_path / "run" / "frozen").iterdir()) == []


def test_what_cannot_be_guarded_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vmhost.drivers.thawguard.helper_program", lambda *_: ["/nonexistent/python"])
    with pytest.raises(DriverError):
        ProcessThawGuards(layout_in(tmp_path), lambda: "test:///default").arm("nobody-at-all", HOURS)
    assert list((tmp_path / "run" / "frozen").iterdir()) == []
