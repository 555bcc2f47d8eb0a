"""Lines to guests over real SSH servers: one connection for many commands, made anew, and left alone when it fails."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.ssh import hostile
from tests.ssh.private_sshd import PrivateSshd, free_port
from vmhost.drivers.entropy import SystemEntropy
from vmhost.drivers.ssh.fanout import map_guests
from vmhost.drivers.ssh.session import SshSession
from vmhost.drivers.ssh.shell import SshShell
from vmhost.engine.services import line
from vmhost.engine.services.breaker import LONGEST_PAUSE, Circuit
from vmhost.engine.services.line import Lines
from vmhost.model.errors import HostKeyMismatch, PermissionDenied, Unreachable, VmhostError
from vmhost.model.guestops import GuestCommand
from vmhost.model.shell import CommandResult, SshTarget


class Clock:
    """The machine's time, and as much more as a test wants to have passed."""

    later = 0.0

    def now(self) -> float:
        return time.time() + self.later

    def monotonic(self) -> float:
        return time.monotonic() + self.later


class Guests:
    """Lines to these targets."""

    def __init__(self, shell: SshShell, targets: dict[str, SshTarget]) -> None:
        self.targets = targets
        self.clock = Clock()
        self.opened: list[str] = []
        self._shell = shell
        self.lines = Lines(self._open, self.clock)

    def _open(self, guest: str, deadline: float) -> SshSession:
        self.opened.append(guest)
        return self._shell.connect(self.targets[guest], deadline=deadline - self.clock.later)

    def run(self, guest: str, *argv: str, again: bool = True, timeout: float = 10.0) -> CommandResult:
        return self.lines.run(guest, GuestCommand(argv, sudo=False, timeout=timeout), again=again)

    def circuit(self, guest: str) -> Circuit:
        return next(state.circuit for state in self.lines.states() if state.guest == guest)


@pytest.fixture
def guests(sshd: PrivateSshd, shell: SshShell) -> Iterator[Guests]:
    made = Guests(shell, {"web-01": sshd.target()})
    with made.lines:
        yield made


def test_many_commands_share_one_connection(guests: Guests) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: guests.run("web-01", "echo", str(n)).stdout, range(40)))
    assert answers == [f"{n}\n".encode() for n in range(40)]
    assert guests.opened == ["web-01"]


def test_what_only_asks_is_asked_again_when_the_line_breaks(guests: Guests, sshd: PrivateSshd) -> None:
    guests.run("web-01", "true")
    _cut(sshd)
    assert guests.run("web-01", "echo", "there").stdout == b"there\n"
    assert guests.opened == ["web-01", "web-01"]


def test_what_changes_something_is_never_sent_twice(guests: Guests, sshd: PrivateSshd, tmp_path: Path) -> None:
    guests.run("web-01", "true")
    log = tmp_path / "log"
    script = f"echo ran >> {log}; kill -9 $PPID"
    with pytest.raises(Unreachable):
        guests.run("web-01", "sh", "-c", script, again=False)
    assert log.read_text() == "ran\n"
    assert guests.run("web-01", "echo", "there", again=False).stdout == b"there\n"


def test_after_three_failures_a_guest_is_left_alone_and_then_tried_once(shell: SshShell, sshd: PrivateSshd) -> None:
    port = free_port()
    guests = Guests(shell, {"web-01": sshd.target(port=port)})
    for _ in range(3):
        with pytest.raises(Unreachable, match="refused"):
            guests.run("web-01", "true")
    assert guests.circuit("web-01") is Circuit.OPEN
    with pytest.raises(Unreachable, match=r"failed 3 times, left alone for \d+ s more: .*refused"):
        guests.run("web-01", "true")
    assert len(guests.opened) == 3, "nobody knocked"
    guests.clock.later += 6
    assert guests.circuit("web-01") is Circuit.HALF_OPEN
    with pytest.raises(Unreachable, match="refused"):
        guests.run("web-01", "true")
    guests.clock.later += 6
    assert guests.circuit("web-01") is Circuit.OPEN, "the pause has doubled"
    guests.clock.later += LONGEST_PAUSE
    guests.targets["web-01"] = sshd.target()
    assert guests.run("web-01", "echo", "back").stdout == b"back\n"
    assert guests.circuit("web-01") is Circuit.CLOSED
    guests.lines.close()


def test_a_guest_that_takes_connections_and_breaks_every_command_is_left_alone(guests: Guests) -> None:
    for _ in range(3):
        with pytest.raises(Unreachable):
            guests.run("web-01", "sh", "-c", "kill -9 $PPID", again=False)
    assert guests.circuit("web-01") is Circuit.OPEN
    with pytest.raises(Unreachable, match=r"failed 3 times, left alone for \d+ s more"):
        guests.run("web-01", "true")
    guests.clock.later += 6
    assert guests.lines.session("web-01").alive
    assert guests.circuit("web-01") is Circuit.HALF_OPEN, "a connection alone proves nothing"
    guests.run("web-01", "true")
    assert guests.circuit("web-01") is Circuit.CLOSED


def test_a_session_that_is_lost_is_not_handed_out_again(guests: Guests, sshd: PrivateSshd) -> None:
    lost = guests.lines.session("web-01")
    assert guests.lines.session("web-01") is lost
    _cut(sshd)
    until = time.monotonic() + 20
    while lost.alive and time.monotonic() < until:
        time.sleep(0.01)
    again = guests.lines.session("web-01")
    assert again is not lost
    assert again.run(("echo", "there"), timeout=10.0).stdout == b"there\n"


def test_who_makes_a_session_holds_up_nobody_for_longer_than_he_wants_to_wait(guests: Guests) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def slowly(guest: str, deadline: float) -> SshSession:
        asked.set()
        assert go_on.wait(20)
        return guests._open(guest, deadline)

    with Lines(slowly, guests.clock) as lines, ThreadPoolExecutor(1) as pool:
        first = pool.submit(lines.session, "web-01")
        assert asked.wait(20)
        with pytest.raises(Unreachable, match="its line is still being opened"):
            lines.session("web-01", 0.05)
        lines.drop("web-01")
        go_on.set()
        assert lines.session("web-01", 20) is first.result(20)


def test_one_try_only_while_a_guest_is_on_trial(shell: SshShell, sshd: PrivateSshd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        guests = Guests(shell, {"web-01": sshd.target(port=free_port())})
        for _ in range(3):
            with pytest.raises(Unreachable):
                guests.run("web-01", "true")
        guests.clock.later += 6
        guests.targets["web-01"] = sshd.target(port=port, banner_timeout=0.5)
        with ThreadPoolExecutor(6) as pool:
            tries = [pool.submit(guests.run, "web-01", "true") for _ in range(6)]
        assert all(isinstance(one.exception(), Unreachable) for one in tries)
    assert len(guests.opened) == 4, "three failures, and one trial"


@pytest.mark.parametrize("whose", ["another", "none"])
def test_a_wrong_host_key_ends_before_anything_is_sent(shell: SshShell, sshd: PrivateSshd, whose: str) -> None:
    keys = (SystemEntropy().keypair("another").public,) if whose == "another" else ()
    guests = Guests(shell, {"web-01": sshd.target(host_keys=keys)})
    before = len(sshd.log)
    with pytest.raises(HostKeyMismatch if keys else VmhostError):
        guests.lines.run("web-01", GuestCommand(("cat",), b"canary-secret", sudo=False))
    assert "canary" not in "".join(sshd.log[before:])
    assert "Accepted" not in "".join(sshd.log[before:])


def test_no_sudo_without_a_password_is_told_as_such(guests: Guests, tmp_path: Path) -> None:
    """A sudo that asks is put before the real one by the guest's own environment of this test."""

    class Asking:
        def run(self, argv: object, **how: object) -> CommandResult:
            words = b"sudo: a password is required\n"
            return CommandResult(("true",), 1, None, b"", words, truncated=False, seconds=0.0)

        def close(self) -> None: ...

    lines = Lines(lambda _guest, _deadline: Asking(), guests.clock)  # type: ignore[arg-type,return-value]
    with pytest.raises(PermissionDenied, match="may not become root without a password"):
        lines.run("web-01", GuestCommand(("true",)))


def test_ten_megabytes_on_both_streams_and_escape_sequences_hurt_nobody(guests: Guests) -> None:
    script = "head -c 10485760 /dev/zero | tee /dev/stderr; printf '\\033]52;c;x\\007' >&2"
    result = guests.run("web-01", "sh", "-c", script, timeout=30.0)
    assert (len(result.stdout), len(result.stderr), result.truncated) == (1 << 20, 1 << 20, True)
    assert guests.run("web-01", "echo", "on").stdout == b"on\n"
    assert guests.opened == ["web-01"]


def test_a_command_that_never_ends_ends_at_its_time_and_the_line_goes_on(guests: Guests) -> None:
    with pytest.raises(VmhostError, match=r"no end within 0\.5 s"):
        guests.run("web-01", "sh", "-c", "while :; do echo y; done", timeout=0.5)
    assert guests.run("web-01", "echo", "on").stdout == b"on\n"
    assert guests.opened == ["web-01"]


@pytest.mark.serial
@pytest.mark.timeout(150)
def test_five_dead_of_fifty_delay_nobody(shell: SshShell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """45 real servers; five that take a connection and never say a word until all of those have answered."""
    monkeypatch.setattr(line, "CONNECT", 100.0)
    finished: set[str] = set()
    done, early = threading.Event(), threading.Event()
    with ExitStack() as stack:
        targets: dict[str, SshTarget] = {}
        dead: set[str] = set()
        for number in range(50):
            name = f"guest-{number:02}"
            if number % 10 == 0:
                port = stack.enter_context(hostile.listening(lambda _wire, _over: done.wait(90) and None))
                key = SystemEntropy().keypair(name).public
                targets[name] = SshTarget(name, "127.0.0.1", (key,), port, banner_timeout=100.0)
                dead.add(name)
                continue
            directory = tmp_path / name
            directory.mkdir()
            server = stack.enter_context(PrivateSshd(directory))
            targets[name] = server.target(guest=name)
        guests = Guests(shell, targets)

        def one(name: str) -> bytes:
            try:
                said = guests.run(name, "echo", name, timeout=50.0).stdout
            except Unreachable:
                if not done.is_set():
                    early.set()
                raise
            finished.add(name)
            if len(finished) == len(targets) - len(dead):
                done.set()
            return said

        answers = map_guests(one, {name: name for name in targets})
        assert done.is_set()
        assert not early.is_set(), "none of the living waited for one of the dead"
        assert {name: answers[name] for name in finished} == {name: f"{name}\n".encode() for name in finished}
        assert {name for name, answer in answers.items() if isinstance(answer, Unreachable)} == dead
        guests.lines.close()


def _cut(sshd: PrivateSshd) -> None:
    for pid in sshd.connections():
        with suppress(ProcessLookupError):  # of an earlier test, and ended by now
            os.kill(pid, signal.SIGKILL)
