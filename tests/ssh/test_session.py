"""Commands and files over a real OpenSSH server."""

from __future__ import annotations

import os
import shlex
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.contract.backends import eventually
from tests.ssh.private_sshd import PrivateSshd
from tests.ssh.used import no_more_than, processes_with, used
from vmhost.drivers.ssh.command import command_line
from vmhost.drivers.ssh.session import SshSession
from vmhost.drivers.ssh.shell import SshShell
from vmhost.model.errors import Absent, Cancelled, DriverError, PermissionDenied, Unreachable, UsageError

pytestmark = pytest.mark.serial  # it has deadlines in real time

MEBIBYTE = 1 << 20


def sh(script: str) -> tuple[str, ...]:
    return ("sh", "-c", script)


def test_a_command_with_both_streams_and_its_exit_code(session: SshSession) -> None:
    result = session.run(sh("echo out; echo err >&2; exit 7"), timeout=5)
    assert (result.stdout, result.stderr) == (b"out\n", b"err\n")
    assert (result.exit_code, result.signal, result.truncated) == (7, None, False)
    assert 0 < result.seconds < 5


def test_a_command_that_is_ended_by_a_signal(session: SshSession) -> None:
    result = session.run(sh("kill -KILL $$"), timeout=5)
    assert (result.exit_code, result.signal) == (None, "KILL")


def test_what_is_waited_for_ends_the_waiting_and_not_the_command(session: SshSession, area: Path) -> None:
    lives_on = f"while [ ! -e {area}/go ]; do sleep 0.05; done; touch {area}/lived-on"
    script = f"echo one; printf 'en'; sleep 0.2; echo d; {lives_on}"
    answer = session.run(("sh", "-c", script), timeout=20, until=b"\nend\n")
    assert (answer.stdout, answer.exit_code, answer.truncated) == (b"one\nend\n", None, False)
    assert session.run(("true",), timeout=5).exit_code == 0
    (area / "go").touch()
    until = time.monotonic() + 20
    while not (area / "lived-on").exists() and time.monotonic() < until:
        threading.Event().wait(0.02)
    assert (area / "lived-on").exists()


def test_a_program_that_is_not_there(session: SshSession) -> None:
    result = session.run(("no-such-program",), timeout=5)
    assert result.exit_code == 127
    assert b"not found" in result.stderr


WORDS = ["", " ", "a b", "'", '"', "\\", "$(id)", "`id`", ";", "&", "|", "*", "~", "\n", "\t", "!x", "-n", "%s", "A=b"]
BYTES = ["\N{SNOWMAN}", "\x1b[31m", "\x7f", "a'b\"c\\d", "\udcff"]


@pytest.mark.parametrize("word", [*WORDS, *BYTES])
def test_an_argument_arrives_as_it_was_given(session: SshSession, word: str) -> None:
    result = session.run(("printf", "%s|", "x", word, "y"), timeout=5)
    assert result.stdout == b"x|" + word.encode("utf-8", "surrogateescape") + b"|y|"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=20), min_size=1, max_size=5))
def test_quoting_is_undone_by_a_shell(words: list[str]) -> None:
    line = command_line(("printf", *words), mark="m").decode()
    assert shlex.split(line)[-len(words) - 1 :] == ["printf", *words]


@pytest.mark.parametrize("argv", [(), ("",), ("a\0b",), ("ls", "\0"), ("-c", "id"), "ls -l"])
def test_what_is_no_command_is_refused(session: SshSession, argv: tuple[str, ...]) -> None:
    with pytest.raises(UsageError):
        session.run(argv, timeout=5)


def test_the_environment_is_known(session: SshSession) -> None:
    result = session.run(sh("echo $PATH $LC_ALL"), timeout=5)
    assert result.stdout == b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin C\n"


def test_nothing_of_our_environment_goes_over(session: SshSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_SECRET", "swordfish")
    assert b"swordfish" not in session.run(("env",), timeout=5).stdout


def test_ten_mebibytes_on_both_streams_at_once(session: SshSession) -> None:
    script = "head -c 10485760 /dev/zero & head -c 10485760 /dev/zero >&2; wait"
    result = session.run(sh(script), timeout=30, cap=11 * MEBIBYTE)
    assert (len(result.stdout), len(result.stderr)) == (10 * MEBIBYTE, 10 * MEBIBYTE)
    assert result.exit_code == 0
    assert not result.truncated


def test_one_stream_after_the_other_does_not_deadlock(session: SshSession) -> None:
    script = "head -c 10485760 /dev/zero >&2; head -c 10485760 /dev/zero"
    result = session.run(sh(script), timeout=30)
    assert (len(result.stdout), len(result.stderr)) == (MEBIBYTE, MEBIBYTE)
    assert result.exit_code == 0
    assert result.truncated


def test_output_of_exactly_the_cap_is_whole(session: SshSession) -> None:
    result = session.run(sh("printf 12345"), timeout=5, cap=5)
    assert (result.stdout, result.truncated) == (b"12345", False)
    result = session.run(sh("printf 123456"), timeout=5, cap=5)
    assert (result.stdout, result.truncated) == (b"12345", True)


def test_binary_output_and_escape_sequences_come_unchanged(session: SshSession, area: Path) -> None:
    data = bytes(range(256)) * 100 + b"\x1b]52;c;cm0gLXJm\x07\x1b[2J"
    (area / "data").write_bytes(data)
    assert session.run(("cat", str(area / "data")), timeout=5).stdout == data


def test_input_beyond_every_window_comes_back(session: SshSession) -> None:
    data = os.urandom(1024) * 9 * 1024
    result = session.run(("cat",), input=data, timeout=30, cap=len(data))
    assert result.stdout == data


def test_input_that_nobody_reads_does_no_harm(session: SshSession) -> None:
    result = session.run(("true",), input=bytes(8 * MEBIBYTE), timeout=10)
    assert result.exit_code == 0


def test_input_to_a_command_that_reads_late_and_talks_meanwhile(session: SshSession) -> None:
    script = "head -c 5000000 /dev/zero; head -c 5000000 /dev/zero >&2; wc -c"
    result = session.run(sh(script), input=bytes(5 * MEBIBYTE), timeout=30, cap=6 * MEBIBYTE)
    assert result.stdout.endswith(b"%d\n" % (5 * MEBIBYTE))


def gone(word: str) -> bool:
    until = time.monotonic() + 30
    while processes_with(word) and time.monotonic() < until:
        threading.Event().wait(0.02)
    return not processes_with(word)


@pytest.mark.parametrize(
    "script", ["exec sleep {n}", "sleep {n} & sleep {n}", "trap '' TERM; while :; do sleep {n}; done"]
)
def test_a_command_that_never_ends_is_ended_with_its_children(session: SshSession, script: str) -> None:
    number = f"{time.time_ns() % 10**9 + 10**6}"
    began = time.monotonic()
    with pytest.raises(DriverError, match=r"no end within 0\.5 s") as caught:
        session.run(sh(script.format(n=number)), timeout=0.5)
    assert time.monotonic() - began < 2.6
    assert caught.value.hint == "vmhost guest ssh web-01"
    assert gone(number)
    assert session.run(("true",), timeout=5).exit_code == 0


def test_output_without_end_is_stopped_at_the_deadline(session: SshSession) -> None:
    began = time.monotonic()
    with pytest.raises(DriverError, match="no end within"):
        session.run(("cat", "/dev/zero"), timeout=0.5)
    assert time.monotonic() - began < 2.6


def test_a_child_that_keeps_the_streams_open_does_not_hold_us(session: SshSession) -> None:
    began = time.monotonic()
    result = session.run(sh("sleep 30 & echo started"), timeout=20)
    assert (result.exit_code, result.stdout, result.truncated) == (0, b"started\n", True)
    assert time.monotonic() - began < 5


def test_many_commands_at_once_on_one_connection(sshd: PrivateSshd, session: SshSession) -> None:
    connections = set(sshd.connections())

    def once(number: int) -> bytes:
        return session.run(sh(f"sleep 0.0{number % 5}; echo {number}"), timeout=20).stdout

    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(once, range(100)))
    assert answers == [b"%d\n" % number for number in range(100)]
    assert set(sshd.connections()) <= connections


def test_a_connection_that_is_cut_in_the_middle(sshd: PrivateSshd, shell: SshShell) -> None:
    before = set(sshd.connections())
    session = shell.connect(sshd.target(), deadline=time.monotonic() + 10)
    (server,) = set(sshd.connections()) - before
    threading.Timer(0.3, os.kill, (server, signal.SIGKILL)).start()
    began = time.monotonic()
    with pytest.raises(Unreachable, match="the SSH connection was lost") as caught:
        session.run(("sleep", "20"), timeout=20)
    assert time.monotonic() - began < 3
    assert not caught.value.retryable
    assert caught.value.hint == "vmhost guest console web-01"
    with pytest.raises(Unreachable):
        session.run(("true",), timeout=5)


def test_a_server_that_stops_answering_is_given_up_at_the_deadline(sshd: PrivateSshd, shell: SshShell) -> None:
    before = set(sshd.connections())
    session = shell.connect(sshd.target(), deadline=time.monotonic() + 10)
    (server,) = set(sshd.connections()) - before
    os.kill(server, signal.SIGSTOP)
    try:
        for data in (b"", bytes(64 * MEBIBYTE)):
            began = time.monotonic()
            with pytest.raises(DriverError):
                session.run(("cat",), input=data, timeout=1)
            assert time.monotonic() - began < 4
        began = time.monotonic()
        with pytest.raises(DriverError):
            session.write_file("/tmp/never", bytes(64 * MEBIBYTE), timeout=1)
        assert time.monotonic() - began < 4
    finally:
        os.kill(server, signal.SIGCONT)


def test_closing_wakes_whoever_waits(session: SshSession) -> None:
    caught: list[Exception] = []
    number = f"{time.time_ns() % 10**9 + 10**6}"

    def wait() -> None:
        try:
            session.run(("sleep", number), timeout=50)
        except DriverError as error:
            caught.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    while not processes_with(number):
        threading.Event().wait(0.01)
    began = time.monotonic()
    session.close()
    thread.join(timeout=5)
    assert time.monotonic() - began < 3
    assert isinstance(caught[0], Unreachable)
    assert "closed by us" in caught[0].message
    session.close()


def test_who_is_asked_meanwhile_may_end_the_command(session: SshSession) -> None:
    """Ctrl-C in another thread, and ``job cancel``: heard long before the command's own end, of which nothing stays."""
    number = f"{time.time_ns() % 10**9 + 10**6}"

    def check() -> None:
        if processes_with(number):
            raise Cancelled("cancelled")

    began = time.monotonic()
    with pytest.raises(Cancelled):
        session.run(("sleep", number), timeout=50, check=check)
    assert time.monotonic() - began < 10
    assert eventually(lambda: not processes_with(number))
    assert session.run(("true",), timeout=5).exit_code == 0


def test_no_thread_and_no_descriptor_is_left(sshd: PrivateSshd) -> None:
    before = used()
    for _ in range(5):
        with SshShell() as shell:
            session = shell.connect(sshd.target(), deadline=time.monotonic() + 10)
            session.run(("true",), timeout=5)
            session.read_file("/etc/hostname")
    assert no_more_than(before)


def test_a_file_is_written_whole_with_its_mode(session: SshSession, area: Path) -> None:
    path = area / "etc file.conf"
    data = os.urandom(300_000)
    session.write_file(str(path), data, mode=0o640)
    assert path.read_bytes() == data
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert session.read_file(str(path)) == data
    assert [entry.name for entry in area.iterdir()] == [path.name]


def test_a_file_is_replaced_in_one_go(session: SshSession, area: Path) -> None:
    """Whoever has the old file open keeps the old content; nobody sees half of the new one."""
    path = area / "unit"
    path.write_text("old")
    with path.open() as reader:
        session.write_file(str(path), b"new")
        assert reader.read() == "old"
    assert path.read_text() == "new"


def test_the_content_is_never_visible_with_another_mode(session: SshSession, area: Path) -> None:
    """A secret's temporary file is private from its first moment."""
    seen: set[int] = set()
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            for entry in area.iterdir():
                try:
                    seen.add(stat.S_IMODE(entry.stat().st_mode))
                except FileNotFoundError:
                    continue

    looker = threading.Thread(target=look)
    looker.start()
    for _ in range(10):
        session.write_file(str(area / "secret"), bytes(2 * MEBIBYTE), mode=0o600)
    over.set()
    looker.join()
    assert seen == {0o600}


def test_files_that_are_not_there_or_not_ours(session: SshSession, area: Path) -> None:
    with pytest.raises(Absent) as caught:
        session.read_file("/nonexistent/file")
    assert caught.value.subject == "/nonexistent/file"
    with pytest.raises(Absent):
        session.write_file("/nonexistent/file", b"")
    with pytest.raises((PermissionDenied, DriverError)):
        session.write_file("/proc/vmhost", b"x")
    (area / "directory").mkdir()
    with pytest.raises(DriverError):
        session.write_file(str(area / "directory"), b"x")
    assert [entry.name for entry in area.iterdir()] == ["directory"]


def test_a_file_beyond_the_cap_is_not_read(session: SshSession, area: Path) -> None:
    (area / "big").write_bytes(bytes(1000))
    assert session.read_file(str(area / "big"), cap=1000) == bytes(1000)
    with pytest.raises(DriverError, match="larger than 999 bytes"):
        session.read_file(str(area / "big"), cap=999)
    with pytest.raises(DriverError, match="larger than"):
        session.read_file("/dev/zero", cap=100_000)


@pytest.fixture
def small_disk(area: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    if os.getuid() != 0:
        pytest.skip("only root mounts")
    path = area / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)], check=True)
    yield path
    subprocess.run(["umount", str(path)], check=True)


def test_a_full_disk_leaves_the_old_file_and_no_other(session: SshSession, small_disk: Path) -> None:
    path = small_disk / "file"
    session.write_file(str(path), b"old")
    with pytest.raises(DriverError, match="the SSH server refused") as caught:
        session.write_file(str(path), bytes(2 * MEBIBYTE))
    assert caught.value.subject == str(path)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in small_disk.iterdir()] == ["file"]


def test_a_server_without_sftp(tmp_path_factory: pytest.TempPathFactory, shell: SshShell) -> None:
    with PrivateSshd(tmp_path_factory.mktemp("sshd"), sftp="/nonexistent") as sshd:
        session = shell.connect(sshd.target(), deadline=time.monotonic() + 10)
        with pytest.raises(DriverError, match="sftp"):
            session.read_file("/etc/hostname", timeout=5)
        assert session.run(("true",), timeout=5).exit_code == 0


def test_commands_that_end_while_we_still_talk_to_them_do_not_cost_the_connection(session: SshSession) -> None:
    """sshd ends the whole connection when data or an end of file comes for a channel that was closed."""

    def once(number: int) -> int | None:
        return session.run(("true",), input=bytes(number % 3 * 100_000), timeout=20).exit_code

    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(once, range(300))) == {0}
