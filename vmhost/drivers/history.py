"""Jobs, running and past, in SQLite: visible to every process, and never in the way of real work.

It is history only: nothing depends on it. A write that fails is logged and forgotten. Who may only read the file sees
the jobs all the same.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, get_args

from vmhost.drivers.database import Database, T, Work
from vmhost.drivers.lookhistory import LookHistory
from vmhost.drivers.processes import birth_of, process_is_alive
from vmhost.model.drills import DrillRecord
from vmhost.model.errors import Absent, AlreadyThere, DriverError
from vmhost.model.outcome import JobRecord, JobState
from vmhost.model.services import KeptLook
from vmhost.ports import Layout

KEPT_JOBS: Final = 1000
KEPT_LINES: Final = 2000
KEPT_DRILLS: Final = 100
LONGEST_LINE: Final = 4096
_log = logging.getLogger("vmhost.history")

_SCHEMA: Final = """
CREATE TABLE job (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, subject TEXT NOT NULL, state TEXT NOT NULL, started REAL NOT NULL,
    ended REAL NOT NULL, pid INTEGER NOT NULL, user TEXT NOT NULL, progress TEXT NOT NULL, done REAL NOT NULL,
    total REAL NOT NULL, rate REAL NOT NULL, error TEXT NOT NULL,
    birth TEXT NOT NULL, seen REAL NOT NULL, cancel INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX job_started ON job (started);
CREATE TABLE line (
    job TEXT NOT NULL REFERENCES job (id) ON DELETE CASCADE, number INTEGER NOT NULL, text TEXT NOT NULL,
    PRIMARY KEY (job, number)
) WITHOUT ROWID;
"""
_START: Final = """
INSERT INTO job (id, kind, subject, state, started, ended, pid, user, progress, done, total, rate, error, birth, seen)
VALUES (:id, :kind, :subject, :state, :started, :ended, :pid, :user, :progress, :done, :total, :rate, :error, :birth,
        :started)
"""
_NEWEST: Final = """
SELECT id, kind, subject, state, started, ended, pid, user, progress, done, total, rate, error, birth, seen
FROM job ORDER BY started DESC, id LIMIT ?
"""
_UPDATE: Final = "UPDATE job SET progress = ?, done = ?, total = ?, rate = ?, seen = ? WHERE id = ?"
_PRUNE: Final = """
DELETE FROM job WHERE state <> 'running' AND id IN (SELECT id FROM job ORDER BY started DESC, id LIMIT -1 OFFSET ?)
"""
_DRILLS: Final = """
CREATE TABLE drill (
    guest TEXT NOT NULL, name TEXT NOT NULL, point TEXT NOT NULL, started TEXT NOT NULL, rto REAL NOT NULL,
    rpo REAL NOT NULL, failed TEXT NOT NULL, console TEXT NOT NULL, seconds REAL NOT NULL DEFAULT -1
);
CREATE INDEX drill_guest ON drill (guest, started);
"""
_TOOK: Final = "ALTER TABLE drill ADD COLUMN seconds REAL NOT NULL DEFAULT -1"
"""Files of an older vmhost lack how long a drill took. It goes on with a file that has it, so the version stays."""
_DRILL: Final = tuple(DrillRecord.__dataclass_fields__)
_PRUNE_DRILLS: Final = """
DELETE FROM drill WHERE guest = ? AND rowid NOT IN
    (SELECT rowid FROM drill WHERE guest = ? ORDER BY rowid DESC LIMIT ?)
"""


class SqliteHistory:
    """The jobs of one hypervisor, in ``history.sqlite3`` of its state directory.

    :param jobs: how many jobs are kept; older ones that have ended go when a job starts.
    :param lines: how many log lines of a job are kept: its last ones.
    """

    def __init__(self, layout: Layout, *, jobs: int = KEPT_JOBS, lines: int = KEPT_LINES) -> None:
        self._database = Database(layout.state / "history.sqlite3", schema=_SCHEMA, version=1)
        self._drills = Database(layout.state / "drills.sqlite3", schema=_DRILLS, version=1)
        self._looks = LookHistory(layout.state / "looks.sqlite3")
        self._kept_jobs = jobs
        self._kept_lines = lines
        self._said = ""

    def start(self, record: JobRecord) -> None:
        """Note that a job starts; its process is ``record.pid``, or this one when that is 0.

        :raises AlreadyThere: a job has that id.
        """
        pid = record.pid or os.getpid()
        values: dict[str, Any] = {name: getattr(record, name) for name in JobRecord.__dataclass_fields__}
        values |= {"pid": pid, "birth": birth_of(pid)}

        def insert(database: sqlite3.Connection) -> bool:
            if _exists(database, record.id):
                return False
            database.execute(_START, values)
            database.execute(_PRUNE, [self._kept_jobs])
            return True

        if self._attempt(insert) is False:
            raise AlreadyThere("a job has that id", subject=record.id, hint=f"vmhost job show {record.id}")

    def update(self, id: str, *, progress: str, done: float, total: float, rate: float) -> None:  # noqa: A002
        self._change(_UPDATE, [progress, done, total, rate, time.time(), id])

    def end(self, id: str, *, state: str, error: str) -> None:  # noqa: A002 - the port's word
        if state not in get_args(JobState):
            raise ValueError(f"{state!r} is not the state of a job")
        self._change("UPDATE job SET state = ?, error = ?, ended = ? WHERE id = ?", [state, error, time.time(), id])

    def cancel(self, id: str) -> None:  # noqa: A002 - the port's word
        """Ask a running job to end; it does so at its next step.

        :raises Absent: no job of that id runs.
        :raises DriverError: the history cannot be written.
        """

        def mark(database: sqlite3.Connection) -> bool:
            running = any(job.id == id and job.state == "running" for job in _newest(database, -1))
            if running:
                database.execute("UPDATE job SET cancel = 1 WHERE id = ?", [id])
            return running

        if not self._database.write(mark):
            raise Absent("no job of that id is running", subject=id, hint="vmhost job list")

    def cancelled(self, id: str) -> bool:  # noqa: A002 - the port's word
        """Whether somebody asked the job to end; a history that cannot be read asks nothing."""

        def read(database: sqlite3.Connection) -> bool:
            row = database.execute("SELECT cancel FROM job WHERE id = ?", [id]).fetchone()
            return bool(row and row[0])

        try:
            return bool(self._database.read(read))
        except DriverError as error:
            _log.warning("job history: %s", error)
            return False

    def log(self, id: str, line: str) -> None:  # noqa: A002 - the port's word
        """Add a line to a job's log, cut at ``LONGEST_LINE`` characters; a line of an unknown job is dropped."""
        self._attempt(lambda database: self._insert(database, id, line))

    def step(self, id: str, line: str, *, done: float, total: float) -> None:  # noqa: A002 - the port's word
        """Add a line to a job's log, which is its progress, too, in one transaction."""

        def insert(database: sqlite3.Connection) -> None:
            self._insert(database, id, line)
            _update(database, _UPDATE, [line, done, total, 0, time.time(), id])

        self._attempt(insert)

    def _insert(self, database: sqlite3.Connection, job: str, line: str) -> None:
        last = database.execute("SELECT max(number) FROM line WHERE job = ?", [job]).fetchone()[0] or 0
        database.execute(
            "INSERT INTO line (job, number, text) SELECT id, ?, ? FROM job WHERE id = ?",
            [last + 1, line[:LONGEST_LINE], job],
        )
        database.execute("DELETE FROM line WHERE job = ? AND number <= ?", [job, last + 1 - self._kept_lines])

    def lines(self, id: str) -> tuple[str, ...]:  # noqa: A002 - the port's word
        """Return the last lines of a job's log.

        :raises Absent: there is no such job.
        :raises DriverError: the history cannot be read.
        """

        def read(database: sqlite3.Connection) -> tuple[str, ...] | None:
            if not _exists(database, id):
                return None
            return tuple(
                text for (text,) in database.execute("SELECT text FROM line WHERE job = ? ORDER BY number", [id])
            )

        found = self._database.read(read)
        if found is None:
            raise Absent("there is no job of that id", subject=id, hint="vmhost job list")
        return found

    def jobs(self, *, limit: int = 100) -> tuple[JobRecord, ...]:
        """Return the newest jobs, newest first; one whose process died without an end is ``interrupted``.

        :raises DriverError: the history cannot be read.
        """
        return self._database.read(lambda database: _newest(database, max(0, limit))) or ()

    def drilled(self, record: DrillRecord) -> None:
        """Note what became of a drill; the last ``KEPT_DRILLS`` of each guest are kept."""

        def insert(database: sqlite3.Connection) -> None:
            if not _keeps_seconds(database):
                database.execute(_TOOK)
            values = [*(getattr(record, name) for name in _DRILL[:-1]), json.dumps(record.console)]
            database.execute(f"INSERT INTO drill ({', '.join(_DRILL)}) VALUES (?{', ?' * (len(_DRILL) - 1)})", values)  # noqa: S608
            database.execute(_PRUNE_DRILLS, [record.guest, record.guest, KEPT_DRILLS])

        self._attempt(insert, self._drills)

    def drills(self) -> tuple[DrillRecord, ...]:
        """Return all drills that are kept, in the order in which they were noted: a clock may have been wrong.

        :raises DriverError: they cannot be read.
        """

        def read(database: sqlite3.Connection) -> tuple[DrillRecord, ...]:
            unknown = {} if _keeps_seconds(database) else {"seconds": "-1.0"}
            columns = ", ".join(unknown.get(name, name) for name in _DRILL)
            rows = database.execute(f"SELECT {columns} FROM drill ORDER BY rowid").fetchall()  # noqa: S608
            return tuple(_drill_record(*row) for row in rows)

        return self._drills.read(read) or ()

    def looked(self, looks: Sequence[KeptLook]) -> None:
        """Keep looks of probes."""
        self._looks.add(looks)

    def looks(self, guest: str = "", service: str = "") -> tuple[KeptLook, ...]:
        """Return all looks that are kept, or those of one service. :raises DriverError: they cannot be read."""
        return self._looks.read(guest, service)

    def last_looks(self, since: float) -> tuple[KeptLook, ...]:
        """Return the newest look of each probe since a time. :raises DriverError: they cannot be read."""
        return self._looks.last(since)

    def close(self) -> None:
        """Close the files; the next call opens them again."""
        self._database.close()
        self._drills.close()
        self._looks.close()

    def _change(self, statement: str, values: Sequence[object]) -> None:
        self._attempt(lambda database: _update(database, statement, values))

    def _attempt(self, work: Work[T], database: Database | None = None) -> T | None:
        """Write, or log why it could not be done: history never stops what it is the history of."""
        try:
            return (database or self._database).write(work)
        except DriverError as error:
            if str(error) != self._said:  # a job writes a dozen times, and each fails alike
                self._said = str(error)
                _log.warning("job history: %s", error)
            return None


def _update(database: sqlite3.Connection, statement: str, values: Sequence[object]) -> None:
    if database.execute(statement, list(values)).rowcount == 0:
        _log.warning("job history: there is no job %s", values[-1])


def _keeps_seconds(database: sqlite3.Connection) -> bool:
    return any(column[1] == "seconds" for column in database.execute("PRAGMA table_info(drill)"))


def _exists(database: sqlite3.Connection, job: str) -> bool:
    return database.execute("SELECT 1 FROM job WHERE id = ?", [job]).fetchone() is not None


def _newest(database: sqlite3.Connection, limit: int) -> tuple[JobRecord, ...]:
    """Return the newest jobs; ``limit`` -1 is all."""
    return tuple(_record(*row) for row in database.execute(_NEWEST, [limit]).fetchall())


def _record(*row: Any) -> JobRecord:
    *values, birth, seen = row
    record = JobRecord(*values)
    if record.state != "running" or process_is_alive(record.pid, birth=birth):
        return record
    return replace(record, state="interrupted", ended=seen, error=record.error or "its process ended without a word")


def _drill_record(*row: Any) -> DrillRecord:
    *values, console = row
    return replace(DrillRecord(*values), console=tuple(json.loads(console)))
