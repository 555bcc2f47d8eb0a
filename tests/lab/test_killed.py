"""Starters that are killed, forged states, foreign mounts: down always cleans up, and only what is the lab's."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from vmhost import lab
from vmhost.drivers import command
from vmhost.lab import store
from vmhost.lab.store import Lab, Status
from vmhost.lab.tree import mounts_below
from vmhost.model.errors import NotFound

pytestmark = [pytest.mark.serial, pytest.mark.timeout(180)]


def until(condition, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def starter(name: str) -> command.Child:
    """Another process that brings up a lab and then waits."""
    script = f"import time; from vmhost import lab; lab.up({name!r}); print('up', flush=True); time.sleep(60)"
    return command.spawn([sys.executable, "-c", script])


def test_lab_outlives_its_killed_starter(lab_root, trace, machine):
    before = machine()
    with starter("orphan") as child:
        until(lambda: lab.labs() and lab.labs()[0].ready)
        os.kill(child.pid, signal.SIGKILL)
        child.wait(30)
    (found,) = lab.labs()
    assert found.status is Status.READY
    assert lab.run_inside("orphan", ["virsh", "uri"], timeout=30).text.strip() == "qemu:///system"
    seen = trace(found)
    lab.down("orphan")
    assert seen.left() == []
    assert machine() == before


@pytest.mark.parametrize("delay", [0.0, 0.01, 0.03, 0.06, 0.1, 0.15, 0.2, 0.25, 0.3])
def test_starter_killed_in_the_middle(lab_root, machine, delay):
    """Counted from the moment when the lab's directory appears."""
    before = machine()
    with starter("half") as child:
        until((lab_root / "half").exists)
        time.sleep(delay)
        os.kill(child.pid, signal.SIGKILL)
        child.wait(30)
    (found,) = lab.labs()
    mark = found.source if found.mark else "no mark yet"
    lab.down("half")
    assert lab.labs() == ()
    assert list(lab_root.iterdir()) == []
    assert machine() == before
    for mounts in Path("/proc").glob("[0-9]*/mountinfo"):
        try:
            assert mark not in mounts.read_text()
        except OSError:
            continue
    lab.up("half")
    lab.down("half")


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.15])
def test_down_while_another_process_brings_it_up(lab_root, delay):
    with starter("race") as child:
        until((lab_root / "race").exists)
        time.sleep(delay)
        lab.down("race")
        # Either the start failed, or it was over before: then what is left of the starter is the sleep.
        assert lab.labs() == ()
        if child.code() is not None:
            assert child.code() == 1
    assert list(lab_root.iterdir()) == []


def test_two_downs_at_once(lab_root):
    lab.up("twice")
    script = "from vmhost import lab; from vmhost.model.errors import NotFound\n"
    script += "try: lab.down('twice')\nexcept NotFound: pass"
    children = [command.spawn([sys.executable, "-c", script]) for _ in range(3)]
    assert [child.wait(60) for child in children] == [0, 0, 0]
    assert lab.labs() == ()


def test_process_with_the_number_of_a_dead_lab_is_left_alone(lab_root):
    """Numbers of processes come back; the start time tells them apart."""
    with command.spawn(["sleep", "60"]) as child:
        directory = lab_root / "forged"
        directory.mkdir(parents=True)
        right = store.start_time(child.pid)
        for started, boot in ((right - 1, store.boot_id()), (right, "another boot")):
            store.write(Lab("forged", directory, ready=True, pid=child.pid, started=started, boot=boot))
            assert lab.find("forged").status is Status.DEAD
        lab.down("forged")
        assert child.code() is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 1}', '{"pid": 999999999, "started": 1, "boot": "x"}'])
def test_state_that_cannot_be_read(lab_root, text):
    directory = lab_root / "odd"
    directory.mkdir(parents=True)
    (directory / "lab.json").write_text(text)
    assert lab.find("odd").status is Status.DEAD
    lab.down("odd")
    with pytest.raises(NotFound):
        lab.down("odd")


def test_state_on_disk(lab_root):
    found = lab.up("state")
    state = json.loads((found.directory / "lab.json").read_text())
    assert state["version"] == 1
    assert (state["pid"], state["started"]) == (found.pid, store.start_time(found.pid))
    assert found.directory.stat().st_mode & 0o777 == 0o700


def test_nothing_is_deleted_through_a_mount(lab_root, tmp_path):
    """Somebody mounted a directory of theirs below the lab's: down says so and deletes nothing."""
    treasure = tmp_path / "treasure"
    treasure.mkdir()
    (treasure / "gold").write_text("gold")
    script = (
        "import sys; from vmhost import lab; from vmhost.model.errors import DriverError\n"
        "try: lab.down('chest')\nexcept DriverError as error: print(error, '| try:', error.hint)"
    )
    inside = lab_root / "chest" / "disk"
    inside.mkdir(parents=True)
    line = [
        "sh",
        "-ec",
        'mount --bind "$1" "$2"; exec "$3" -c "$4"',
        "sh",
        str(treasure),
        str(inside),
        sys.executable,
        script,
    ]
    told = command.run(["unshare", "--mount", *line], timeout=30).text
    assert f"mounted in its directory: {inside}" in told
    assert f"try: umount {inside}" in told
    assert (treasure / "gold").read_text() == "gold"
    lab.down("chest")


def test_mounts_below():
    table = "1 2 0:1 / /a rw - x y z\n3 1 0:1 / /a/b rw - x y z\n4 1 0:1 / /ab rw - x y z\n"
    assert mounts_below(Path("/a"), table) == ("/a", "/a/b")
    assert mounts_below(Path("/a/b/c"), table) == ()
