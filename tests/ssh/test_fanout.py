"""Many guests at once: the dead do not delay the living, and Ctrl-C leaves nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from tests.ssh import hostile
from tests.ssh.private_sshd import PrivateSshd
from vmhost.drivers.ssh.fanout import map_guests
from vmhost.drivers.ssh.shell import SshShell
from vmhost.model.errors import NotFound, Unreachable
from vmhost.model.shell import SshTarget

pytestmark = pytest.mark.serial  # it has deadlines in real time


def test_answers_and_errors_come_back_in_the_order_of_the_guests() -> None:
    def answer(number: int) -> int:
        if number == 2:
            raise NotFound("no such guest")
        return number * 10

    answers = map_guests(answer, {"c": 3, "a": 1, "b": 2}, workers=2)
    assert list(answers) == ["c", "a", "b"]
    assert (answers["c"], answers["a"]) == (30, 10)
    assert isinstance(answers["b"], NotFound)
    assert map_guests(answer, {}) == {}


def test_no_more_at_once_than_asked_for() -> None:
    lock, full, running, most = threading.Lock(), threading.Event(), 0, 0

    def work(_: int) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
            if most >= 3:
                full.set()
        full.wait(20)
        threading.Event().wait(0.01)
        with lock:
            running -= 1

    map_guests(work, {str(n): n for n in range(20)}, workers=3)
    assert most == 3


def test_an_error_that_is_not_ours_is_raised_and_stops_the_rest() -> None:
    begun: list[int] = []

    def work(number: int) -> None:
        begun.append(number)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        map_guests(work, {str(n): n for n in range(1000)}, workers=2)
    assert len(begun) <= 2


def test_fifty_servers_of_which_five_are_dead(sshd: PrivateSshd) -> None:
    """Five servers accept and never speak, until the other 45 are done: those wait for none of them."""
    finished: set[str] = set()
    done = threading.Event()

    def dying(_: socket.socket, __: threading.Event) -> None:
        done.wait(50)

    with SshShell() as shell, hostile.listening(dying) as dead:

        def uptime(target: SshTarget) -> bytes:
            with shell.connect(target, deadline=time.monotonic() + 30) as session:
                out = session.run(("echo", target.guest), timeout=10).stdout
            finished.add(target.guest)
            if len(finished) == 45:
                done.set()
            return out

        targets = {
            f"web-{n:02}": sshd.target(
                guest=f"web-{n:02}", **({"port": dead, "banner_timeout": 60.0} if n % 10 == 3 else {})
            )
            for n in range(50)
        }
        answers = map_guests(uptime, targets, workers=8)
    assert done.is_set()
    failed = [name for name, answer in answers.items() if isinstance(answer, Unreachable)]
    assert failed == ["web-03", "web-13", "web-23", "web-33", "web-43"]
    assert all(answers[name] == f"{name}\n".encode() for name in finished)
    assert len(finished) == 45


def test_ctrl_c_ends_the_program_at_once(sshd: PrivateSshd, area: Path) -> None:
    """A program with connections that wait for a command and for a dead server ends by SIGINT, with no thread that
    holds it."""
    script = area / "script.py"
    script.write_text(
        textwrap.dedent(f"""
        import os
        import time
        from pathlib import Path
        from vmhost.drivers.ssh.fanout import map_guests
        from vmhost.drivers.ssh.shell import SshShell
        from vmhost.model.shell import SshTarget

        def work(target):
            with shell.connect(target, deadline=time.monotonic() + 30) as session:
                os.write(1, b"connected\\n")  # at once: print() writes the line and its end one after the other
                session.run(("sleep", "4242"), timeout=30)

        with SshShell() as shell, open({str(area / "pid")!r}, "w"):
            target = SshTarget("web-01", "127.0.0.1", ({sshd.host_key!r},), port={sshd.port}, user={sshd.user!r},
                               private_key_files=(Path({str(sshd.identity)!r}),))
            silent = SshTarget("web-02", "127.0.0.1", ({sshd.host_key!r},), port=PORT, banner_timeout=30)
            map_guests(work, {{"a": target, "b": target, "c": silent}})
        """)
    )
    with hostile.listening(hostile.silent) as port:
        script.write_text(script.read_text().replace("PORT", str(port)))
        environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
        with subprocess.Popen(
            [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        ) as process:
            assert process.stdout is not None
            assert [process.stdout.readline() for _ in range(2)] == ["connected\n"] * 2
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=30)
        assert time.monotonic() - began < 3
    assert process.returncode in {-signal.SIGINT, 1, 130}
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert errors.count("Traceback") == 1
