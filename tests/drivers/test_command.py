"""drivers/command.py on real programs: what they say, how they fail, and that nothing of them stays."""

from __future__ import annotations

import os
import re
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from vmhost.drivers import command
from vmhost.drivers.command import CommandFailed
from vmhost.model.errors import Absent, DriverError, PermissionDenied

PYTHON = sys.executable


def gone(pid: int) -> bool:
    """True when a process has ended; one that somebody else has yet to reap counts as ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"


def wait_for(condition, seconds: float = 30.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def timed_out(script: str, begun: Path, seconds: float, **how: float) -> tuple[CommandFailed, float]:
    """What a script's time-out raised, and how long the call took beyond it; the script had come to ``begun`` by then.

    On a busy machine it has not, and is given more time.
    """
    for limit in (seconds, 10 * seconds, 50 * seconds):
        begin = time.monotonic()
        with pytest.raises(CommandFailed) as caught:
            command.run(["sh", "-c", script], timeout=limit, **how)
        if begun.exists():
            return caught.value, time.monotonic() - begin - limit
    pytest.fail("the script never began")


def test_output_input_and_code():
    done = command.run(["cat"], input=b"hello", timeout=10)
    assert (done.argv, done.code, done.stdout, done.stderr) == (("cat",), 0, b"hello", b"")
    assert done.text == "hello"


def test_words_are_never_read_by_a_shell():
    words = ["$(id)", "a b", ";", "`x`", "*", "\n"]
    done = command.run(["printf", "%s\\0", *words], timeout=10)
    assert done.text.split("\0")[:-1] == words


def test_failure_names_program_code_and_last_lines():
    with pytest.raises(CommandFailed) as caught:
        command.run(
            ["sh", "-c", "for i in 1 2 3 4 5 6 7; do echo line $i >&2; done; exit 3"], timeout=10, hint="mend it"
        )
    error = caught.value
    assert (error.program, error.code, error.hint) == ("sh", 3, "mend it")
    assert error.stderr == ("line 3", "line 4", "line 5", "line 6", "line 7")
    assert "exit code 3" in str(error)
    assert "line 7" in str(error)
    assert not error.retryable


def test_failure_without_check_is_returned():
    assert command.run(["false"], timeout=10, check=False).code == 1


def test_ended_by_a_signal():
    with pytest.raises(CommandFailed, match="ended by SIGKILL") as caught:
        command.run(["sh", "-c", "kill -9 $$"], timeout=10)
    assert caught.value.code == -9


def test_missing_program_names_its_package(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("vmhost.drivers.programs._SYSTEM_PATH", str(tmp_path))
    with pytest.raises(Absent) as caught:
        command.run(["qemu-img", "--version"], timeout=10)
    assert caught.value.hint == "apt-get install qemu-utils"
    assert caught.value.subject == "qemu-img"


def test_system_programs_are_found_with_the_path_of_an_ordinary_user(monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert command.find("ip").endswith("/ip")


def test_file_that_may_not_be_started(tmp_path):
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELFnonsense")
    program.chmod(0o755)
    with pytest.raises(DriverError, match="cannot be started"):
        command.run([str(program)], timeout=10)


@pytest.mark.skipif(os.geteuid() != 0, reason="root is let in everywhere: it gives up its rights first")
def test_no_permission_to_start():
    root = Path(command.__file__).parents[2]
    script = (
        "import os, sys; os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "from vmhost.drivers import command; from vmhost.model.errors import PermissionDenied\n"
        "try: command.run(['true'], timeout=5, cwd=sys.argv[1])\n"
        "except PermissionDenied as error: print('denied:', error)\n"
    )
    with tempfile.TemporaryDirectory() as closed:
        done = command.run([PYTHON, "-c", script, closed], timeout=20, env={"PYTHONPATH": str(root)})
        assert done.text == f"denied: true: cannot be started: Permission denied ({closed})\n"
    assert issubclass(PermissionDenied, DriverError)


def test_missing_directory_is_named(tmp_path):
    with pytest.raises(DriverError, match="nowhere"):
        command.run(["true"], timeout=10, cwd=tmp_path / "nowhere")


def test_messages_are_in_english(monkeypatch):
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("LANGUAGE", "de")
    text = command.run(["sh", "-c", "echo $LC_ALL; echo $LANGUAGE$MINE"], timeout=10, env={"MINE": "x"}).text
    assert text == "C\nx\n"


def test_both_streams_and_stdin_at_once():
    """4 MiB each way would block for ever on a pipe that nobody reads."""
    size = 4 << 20
    script = (
        f"import sys; d = sys.stdin.buffer.read(); sys.stderr.buffer.write(b'e' * {size}); "
        f"sys.stdout.buffer.write(d); sys.stderr.buffer.write(b'f' * {size})"
    )
    done = command.run([PYTHON, "-c", script], input=b"i" * size, timeout=30)
    assert done.stdout == b"i" * size
    assert done.stderr == b"e" * size + b"f" * size


def test_program_that_does_not_read_its_input():
    assert command.run(["true"], input=b"x" * (4 << 20), timeout=10).code == 0


def test_too_much_output_is_an_error_and_ends_it():
    with pytest.raises(CommandFailed, match="wrote more than 1000 bytes") as caught:
        command.run(["yes"], timeout=10, cap=1000)
    assert caught.value.code is None


def test_too_much_output_at_the_very_end_is_an_error():
    with pytest.raises(CommandFailed, match="wrote more than 10 bytes"):
        command.run(["printf", "%050d", "1"], timeout=10, cap=10)


def test_of_stderr_the_end_is_kept():
    done = command.run(["sh", "-c", "seq 1 5000 >&2"], timeout=10, cap=100)
    assert len(done.stderr) == 100
    assert done.stderr.endswith(b"4999\n5000\n")


def test_lines_come_while_it_runs(tmp_path):
    """The program goes on only after the first line was seen, so a late line would be a time-out."""
    go = tmp_path / "go"
    os.mkfifo(go)
    seen = []

    def on_line(line: str) -> None:
        seen.append(line)
        if line == "first":
            go.write_text("go\n")

    command.run(
        ["sh", "-c", "echo first; read x < \"$1\"; printf '10%%\\r20%%\\r' >&2; printf last", "sh", str(go)],
        timeout=10,
        on_line=on_line,
    )
    assert seen[0] == "first"
    assert sorted(seen[1:]) == ["10%", "20%", "last"]


def test_error_in_on_line_ends_the_program(tmp_path):
    pidfile = tmp_path / "pid"

    def on_line(line: str) -> None:
        raise ValueError(line)

    begin = time.monotonic()
    with pytest.raises(ValueError, match="ready"):
        command.run(["sh", "-c", f"echo $$ > {pidfile}; echo ready; exec sleep 60"], timeout=60, on_line=on_line)
    assert time.monotonic() - begin < 5
    assert gone(int(pidfile.read_text()))


def test_time_out_ends_the_whole_group(tmp_path):
    pids, begun = tmp_path / "pids", tmp_path / "begun"
    script = f"sleep 60 & echo $! > {pids}; echo $$ >> {pids}; echo told >&2; touch {begun}; wait"
    error, _ = timed_out(script, begun, 0.5)
    assert re.search(r"not done after [0-9.]+ s: told", str(error))
    assert error.retryable
    for pid in map(int, pids.read_text().split()):
        assert wait_for(lambda pid=pid: gone(pid)), pid


def test_time_out_also_ends_one_that_ignores_sigterm(tmp_path):
    pidfile, begun = tmp_path / "pid", tmp_path / "begun"
    script = f"trap '' TERM; echo $$ > {pidfile}; touch {begun}; while :; do sleep 0.05; done"
    error, more = timed_out(script, begun, 0.3, grace=0.3)
    assert "not done" in str(error)
    assert more < 3
    assert gone(int(pidfile.read_text()))


def test_asked_politely_it_can_tidy_up(tmp_path):
    mark, begun = tmp_path / "mark", tmp_path / "begun"
    script = f"trap 'touch {mark}; exit 0' TERM; touch {begun}; while :; do sleep 0.05; done"
    timed_out(script, begun, 0.5)
    assert mark.exists()


def test_ctrl_c_ends_the_group(tmp_path):
    pidfile, begun = tmp_path / "pid", tmp_path / "begun"
    root = Path(command.__file__).parents[2]
    script = (
        "from pathlib import Path; from vmhost.drivers import command\n"
        f"command.run(['sh', '-c', 'echo $$ > {pidfile}; echo begun; exec sleep 60'], timeout=60,\n"
        f"            on_line=lambda line: Path({str(begun)!r}).touch())\n"
    )
    with command.spawn([PYTHON, "-c", script], env={"PYTHONPATH": str(root)}) as child:
        assert wait_for(begun.exists)
        os.kill(child.pid, signal.SIGINT)
        assert child.wait(30) != 0
    assert gone(int(pidfile.read_text()))


def test_an_interruption_right_after_the_program_was_reaped_is_what_is_raised(monkeypatch):
    wait = command.subprocess.Popen.wait

    def reaped(process: command.subprocess.Popen[bytes]) -> int:
        monkeypatch.setattr(command.subprocess.Popen, "wait", wait)
        os.waitpid(process.pid, 0)
        raise InterruptedError("now")

    monkeypatch.setattr(command.subprocess.Popen, "wait", reaped)
    with pytest.raises(InterruptedError, match="now"):
        command.foreground(["true"])


def test_daemon_is_left_alone_and_not_waited_for(tmp_path):
    """It holds our pipes open, as daemons do that forget to close them."""
    pidfile = tmp_path / "pid"
    begin = time.monotonic()
    done = command.run(["sh", "-c", f"echo out; sleep 60 & echo $! > {pidfile}"], timeout=20)
    assert time.monotonic() - begin < 5
    assert done.stdout == b"out\n"
    pid = int(pidfile.read_text())
    assert not gone(pid)
    os.kill(pid, signal.SIGKILL)


def test_from_several_threads_at_once():
    found: list[str] = []

    def one(number: int) -> None:
        found.append(command.run(["sh", "-c", f"sleep 0.05; echo {number}"], timeout=20).text.strip())

    threads = [threading.Thread(target=one, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(int, found)) == list(range(16))


def test_no_descriptor_leaks():
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        command.run(["true"], timeout=10, input=b"x")
    with pytest.raises(CommandFailed):
        command.run(["sleep", "9"], timeout=0.1)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


def test_spawned_child_writes_its_log_and_ends_with_its_block(tmp_path):
    log = tmp_path / "log"
    with command.spawn(["sh", "-c", "echo out; echo err >&2; exec sleep 60"], log=log) as child:
        assert wait_for(lambda: log.read_text() == "out\nerr\n")
        assert child.code() is None
        with pytest.raises(CommandFailed, match="still runs"):
            child.wait(0.05)
    assert child.code() == -signal.SIGTERM
    assert gone(child.pid)


def test_passed_descriptor_is_open_in_the_program(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("word")
    with secret.open() as file:
        done = command.run(["cat", f"/proc/self/fd/{file.fileno()}"], timeout=10, pass_fds=[file.fileno()])
    assert done.text == "word"


def test_foreground_returns_the_exit_code():
    assert command.foreground(["sh", "-c", "exit 7"]) == 7
    assert command.foreground(["sh", "-c", 'test "$ONLY" = 1 && test -z "$HOME"'], env={"ONLY": "1"}) == 0


def test_replace_becomes_the_program(tmp_path):
    root = Path(command.__file__).parents[2]
    script = (
        "import os, sys; from vmhost.drivers import command; sys.stdout.write(f'{os.getpid()}\\n')\n"
        f"command.replace(['sh', '-c', 'echo $$; pwd; exit 9'], cwd={str(tmp_path)!r})\n"
    )
    done = command.run([PYTHON, "-c", script], timeout=20, check=False, env={"PYTHONPATH": str(root)})
    first, second, where = done.text.split()
    assert first == second
    assert where == str(tmp_path)
    assert done.code == 9


def test_replace_by_a_missing_program_changes_nothing():
    with pytest.raises(Absent):
        command.replace(["no-such-program-here"], cwd="/")


def test_process_watch_sees_the_end():
    with command.spawn(["sleep", "60"]) as child, command.ProcessWatch(child.pid) as watch:
        assert not watch.ended(0)
        watch.send(signal.SIGKILL)
        assert watch.ended(30)


@pytest.mark.parametrize("program", ["ip", "mount", "nsenter", "qemu-img", "unshare", "virsh"])
def test_packages_named_are_those_that_bring_the_program(program):
    """dpkg itself is the witness, on a machine that has it."""
    found = Path(command.find(program))
    names = {str(found), str(found).removeprefix("/usr"), str(found.resolve())}
    owners = set()
    for name in names:
        done = command.run(["dpkg-query", "--search", name], timeout=10, check=False)
        owners |= {line.partition(":")[0] for line in done.text.splitlines()}
    assert command.PACKAGES[program] in owners
