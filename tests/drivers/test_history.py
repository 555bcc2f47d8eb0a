from __future__ import annotations

import logging
import os
import random
import resource
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from vmhost.drivers.history import LONGEST_LINE, SqliteHistory
from vmhost.drivers.processes import birth_of, process_is_alive
from vmhost.model.errors import Absent, AlreadyThere, DriverError, PermissionDenied
from vmhost.model.outcome import JobRecord
from vmhost.ports import Layout


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(*(tmp_path / name for name in ("state", "run", "etc", "images", "disks", "logs")))


@pytest.fixture
def history(layout: Layout) -> SqliteHistory:
    return SqliteHistory(layout)


def job(name: str = "j1", *, started: float = 1000.0, pid: int = 0, subject: str = "debian-12") -> JobRecord:
    return JobRecord(name, "image build", subject, "running", started, pid=pid, user="ann")


def database_of(layout: Layout) -> Path:
    return layout.state / "history.sqlite3"


class TestJobs:
    def test_a_job_runs_and_ends(self, history: SqliteHistory, layout: Layout) -> None:
        history.start(job())
        history.update("j1", progress="fetching", done=3, total=10, rate=1.5)
        (running,) = SqliteHistory(layout).jobs()
        assert running == JobRecord(
            id="j1", kind="image build", subject="debian-12", state="running", started=1000.0, pid=os.getpid(),
            user="ann", progress="fetching", done=3, total=10, rate=1.5,
        )  # fmt: skip
        before = time.time()
        history.end("j1", state="failed", error="no space left")
        (ended,) = SqliteHistory(layout).jobs()
        assert (ended.state, ended.error) == ("failed", "no space left")
        assert before <= ended.ended <= time.time()

    def test_the_newest_first_and_no_more_than_asked_for(self, history: SqliteHistory) -> None:
        for number in (3, 1, 2):
            history.start(job(f"j{number}", started=number))
        assert [one.id for one in history.jobs()] == ["j3", "j2", "j1"]
        assert [one.id for one in history.jobs(limit=2)] == ["j3", "j2"]
        assert history.jobs(limit=0) == ()

    def test_an_id_is_used_once(self, history: SqliteHistory) -> None:
        history.start(job())
        with pytest.raises(AlreadyThere):
            history.start(job(subject="other"))
        assert [one.subject for one in history.jobs()] == ["debian-12"]

    def test_hostile_text_is_text(self, history: SqliteHistory) -> None:
        nasty = "'; DROP TABLE job; --\x1b]52;c;x\a\0é\ud800".encode("utf-8", "replace").decode()
        history.start(job(nasty, subject=nasty))
        history.log(nasty, nasty)
        assert [one.subject for one in history.jobs()] == [nasty]
        assert history.lines(nasty) == (nasty,)

    def test_a_state_that_is_none(self, history: SqliteHistory) -> None:
        history.start(job())
        with pytest.raises(ValueError, match="not the state"):
            history.end("j1", state="finished", error="")

    def test_no_history_yet(self, history: SqliteHistory, layout: Layout) -> None:
        assert history.jobs() == ()
        assert not history.cancelled("j1")
        with pytest.raises(Absent):
            history.lines("j1")
        assert not layout.state.exists(), "looking makes nothing"

    def test_an_unknown_job_stops_nobody(self, history: SqliteHistory, caplog: pytest.LogCaptureFixture) -> None:
        history.start(job())
        history.update("j2", progress="", done=0, total=0, rate=0)
        history.end("j3", state="done", error="")
        history.log("j4", "line")
        assert [record.getMessage() for record in caplog.records] == [
            "job history: there is no job j2",
            "job history: there is no job j3",
        ]
        assert [one.id for one in history.jobs()] == ["j1"]

    def test_old_jobs_go_with_their_logs_and_running_ones_stay(self, layout: Layout) -> None:
        history = SqliteHistory(layout, jobs=3)
        history.start(job("first", started=0))
        for number in range(1, 7):
            history.start(job(f"j{number}", started=number))
            history.log(f"j{number}", "x")
            history.end(f"j{number}", state="done", error="")
        history.start(job("last", started=9))
        assert [one.id for one in history.jobs()] == ["last", "j6", "j5", "first"]
        with sqlite3.connect(database_of(layout)) as database:
            assert database.execute("SELECT DISTINCT job FROM line ORDER BY job").fetchall() == [("j5",), ("j6",)]


class TestLog:
    def test_lines_in_order(self, history: SqliteHistory) -> None:
        history.start(job())
        for number in range(20):
            history.log("j1", f"line {number}")
        assert history.lines("j1") == tuple(f"line {number}" for number in range(20))

    def test_the_last_lines_are_kept_and_long_ones_cut(self, layout: Layout) -> None:
        history = SqliteHistory(layout, lines=3)
        history.start(job())
        for number in range(10):
            history.log("j1", f"line {number}")
        history.log("j1", "x" * 10_000)
        assert history.lines("j1") == ("line 8", "line 9", "x" * LONGEST_LINE)

    def test_no_such_job(self, history: SqliteHistory) -> None:
        history.start(job())
        with pytest.raises(Absent):
            history.lines("j2")


class TestCancel:
    def test_another_process_sees_it(self, history: SqliteHistory, layout: Layout) -> None:
        history.start(job())
        assert not history.cancelled("j1")
        SqliteHistory(layout).cancel("j1")
        assert history.cancelled("j1")
        assert not history.cancelled("j2")

    def test_what_does_not_run_cannot_be_cancelled(self, history: SqliteHistory) -> None:
        history.start(job())
        history.end("j1", state="done", error="")
        for name in ("j1", "j2"):
            with pytest.raises(Absent, match="no job of that id is running"):
                history.cancel(name)
        assert not history.cancelled("j1")


class TestDeadOwners:
    def test_a_killed_job_is_interrupted(self, history: SqliteHistory, layout: Layout) -> None:
        pid = os.fork()
        if pid == 0:
            SqliteHistory(layout).start(job())
            SqliteHistory(layout).update("j1", progress="half", done=1, total=2, rate=0)
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        for _ in range(2):  # first as a zombie, then gone
            (record,) = history.jobs()
            assert (record.state, record.pid, record.progress) == ("interrupted", pid, "half")
            assert abs(record.ended - time.time()) < 30
            assert record.error
            if _ == 0:
                os.waitpid(pid, 0)
        with pytest.raises(Absent):
            history.cancel("j1")

    def test_a_process_that_has_inherited_the_id_is_not_the_owner(self, history: SqliteHistory, layout: Layout) -> None:
        history.start(job())
        with sqlite3.connect(database_of(layout)) as database:
            database.execute("UPDATE job SET birth = ?", [birth_of(1)])
        assert [one.state for one in history.jobs()] == ["interrupted"]

    def test_births(self) -> None:
        assert birth_of(os.getpid()) == birth_of(os.getpid()) != ""
        assert birth_of(os.getpid()) != birth_of(1)
        assert birth_of(2**22 + 1) == ""
        assert process_is_alive(os.getpid(), birth=birth_of(os.getpid()))
        assert not process_is_alive(os.getpid(), birth=birth_of(1))
        assert process_is_alive(1)
        assert not process_is_alive(2**22 + 1)


@pytest.fixture
def open_layout() -> Iterator[Layout]:
    """A layout that other users can reach."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Layout(*([Path(name)] * 6))


class TestSharing:
    def test_many_threads_and_processes(self, layout: Layout) -> None:
        shared = SqliteHistory(layout)

        def work(history: SqliteHistory, name: str) -> None:
            history.start(job(name))
            for number in range(10):
                history.log(name, str(number))
                history.update(name, progress=str(number), done=number, total=10, rate=0)
            history.end(name, state="done", error="")

        children = []
        for number in range(4):
            pid = os.fork()
            if pid == 0:
                try:
                    work(SqliteHistory(layout), f"process{number}")
                finally:
                    os._exit(0)
            children.append(pid)
        threads = [threading.Thread(target=work, args=(shared, f"thread{number}")) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for pid in children:
            os.waitpid(pid, 0)
        found = shared.jobs()
        assert len(found) == 8
        assert {(one.state, one.progress) for one in found} == {("done", "9")}
        assert all(shared.lines(one.id) == tuple("0123456789") for one in found)

    def test_it_is_made_once_by_many_at_once(self, layout: Layout) -> None:
        children = []
        for number in range(8):
            pid = os.fork()
            if pid == 0:
                try:
                    SqliteHistory(layout).start(job(f"j{number}"))
                finally:
                    os._exit(0)
            children.append(pid)
        for pid in children:
            os.waitpid(pid, 0)
        assert len(SqliteHistory(layout).jobs()) == 8
        assert not list(layout.state.glob("*damaged*"))
        assert not list(layout.state.glob(".*.tmp"))

    def test_kills_at_random_moments_damage_nothing(self, layout: Layout) -> None:
        chance = random.Random(3)
        for number in range(12):
            pid = os.fork()
            if pid == 0:
                history = SqliteHistory(layout)
                history.start(job(f"j{number}"))
                while True:
                    history.log(f"j{number}", "x" * 1000)
            time.sleep(chance.uniform(0.005, 0.03))
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        history = SqliteHistory(layout)
        assert {one.state for one in history.jobs()} <= {"interrupted"}
        history.start(job("last"))
        with sqlite3.connect(database_of(layout)) as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert not list(layout.state.glob("*damaged*"))

    def test_write_ahead_logging_and_modes(self, history: SqliteHistory, layout: Layout) -> None:
        history.start(job())
        with sqlite3.connect(database_of(layout)) as database:
            assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)

    @pytest.mark.parametrize("old", [False, True], ids=["new", "made by an older vmhost"])
    def test_nobody_else_reads_it(
        self, history: SqliteHistory, layout: Layout, old: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("vmhost.drivers.database._onlookers", lambda: None)
        history.start(job())
        beside = [database_of(layout).with_name(f"history.sqlite3{end}") for end in ("", "-wal", "-shm")]
        if old:
            for path in beside:
                path.chmod(0o644)
            SqliteHistory(layout).start(job("j2"))
        assert [stat.S_IMODE(path.stat().st_mode) for path in beside] == [0o600] * 3

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
    @pytest.mark.parametrize("writer_is_there", [True, False])
    def test_who_may_only_read_sees_the_jobs(
        self, open_layout: Layout, writer_is_there: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As a member of the group that libvirt lets in; nobody else does."""
        monkeypatch.setattr("vmhost.drivers.database._onlookers", lambda: 65533)
        layout = open_layout
        history = SqliteHistory(layout)
        history.start(job())
        if not writer_is_there:
            history.close()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.setgroups([65533])
                os.setgid(65534)
                os.setuid(65534)
                reader = SqliteHistory(layout)
                code = 0 if [one.id for one in reader.jobs()] == ["j1"] else 2
                reader.start(job("j2"))
                try:
                    reader.cancel("j1")
                    code = 3
                except DriverError:
                    pass
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert [one.id for one in history.jobs()] == ["j1"]

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
    def test_who_may_not_is_told_so(self, open_layout: Layout) -> None:
        SqliteHistory(open_layout).start(job())
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
                SqliteHistory(open_layout).jobs()
            except PermissionDenied:
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


class TestDamage:
    @pytest.mark.parametrize(
        "content", [b"this is no database at all" * 100, b"", b"SQLite format 3\0" + b"\xff" * 8000]
    )
    def test_a_damaged_file_is_moved_aside(
        self, layout: Layout, content: bytes, caplog: pytest.LogCaptureFixture
    ) -> None:
        layout.state.mkdir()
        database_of(layout).write_bytes(content)
        history = SqliteHistory(layout)
        with caplog.at_level(logging.WARNING):
            history.start(job())
        assert [one.id for one in history.jobs()] == ["j1"]
        (aside,) = layout.state.glob("history.sqlite3.damaged-*")
        assert aside.read_bytes() == content
        assert any("moved aside" in record.getMessage() for record in caplog.records)

    def test_pages_that_are_overwritten_while_it_is_open(self, layout: Layout) -> None:
        history = SqliteHistory(layout)
        for number in range(200):
            history.start(job(f"j{number}", subject="x" * 500))
        history.close()
        with database_of(layout).open("r+b") as file:
            file.seek(4096)
            file.write(b"\xaa" * 60_000)
        history.start(job("after"))
        assert [one.id for one in history.jobs()] == ["after"]
        assert list(layout.state.glob("history.sqlite3.damaged-*"))

    def test_looking_at_a_damaged_history_begins_a_new_one(self, layout: Layout) -> None:
        layout.state.mkdir()
        database_of(layout).write_bytes(b"?" * 5000)
        assert SqliteHistory(layout).jobs() == ()

    def test_a_newer_schema_is_left_alone(self, layout: Layout, caplog: pytest.LogCaptureFixture) -> None:
        history = SqliteHistory(layout)
        history.start(job())
        history.close()
        with sqlite3.connect(database_of(layout)) as database:
            database.execute("PRAGMA user_version = 2")
        history.start(job("j2"))
        history.end("j2", state="done", error="")
        assert "a newer vmhost wrote this file" in caplog.text
        with pytest.raises(DriverError, match="newer vmhost"):
            history.jobs()
        assert not list(layout.state.glob("*damaged*"))

    def test_no_place_to_write_stops_nobody(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        (tmp_path / "file").write_text("")
        history = SqliteHistory(Layout(*([tmp_path / "file" / "state"] * 6)))
        history.start(job())
        history.update("j1", progress="", done=0, total=0, rate=0)
        history.log("j1", "x")
        history.end("j1", state="done", error="")
        assert not history.cancelled("j1")
        assert caplog.records
        with pytest.raises(DriverError):
            history.cancel("j1")

    def test_a_full_disk_stops_nobody(self, layout: Layout) -> None:
        SqliteHistory(layout).start(job("j0"))
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
                history = SqliteHistory(layout)
                for number in range(100):
                    history.start(job(f"full{number}", subject="x" * 2000))
                    history.log(f"full{number}", "x" * 4000)
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        SqliteHistory(layout).start(job("after"))
        assert {"j0", "after"} <= {one.id for one in SqliteHistory(layout).jobs(limit=500)}

    def test_a_locked_database_gives_up_with_a_word(
        self, history: SqliteHistory, layout: Layout, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr("vmhost.drivers.database._BUSY_SECONDS", 0.1)
        history.start(job())
        history.close()
        other = sqlite3.connect(database_of(layout), isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        history.log("j1", "x")
        assert "locked" in caplog.text
        assert [one.id for one in history.jobs()] == ["j1"], "readers do not wait for writers"
        with pytest.raises(DriverError) as caught:
            history.cancel("j1")
        assert caught.value.retryable
        other.execute("ROLLBACK")
        history.cancel("j1")


def test_importing_it_imports_only_the_standard_library() -> None:
    code = (
        "import sys; before = set(sys.modules); import vmhost.drivers.history\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before} - {'vmhost'}\n"
        "sys.exit(', '.join(new - set(sys.stdlib_module_names)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
