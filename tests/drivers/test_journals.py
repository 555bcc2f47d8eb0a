from __future__ import annotations

import gc
import json
import os
import random
import resource
import signal
import stat
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from vmhost.drivers import journals as module
from vmhost.drivers.journals import FileJournal, FileJournals
from vmhost.model.errors import AlreadyThere, DamagedData, DriverError, UsageError
from vmhost.ports import Layout


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(*(tmp_path / name for name in ("state", "run", "etc", "images", "disks", "logs")))


@pytest.fixture
def journals(layout: Layout) -> FileJournals:
    return FileJournals(layout)


def left_behind(journals: FileJournals, name: str, *records: dict[str, object]) -> None:
    writer = journals.begin(name)
    for record in records:
        writer.append(record)
    writer.close(done=False)


def path_of(layout: Layout, name: str) -> Path:
    return layout.state / "journal" / f"{name}.jsonl"


def claimed(journals: FileJournals) -> dict[str, list[dict[str, object]]]:
    """Claim what is open, read it, and leave it open again."""
    found = journals.claim_open()
    for journal in found:
        journal.writer.close(done=False)
    return {journal.id: [dict(record) for record in journal.records] for journal in found}


class TestOneJournal:
    def test_there_and_back(self, journals: FileJournals) -> None:
        records = [{"plan": ["ü", 1.5, None]}, {"step": 1, "text": "a\nb"}, {}]
        left_behind(journals, "op", *records)
        assert claimed(journals) == {"op": records}

    def test_done_leaves_nothing(self, journals: FileJournals, layout: Layout) -> None:
        writer = journals.begin("op")
        writer.append({"a": 1})
        writer.close(done=True)
        writer.close(done=True)
        assert not path_of(layout, "op").exists()
        assert not journals.any_open()
        assert claimed(journals) == {}

    def test_every_line_says_whose_it_is(self, journals: FileJournals, layout: Layout) -> None:
        left_behind(journals, "op", {"a": 1}, {"b": 2})
        lines = [json.loads(line) for line in path_of(layout, "op").read_text().splitlines()]
        assert [(line["v"], line["tx"], line["n"], line["record"]) for line in lines] == [
            (1, "op", 0, {"a": 1}),
            (1, "op", 1, {"b": 2}),
        ]
        assert all(len(line["sha256"]) == 64 for line in lines)

    def test_only_its_owner_may_read_it(self, journals: FileJournals, layout: Layout) -> None:
        left_behind(journals, "op")
        assert stat.S_IMODE(path_of(layout, "op").stat().st_mode) == 0o600

    def test_an_id_is_used_once(self, journals: FileJournals) -> None:
        left_behind(journals, "op", {"a": 1})
        with pytest.raises(AlreadyThere):
            journals.begin("op")
        assert claimed(journals) == {"op": [{"a": 1}]}

    @pytest.mark.parametrize("name", ["", ".", "../x", "a/b", "a b", "x" * 129, ".hidden", "a\n"])
    def test_an_id_is_a_plain_name(self, journals: FileJournals, name: str) -> None:
        with pytest.raises(UsageError):
            journals.begin(name)

    def test_a_closed_journal_takes_nothing(self, journals: FileJournals) -> None:
        writer = journals.begin("op")
        writer.close(done=False)
        with pytest.raises(ValueError, match="closed"):
            writer.append({})

    def test_a_record_that_is_not_json_changes_nothing(self, journals: FileJournals) -> None:
        writer = journals.begin("op")
        writer.append({"a": 1})
        with pytest.raises(TypeError):
            writer.append({"a": object()})
        writer.append({"b": 2})
        writer.close(done=False)
        assert claimed(journals) == {"op": [{"a": 1}, {"b": 2}]}

    def test_file_and_directory_are_synced(
        self, journals: FileJournals, monkeypatch: pytest.MonkeyPatch, layout: Layout
    ) -> None:
        synced: list[str] = []
        for name in ("fsync", "fdatasync"):
            real = getattr(os, name)

            def note(handle: int, real=real) -> None:
                synced.append(Path(f"/proc/self/fd/{handle}").readlink().name)
                real(handle)

            monkeypatch.setattr(os, name, note)
        writer = journals.begin("op")
        assert synced == ["journal"]
        writer.append({})
        assert synced == ["journal", "op.jsonl"]
        writer.append({}, durable=False)
        assert synced == ["journal", "op.jsonl"]
        writer.append({})
        assert synced.pop() == "op.jsonl"
        writer.close(done=True)
        assert synced == ["journal", "op.jsonl", "journal"]


class TestOwnership:
    def test_a_living_owners_journal_is_not_open(self, journals: FileJournals, layout: Layout) -> None:
        writer = journals.begin("op")
        assert not FileJournals(layout).any_open()
        assert claimed(FileJournals(layout)) == {}
        writer.close(done=False)
        assert FileJournals(layout).any_open()

    def test_a_forgotten_journal_is_open(self, journals: FileJournals, layout: Layout) -> None:
        writer = journals.begin("op")
        writer.append({"a": 1})
        del writer
        gc.collect()
        assert claimed(FileJournals(layout)) == {"op": [{"a": 1}]}

    def test_what_is_claimed_is_not_claimed_again(self, journals: FileJournals, layout: Layout) -> None:
        left_behind(journals, "op", {"a": 1})
        (first,) = journals.claim_open()
        assert FileJournals(layout).claim_open() == ()
        assert not journals.any_open()
        first.writer.append({"undone": 1})
        first.writer.close(done=False)
        assert claimed(journals) == {"op": [{"a": 1}, {"undone": 1}]}

    def test_the_oldest_comes_first(self, journals: FileJournals, layout: Layout) -> None:
        for name in ("c", "a", "b"):
            left_behind(journals, name)
        for age, name in enumerate(("c", "a", "b")):
            os.utime(path_of(layout, name), (1000 + age, 1000 + age))
        assert list(claimed(journals)) == ["c", "a", "b"]

    def test_two_recoverers_share_the_work(self, layout: Layout) -> None:
        """Every journal goes to exactly one of eight claimers, and lookers are in nobody's way."""
        for number in range(40):
            left_behind(FileJournals(layout), f"op{number}")
        stop = threading.Event()

        def look() -> None:
            while not stop.is_set():
                FileJournals(layout).any_open()

        lookers = [threading.Thread(target=look) for _ in range(2)]
        for thread in lookers:
            thread.start()
        reading, writing = os.pipe()
        children = []
        for _ in range(8):
            pid = os.fork()
            if pid == 0:
                try:
                    for journal in FileJournals(layout).claim_open():
                        os.write(writing, f"{journal.id}\n".encode())
                        journal.writer.close(done=True)
                finally:
                    os._exit(0)
            children.append(pid)
        for pid in children:
            os.waitpid(pid, 0)
        stop.set()
        for thread in lookers:
            thread.join()
        os.close(writing)
        with os.fdopen(reading) as file:
            names = file.read().split()
        assert sorted(names) == sorted(f"op{number}" for number in range(40))
        assert not FileJournals(layout).any_open()

    def test_a_claimer_waits_for_one_who_only_looks(
        self, journals: FileJournals, layout: Layout, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        left_behind(journals, "op", {"a": 1})
        looking, go_on, real = threading.Event(), threading.Event(), module._unlock_and_close
        looker = threading.Thread(target=FileJournals(layout).any_open)

        def slowly(handle: int) -> None:
            if threading.current_thread() is looker and not looking.is_set():
                looking.set()
                go_on.wait(40)
            real(handle)

        monkeypatch.setattr(module, "_unlock_and_close", slowly)
        looker.start()
        assert looking.wait(40), "it holds the journal's lock for a moment"
        found: list[str] = []
        claimer = threading.Thread(target=lambda: found.extend(claimed(FileJournals(layout))))
        claimer.start()
        claimer.join(0.2)
        go_on.set()
        claimer.join(40)
        looker.join(40)
        assert found == ["op"]

    def test_an_owner_that_is_killed_right_after_beginning_left_an_empty_journal(self, layout: Layout) -> None:
        pid = os.fork()
        if pid == 0:
            FileJournals(layout).begin("op")
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(pid, 0)
        assert claimed(FileJournals(layout)) == {"op": []}


class TestKilled:
    def test_what_was_acknowledged_is_there(self, layout: Layout) -> None:
        """SIGKILL at random moments of an endless row of appends."""
        chance = random.Random(11)
        for number in range(25):
            reading, writing = os.pipe()
            pid = os.fork()
            if pid == 0:
                try:
                    self.append_for_ever(FileJournals(layout), f"op{number}", writing)
                finally:
                    os._exit(1)
            os.close(writing)
            assert os.read(reading, 1) == b"."
            time.sleep(chance.uniform(0, 0.01))
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            acknowledged = 1
            while more := os.read(reading, 65536):
                acknowledged += len(more)
            os.close(reading)
            assert FileJournals(layout).any_open()
            (journal,) = FileJournals(layout).claim_open()
            assert [record["n"] for record in journal.records] == list(range(len(journal.records)))
            assert acknowledged <= len(journal.records) <= acknowledged + 1
            journal.writer.append({"n": len(journal.records)})
            journal.writer.close(done=True)

    @staticmethod
    def append_for_ever(journals: FileJournals, name: str, acknowledge: int) -> None:
        writer = journals.begin(name)
        number = 0
        while True:
            writer.append({"n": number, "xml": "x" * 20_000})
            os.write(acknowledge, b".")
            number += 1

    def test_torn_at_every_byte(self, journals: FileJournals, layout: Layout) -> None:
        records = [{"a": 1}, {"b": "two"}, {"c": [3]}]
        left_behind(journals, "op", *records)
        path = path_of(layout, "op")
        whole = path.read_bytes()
        for size in range(len(whole) + 1):
            path.write_bytes(whole[:size])
            lines = whole[:size].count(b"\n")
            assert claimed(journals) == {"op": records[:lines]}, size

    def test_a_torn_journal_is_continued_where_it_is_whole(self, journals: FileJournals, layout: Layout) -> None:
        left_behind(journals, "op", {"a": 1}, {"b": 2})
        path = path_of(layout, "op")
        path.write_bytes(path.read_bytes()[:-5])
        (journal,) = journals.claim_open()
        journal.writer.append({"c": 3})
        journal.writer.close(done=False)
        assert claimed(journals) == {"op": [{"a": 1}, {"c": 3}]}


class TestDamage:
    def test_a_changed_byte_anywhere_is_noticed(self, journals: FileJournals, layout: Layout) -> None:
        left_behind(journals, "op", {"a": 1}, {"b": 2})
        path = path_of(layout, "op")
        whole = path.read_bytes()
        for place in range(len(whole) - 1):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            with pytest.raises(DamagedData):
                journals.claim_open()

    @pytest.mark.parametrize("line", [b"", b"{}", b"null", b"[1]", b"\xff\xfe", b'"text"', b"\0" * 40, b'{"v":1}'])
    def test_a_line_that_is_none(self, journals: FileJournals, layout: Layout, line: bytes) -> None:
        left_behind(journals, "op", {"a": 1})
        with path_of(layout, "op").open("ab") as file:
            file.write(line + b"\n")
        with pytest.raises(DamagedData, match="line 2") as caught:
            journals.claim_open()
        assert caught.value.hint.startswith("mv ")

    def test_a_missing_line_is_noticed(self, journals: FileJournals, layout: Layout) -> None:
        left_behind(journals, "op", {"a": 1}, {"b": 2}, {"c": 3})
        path = path_of(layout, "op")
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(lines[0] + lines[2])
        with pytest.raises(DamagedData, match="line 2"):
            journals.claim_open()

    def test_another_operations_journal_under_this_name(self, journals: FileJournals, layout: Layout) -> None:
        left_behind(journals, "op", {"a": 1})
        path_of(layout, "op").rename(path_of(layout, "other"))
        with pytest.raises(DamagedData):
            journals.claim_open()

    def test_a_newer_vmhosts_journal_is_refused(self, journals: FileJournals, layout: Layout) -> None:
        left_behind(journals, "op", {"a": 1})
        path = path_of(layout, "op")
        path.write_bytes(path.read_bytes().replace(b'"v":1', b'"v":2'))
        with pytest.raises(DamagedData, match="a newer vmhost"):
            journals.claim_open()
        assert journals.any_open()

    def test_with_a_damaged_one_none_is_taken_and_the_others_stay_claimable(
        self, journals: FileJournals, layout: Layout
    ) -> None:
        left_behind(journals, "a", {"a": 1})
        left_behind(journals, "b", {"b": 1})
        os.utime(path_of(layout, "a"), (1, 1))
        path_of(layout, "b").write_bytes(b"?\n")
        with pytest.raises(DamagedData) as caught:
            journals.claim_open()
        assert caught.value.hint
        path_of(layout, "b").rename(path_of(layout, "b").with_suffix(".damaged"))
        assert claimed(journals) == {"a": [{"a": 1}]}


class TestFullDisk:
    def appends_until_full(self, journals: FileJournals) -> None:
        writer = journals.begin("op")
        written, error = 0, None
        while error is None and written < 100:
            try:
                writer.append({"n": written, "xml": "x" * 3000})
                written += 1
            except DriverError as caught:
                error = caught
        assert error is not None
        assert "no space left" in error.message
        assert error.hint.startswith("df -h ")
        assert written > 0
        writer.append({"small": True})
        writer.close(done=False)
        (records,) = claimed(journals).values()
        assert [record.get("n") for record in records] == [*range(written), None]

    def test_a_limit_on_the_size_of_files(self, journals: FileJournals) -> None:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
                self.appends_until_full(journals)
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

    @pytest.fixture
    def small_disk(self, tmp_path: Path) -> Iterator[Path]:
        mount = tmp_path / "small"
        mount.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(mount)], check=True)
        yield mount
        subprocess.run(["umount", str(mount)], check=True)

    @pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
    def test_a_real_one(self, small_disk: Path) -> None:
        self.appends_until_full(FileJournals(Layout(*([small_disk] * 6))))

    @pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
    def test_a_real_one_that_is_full_from_the_start(self, small_disk: Path) -> None:
        journals = FileJournals(Layout(*([small_disk] * 6)))
        left_behind(journals, "op", {"a": 1})
        with pytest.raises(OSError, match="No space"):
            (small_disk / "ballast").write_bytes(bytes(100_000))
        writer = journals.begin("next")
        with pytest.raises(DriverError, match="no space left"):
            writer.append({"xml": "x" * 9000})
        writer.close(done=True)
        assert claimed(journals) == {"op": [{"a": 1}]}


class TestCheap:
    def test_no_journal_no_cost(self, journals: FileJournals) -> None:
        left_behind(journals, "op")
        (journal,) = journals.claim_open()
        journal.writer.close(done=True)
        times = []
        for _ in range(200):
            begin = time.perf_counter()
            assert not journals.any_open()
            times.append(time.perf_counter() - begin)
        assert statistics.median(times) < 0.001

    def test_no_directory_is_none_open_and_none_is_made(self, journals: FileJournals, layout: Layout) -> None:
        assert not journals.any_open()
        assert not layout.state.exists()

    def test_who_may_not_look_is_told_there_is_none(self, tmp_path: Path) -> None:
        code = (
            "import os, sys; from pathlib import Path; from vmhost.drivers.journals import FileJournals\n"
            "from vmhost.ports import Layout\n"
            "os.geteuid() or (os.setgroups([]), os.setgid(65534), os.setuid(65534))\n"
            "sys.exit(FileJournals(Layout(*([Path('/proc/1/task')] * 6))).any_open())"
        )
        assert subprocess.run([sys.executable, "-c", code]).returncode == 0

    def test_importing_it_imports_nothing_heavy(self) -> None:
        code = (
            "import sys, vmhost.drivers.journals\n"
            "heavy = {'filelock', 'sqlite3', 'pydantic', 'lxml', 'libvirt', 'hashlib', 'platformdirs', 'subprocess'}\n"
            "sys.exit(', '.join(heavy & set(sys.modules)) or None)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")


def test_a_journal_satisfies_its_port(journals: FileJournals) -> None:
    assert isinstance(journals.begin("op"), FileJournal)
