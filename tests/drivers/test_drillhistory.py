"""Drills that are kept: a file of an older vmhost gets what is new, whoever dies, and that one goes on with it."""

from __future__ import annotations

import os
import signal
import sqlite3
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from vmhost.drivers.history import KEPT_DRILLS, SqliteHistory
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
"""What an older vmhost made, with two drills in it."""
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


def columns(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        return {column[1] for column in connection.execute("PRAGMA table_info(drill)")}


def test_an_older_file_is_read_as_it_is_and_gets_the_column_when_it_is_written(layout: Layout, old: Path) -> None:
    history = SqliteHistory(layout)
    assert history.drills() == KEPT
    assert "seconds" not in columns(old)
    history.drilled(NEW)
    assert "seconds" in columns(old)
    assert SqliteHistory(layout).drills() == (*KEPT, NEW)


def test_an_older_vmhost_goes_on_with_the_file(layout: Layout, old: Path) -> None:
    with closing(sqlite3.connect(old)) as before:
        SqliteHistory(layout).drilled(NEW)
        assert before.execute("PRAGMA user_version").fetchone() == (1,), "what it knows"
        names = "guest, name, point, started, rto, rpo, failed, console"
        values = ("u", "web-01", "p4", "2026-11-04T00:00:00Z", 1.0, 2.0, "", "[]")
        before.execute(f"INSERT INTO drill ({names}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
        before.commit()
    assert [drill.seconds for drill in SqliteHistory(layout).drills()] == [-1.0, -1.0, 321.5, -1.0]


def test_the_last_one_is_the_one_that_was_noted_last_though_the_clock_was_ahead_before(layout: Layout) -> None:
    history, ahead = SqliteHistory(layout), replace(NEW, started="2031-01-01T00:00:00Z")
    history.drilled(ahead)
    history.drilled(NEW)
    assert history.drills() == (ahead, NEW)
    for number in range(KEPT_DRILLS):
        history.drilled(replace(NEW, point=f"p{number}"))
    assert [drill.point for drill in history.drills()] == [f"p{number}" for number in range(KEPT_DRILLS)]


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
            SqliteHistory(layout).drilled(NEW)
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("after", [False, True])
def test_a_process_that_is_killed_meanwhile_leaves_it_old_or_new(layout: Layout, old: Path, after: bool) -> None:
    content, killed, found = old.read_bytes(), 0, set[tuple[DrillRecord, ...]]()
    for statement in range(1, 40):
        for file in layout.state.iterdir():
            file.unlink()
        old.write_bytes(content)
        if not _dies_at(statement, layout, after=after):
            break
        killed += 1
        left = SqliteHistory(layout).drills()
        assert ("seconds" in columns(old)) == (left != KEPT), f"killed at statement {statement}"
        found.add(left)
    assert killed > 8
    assert found == ({KEPT, (*KEPT, NEW)} if after else {KEPT})


def test_a_newer_file_is_left_alone(layout: Layout, old: Path, caplog: pytest.LogCaptureFixture) -> None:
    with closing(sqlite3.connect(old)) as connection:
        connection.execute("PRAGMA user_version = 2")
    history = SqliteHistory(layout)
    with pytest.raises(DriverError, match="a newer vmhost wrote this file") as caught:
        history.drills()
    assert caught.value.hint == "vmhost --version"
    history.drilled(NEW)
    assert "a newer vmhost" in caplog.text
    with closing(sqlite3.connect(old)) as connection:
        assert connection.execute("SELECT count(*) FROM drill").fetchone() == (2,)


@pytest.mark.parametrize("all_may_write", [False, True])
def test_who_may_only_read_an_older_file_reads_it(
    layout: Layout, old: Path, monkeypatch: pytest.MonkeyPatch, all_may_write: bool
) -> None:
    access = os.access

    def may(path: Path, mode: int) -> bool:
        """Root may all."""
        return access(path, mode) and (mode != os.W_OK or (all_may_write and path == old))

    monkeypatch.setattr(os, "access", may)
    assert SqliteHistory(layout).drills() == KEPT
