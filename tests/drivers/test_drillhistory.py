"""Drills that are kept: a file of an older vmhost is brought up to date, whoever dies meanwhile; a newer one is not."""

from __future__ import annotations

import os
import signal
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from vmhost.drivers.history import SqliteHistory
from vmhost.model.drills import DrillRecord
from vmhost.model.errors import DriverError
from vmhost.ports import Layout
from vmhost.testing.host import layout_in

OLD = """
CREATE TABLE drill (
    guest TEXT NOT NULL, name TEXT NOT NULL, point TEXT NOT NULL, started TEXT NOT NULL, rto REAL NOT NULL,
    rpo REAL NOT NULL, failed TEXT NOT NULL, console TEXT NOT NULL
);
CREATE INDEX drill_guest ON drill (guest, started);
INSERT INTO drill VALUES ('u', 'web-01', 'p1', '2026-11-01T00:00:00Z', 12.5, 60.0, '', '["login:"]');
INSERT INTO drill VALUES ('u', 'web-01', 'p2', '2026-11-02T00:00:00Z', -1.0, 60.0, 'it hangs', '[]');
PRAGMA user_version = 1;
"""
"""What version 1 of the schema looked like, with two drills in it."""
KEPT = (
    DrillRecord("u", "web-01", "p1", "2026-11-01T00:00:00Z", 12.5, 60.0, console=("login:",)),
    DrillRecord("u", "web-01", "p2", "2026-11-02T00:00:00Z", -1.0, 60.0, "it hangs"),
)
NEW = DrillRecord("u", "web-01", "p3", "2026-11-03T00:00:00Z", 10.0, 60.0, "", 321.5, ("login:",))


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = layout_in(tmp_path)
    made.state.mkdir(parents=True)
    return made


@pytest.fixture
def old(layout: Layout) -> Path:
    path = layout.state / "drills.sqlite3"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(OLD)
    return path


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def test_an_older_file_is_brought_up_to_date(layout: Layout, old: Path) -> None:
    history = SqliteHistory(layout)
    assert history.drills() == KEPT
    assert version(old) == 2
    history.drilled(NEW)
    assert SqliteHistory(layout).drills() == (*KEPT, NEW)


def test_who_had_it_open_before_goes_on(layout: Layout, old: Path) -> None:
    with closing(sqlite3.connect(old)) as before:
        assert SqliteHistory(layout).drills() == KEPT
        names = "guest, name, point, started, rto, rpo, failed, console"
        values = ("u", "web-01", "p3", "2026-11-03T00:00:00Z", 1.0, 2.0, "", "[]")
        before.execute(f"INSERT INTO drill ({names}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
        before.commit()
    assert [drill.seconds for drill in SqliteHistory(layout).drills()] == [-1.0, -1.0, -1.0]


class _Mortal(sqlite3.Connection):
    """Ends its process by SIGKILL before, or after, one of its statements."""

    left = 0
    after = False

    def execute(self, *arguments: object) -> sqlite3.Cursor:  # type: ignore[override]
        _Mortal.left -= 1
        if _Mortal.left == 0 and not _Mortal.after:
            os.kill(os.getpid(), signal.SIGKILL)
        found = super().execute(*arguments)  # type: ignore[arg-type]
        if _Mortal.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return found


def _dies_at(statement: int, layout: Layout, *, after: bool) -> bool:
    """Open the file in a process that is killed at a statement; whether it came so far."""
    child = os.fork()
    if child == 0:
        try:
            _Mortal.left, _Mortal.after = statement, after
            sqlite3.connect = partial(sqlite3.connect, factory=_Mortal)
            SqliteHistory(layout).drills()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("after", [False, True])
def test_a_process_that_is_killed_meanwhile_leaves_it_old_or_new(layout: Layout, old: Path, after: bool) -> None:
    content, killed, versions = old.read_bytes(), 0, set[int]()
    for statement in range(1, 40):
        for file in layout.state.iterdir():
            file.unlink()
        old.write_bytes(content)
        if not _dies_at(statement, layout, after=after):
            break
        killed += 1
        versions.add(version(old))
        assert SqliteHistory(layout).drills() == KEPT, f"killed at statement {statement}"
    assert killed > 8
    assert versions == {1, 2}


def test_a_newer_file_is_left_alone(layout: Layout, old: Path, caplog: pytest.LogCaptureFixture) -> None:
    with closing(sqlite3.connect(old)) as connection:
        connection.execute("PRAGMA user_version = 3")
    history = SqliteHistory(layout)
    with pytest.raises(DriverError, match="a newer vmhost wrote this file") as caught:
        history.drills()
    assert caught.value.hint == "vmhost --version"
    history.drilled(NEW)
    assert "a newer vmhost" in caplog.text
    assert version(old) == 3
    with closing(sqlite3.connect(old)) as connection:
        assert connection.execute("SELECT count(*) FROM drill").fetchone() == (2,)


def test_who_may_only_read_an_older_file_is_told_so(layout: Layout, old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and access(path, mode))  # root may all
    with pytest.raises(DriverError, match="an older vmhost wrote this file"):
        SqliteHistory(layout).drills()
    assert version(old) == 1
