"""What is noted about points: kept by all who note something, and never written over when it cannot be read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.repository.test_repository import Shelf
from vmhost.drivers.files import checksum
from vmhost.drivers.repository import places
from vmhost.model.errors import DamagedData
from vmhost.model.retention import Keep
from vmhost.plan.prune import plan_prune


@pytest.fixture
def pinned(tmp_path: Path) -> Shelf:
    """Three full points, the first of which is pinned."""
    made = Shelf(tmp_path)
    for number in (1, 2, 3):
        made.take(f"p{number}", number)
    made.port.note(made.ref("p1"), pinned=True)
    return made


def notes_of(shelf: Shelf) -> Path:
    return places.points(shelf.ref("p1")).parent / "notes.json"


def _state(data: object) -> str:
    return json.dumps({"version": 1, "sha256": checksum([1, data]), "data": data})


BAD: dict[str, Callable[[Path], object]] = {
    "torn": lambda path: os.truncate(path, 20),
    "edited": lambda path: path.write_text(path.read_text().replace("true", "false")),
    "newer": lambda path: path.write_text(json.dumps({"version": 2, "sha256": checksum([2, {}]), "data": {}})),
    "no notes": lambda path: path.write_text(_state({"p1": "x"})),
    "no time": lambda path: path.write_text(_state({"p1": {"verified": "yesterday"}})),
    "of another kind": lambda path: path.write_text(_state({"p1": {"pinned": "no"}})),
    "unknown": lambda path: path.write_text(_state({"p1": {"ref": True}})),
    "deep": lambda path: path.write_text("[" * 100_000),
    "a link": lambda path: (path.rename(path.with_name("elsewhere")), path.symlink_to("elsewhere")),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "a directory": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("kind", BAD)
def test_notes_that_cannot_be_read_keep_everything_and_are_not_written_over(pinned: Shelf, kind: str) -> None:
    path = notes_of(pinned)
    BAD[kind](path)
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(DamagedData) as caught:
        pinned.port.note(pinned.ref("p2"), verified="2026-11-19T23:00:00Z", damaged=False)
    assert caught.value.hint == f"mv {path} {path}.damaged"
    assert (path.read_bytes() if path.is_file() else b"") == before
    points = pinned.port.points(pinned.path)
    assert [point.pinned for point in points] == [True] * 3
    assert plan_prune(points, Keep(last=1), pinned.host).empty
    assert [(damage.file, damage.guest) for damage in pinned.port.damaged(pinned.path)] == [("notes.json", "")]
    path.rename(f"{path}.damaged")
    pinned.port.note(pinned.ref("p1"), pinned=True)
    assert [point.pinned for point in pinned.port.points(pinned.path)] == [True, False, False]
    assert pinned.port.damaged(pinned.path) == ()


NOTE = """
import sys
from tests.repository.test_repository import PointRef
from vmhost.drivers.repository import notes
ref = PointRef(*sys.argv[1:5])
for number in range(60):
    notes.note(ref, **{sys.argv[5]: bool(number % 2)})
"""


def test_what_two_note_at_once_is_all_there(pinned: Shelf) -> None:
    def noting(name: str, what: str) -> subprocess.Popen[bytes]:
        ref = pinned.ref(name)
        return subprocess.Popen([sys.executable, "-c", NOTE, ref.repository, ref.host, ref.guest, ref.id, what])

    both = [noting("p2", "pinned"), noting("p3", "damaged")]
    assert [one.wait(50) for one in both] == [0, 0]
    points = pinned.port.points(pinned.path)
    assert [(point.pinned, point.damaged) for point in points] == [(True, False), (True, False), (False, True)]
