from __future__ import annotations

import json
import os
import resource
import signal
import stat
import sys
import threading
import time
from pathlib import Path

import pytest

from vmhost.drivers import files
from vmhost.drivers.layout import journal_directory, layout_for
from vmhost.model.errors import Absent, DamagedData, DriverError, PermissionDenied, UsageError


def in_child(body) -> int:
    """Run ``body`` in a forked process and return its wait status."""
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            code = body() or 0
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1]


def as_nobody(body) -> int:
    """Run ``body`` in a process that is no longer root; as an ordinary user, run it as that user."""

    def dropped() -> int:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        return body()

    return os.waitstatus_to_exitcode(in_child(dropped))


class TestAtomicWrite:
    def test_content_and_mode_whatever_the_umask(self, tmp_path: Path) -> None:
        before = os.umask(0o077)
        try:
            files.write_atomically(tmp_path / "a", b"one", mode=0o644)
        finally:
            os.umask(before)
        assert (tmp_path / "a").read_bytes() == b"one"
        assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o644
        assert [entry.name for entry in tmp_path.iterdir()] == ["a"]

    def test_a_reader_never_sees_a_part_though_writers_are_killed(self, tmp_path: Path) -> None:
        path = tmp_path / "a"
        whole = {bytes([65 + n]) * 200_000 for n in range(4)}
        files.write_atomically(path, next(iter(whole)))

        def write_for_ever() -> int:
            while True:
                for text in whole:
                    files.write_atomically(path, text)

        for number in range(12):
            pid = os.fork()
            if pid == 0:
                write_for_ever()
            end = time.monotonic() + 0.02 + number * 0.001
            while time.monotonic() < end:
                assert path.read_bytes() in whole
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            assert path.read_bytes() in whole
        files.write_atomically(path, b"last")
        assert [entry.name for entry in tmp_path.iterdir()] == ["a"], "what the killed left is gone"

    def test_file_and_directory_are_synced(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        synced: list[str] = []
        real = os.fsync

        def note(handle: int) -> None:
            synced.append(Path(f"/proc/self/fd/{handle}").readlink().name)
            real(handle)

        monkeypatch.setattr(os, "fsync", note)
        files.write_atomically(tmp_path / "a", b"x")
        assert synced == [f".a.{os.getpid()}-{threading.get_native_id()}.tmp", tmp_path.name]

    def test_the_temporary_file_of_a_living_writer_stays(self, tmp_path: Path) -> None:
        other = tmp_path / f".a.{os.getppid()}-1.tmp"
        other.write_bytes(b"")
        files.write_atomically(tmp_path / "a", b"x")
        assert other.exists()

    def test_a_full_disk_leaves_the_old_file_and_nothing_else(self, tmp_path: Path) -> None:
        path = tmp_path / "a"
        files.write_atomically(path, b"old")

        def fill() -> int:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
            with pytest.raises(DriverError, match="no space left") as caught:
                files.write_atomically(path, b"x" * 5000)
            assert caught.value.hint == f"df -h {tmp_path}"
            return 7

        assert os.waitstatus_to_exitcode(in_child(fill)) == 7
        assert path.read_bytes() == b"old"
        assert [entry.name for entry in tmp_path.iterdir()] == ["a"]

    def test_errors_have_our_names(self, tmp_path: Path) -> None:
        with pytest.raises(Absent):
            files.write_atomically(tmp_path / "no" / "a", b"")
        locked = tmp_path / "locked"
        locked.mkdir()
        locked.chmod(0o500)

        def denied() -> int:
            try:
                files.write_atomically(locked / "a", b"")
            except PermissionDenied:
                return 5
            return 1

        assert as_nobody(denied) == 5


class TestDirectories:
    def test_modes_whatever_the_umask(self, tmp_path: Path) -> None:
        before = os.umask(0o077)
        try:
            files.make_directory(tmp_path / "a" / "b")
            files.make_private_directory(tmp_path / "c" / "d")
        finally:
            os.umask(before)
        modes = {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a", "a/b", "c", "c/d")}
        assert modes == {"a": 0o755, "a/b": 0o755, "c": 0o755, "c/d": 0o700}

    def test_an_open_private_directory_is_tightened(self, tmp_path: Path) -> None:
        (tmp_path / "d").mkdir(mode=0o777)
        files.make_private_directory(tmp_path / "d")
        assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o700

    def test_a_link_in_place_of_a_private_directory_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "d").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(PermissionDenied, match="not a directory of this user"):
            files.make_private_directory(tmp_path / "d")

    def test_another_users_private_directory_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "d").mkdir()
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        with pytest.raises(PermissionDenied):
            files.make_private_directory(tmp_path / "d")


class TestState:
    def test_there_and_back(self, tmp_path: Path) -> None:
        path = tmp_path / "state" / "x.json"
        files.write_state(path, {"a": [1, 2.5, "ü"], "b": None}, version=3)
        assert files.read_state(path, newest=3) == files.StateFile(version=3, data={"a": [1, 2.5, "ü"], "b": None})
        assert files.read_state(path, newest=9).version == 3
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def test_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(Absent):
            files.read_state(tmp_path / "x", newest=1)

    def test_a_newer_format_is_refused(self, tmp_path: Path) -> None:
        files.write_state(tmp_path / "x", {}, version=2)
        with pytest.raises(DamagedData, match="newer vmhost"):
            files.read_state(tmp_path / "x", newest=1)

    def test_an_edited_value_is_noticed(self, tmp_path: Path) -> None:
        path = tmp_path / "x"
        files.write_state(path, {"vid": 100}, version=1)
        path.write_text(path.read_text().replace("100", "101"))
        with pytest.raises(DamagedData, match="checksum") as caught:
            files.read_state(path, newest=1)
        assert caught.value.hint == f"mv {path} {path}.damaged"

    @pytest.mark.parametrize(
        "text", ["", "{", "[]", "null", "{}", '{"version": "1", "data": {}, "sha256": ""}', "\0" * 64]
    )
    def test_what_is_no_state_file_is_said(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "x").write_text(text)
        with pytest.raises(DamagedData):
            files.read_state(tmp_path / "x", newest=1)

    def test_every_torn_state_is_noticed(self, tmp_path: Path) -> None:
        path = tmp_path / "x"
        files.write_state(path, {"a": 1}, version=1)
        whole = path.read_bytes()
        for size in range(len(whole.rstrip())):
            path.write_bytes(whole[:size])
            with pytest.raises(DamagedData):
                files.read_state(path, newest=1)

    def test_a_value_that_is_not_json_changes_nothing(self, tmp_path: Path) -> None:
        files.write_state(tmp_path / "x", {"a": 1}, version=1)
        with pytest.raises((TypeError, ValueError)):
            files.write_state(tmp_path / "x", {"a": object()}, version=1)
        assert json.loads((tmp_path / "x").read_text())["data"] == {"a": 1}


class TestLayout:
    @pytest.fixture(autouse=True)
    def _no_overrides(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in [name for name in os.environ if name.startswith(("VMHOST_", "XDG_"))]:
            monkeypatch.delenv(name)

    def test_the_systems(self) -> None:
        layout = layout_for(privileged=True)
        assert [str(path) for path in (layout.state, layout.runtime, layout.config, layout.images)] == [
            "/var/lib/vmhost",
            "/run/vmhost",
            "/etc/vmhost",
            "/var/lib/vmhost/images",
        ]
        assert [str(path) for path in (layout.disks, layout.logs)] == ["/var/lib/vmhost/disks", "/var/log/vmhost"]

    def test_the_sessions_follow_xdg(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", "/home/ann")
        monkeypatch.setenv("XDG_STATE_HOME", "/home/ann/st")
        layout = layout_for(privileged=False)
        assert str(layout.state) == "/home/ann/st/vmhost"
        assert str(layout.config) == "/home/ann/.config/vmhost"
        assert str(layout.images) == "/home/ann/.local/share/vmhost/images"
        assert str(layout.disks) == "/home/ann/.local/share/vmhost/disks"

    def test_the_sessions_locks_do_not_depend_on_the_login(self, monkeypatch: pytest.MonkeyPatch) -> None:
        without = layout_for(privileged=False).runtime
        monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
        assert layout_for(privileged=False).runtime == without

    @pytest.mark.parametrize("privileged", [True, False])
    def test_overrides(self, monkeypatch: pytest.MonkeyPatch, privileged: bool) -> None:
        monkeypatch.setenv("VMHOST_STATE_DIR", "/s")
        monkeypatch.setenv("VMHOST_DISKS_DIR", "/d")
        monkeypatch.setenv("VMHOST_LOG_DIR", "/l")
        layout = layout_for(privileged)
        assert [str(path) for path in (layout.state, layout.images, layout.disks, layout.logs)] == [
            "/s",
            "/s/images",
            "/d",
            "/l",
        ]

    def test_a_relative_override_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("VMHOST_STATE_DIR", "here")
        with pytest.raises(UsageError, match="not an absolute path"):
            layout_for(privileged=True)

    def test_a_system_layout_needs_no_platformdirs(self) -> None:
        code = "import sys, vmhost.drivers.layout as m; m.layout_for(True); sys.exit('platformdirs' in sys.modules)"
        assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", code]) == 0

    def test_journals_are_for_their_owner_only(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("VMHOST_STATE_DIR", str(tmp_path / "s"))
        directory = journal_directory(layout_for(privileged=True))
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert stat.S_IMODE(directory.parent.stat().st_mode) == 0o755
