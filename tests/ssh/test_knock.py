"""Knocking: that we learn when an SSH server is up, and what must not be taken for one (how late: bench_ready)."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.ssh import hostile
from tests.ssh.private_sshd import PrivateSshd, free_port
from tests.ssh.used import no_more_than, used
from vmhost.drivers.signals import GuestWakeups
from vmhost.drivers.ssh.shell import SshShell
from vmhost.model.shell import SshTarget

pytestmark = pytest.mark.serial  # it has deadlines in real time

BANNER = b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"


def target(port: int, **changes: object) -> SshTarget:
    fields: dict[str, object] = {"guest": "web-01", "host": "127.0.0.1", "port": port, "host_keys": ("none",)}
    return SshTarget(**(fields | changes))  # type: ignore[arg-type]


@contextmanager
def opening_late() -> Iterator[tuple[int, threading.Event, list[float]]]:
    """A server that begins to listen when the event is set; the list gets the moment."""
    port, moments = free_port(), []
    begin, over = threading.Event(), threading.Event()

    def serve() -> None:
        begin.wait()
        with socket.create_server(("127.0.0.1", port)) as server:
            moments.append(time.monotonic())
            server.settimeout(0.02)
            while not over.is_set():
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    continue
                with connection:
                    connection.sendall(BANNER)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield port, begin, moments
    finally:
        over.set()
        begin.set()
        thread.join()


def test_a_server_that_opens_late_is_noticed(shell: SshShell) -> None:
    wakeups = GuestWakeups()
    with opening_late() as (port, begin, moments), shell.knock(target(port), wakeups.notify):
        assert wakeups.wait(0.5) == ()
        begin.set()
        assert wakeups.wait(20) == ("ssh",)
        assert time.monotonic() - moments[0] < 5
        assert wakeups.wait(0.2) == ()


@pytest.mark.parametrize(
    "behaviour",
    [
        pytest.param(hostile.silent, id="a forward that accepts before the guest does"),
        pytest.param(hostile.hanging_up, id="a forward whose guest refuses"),
        pytest.param(hostile.says(b"HTTP/1.1 400 Bad Request\r\n"), id="another protocol"),
        pytest.param(hostile.drips(b"SSH-2.0-never", 0.01), id="a version line without an end"),
    ],
)
def test_an_open_port_is_not_enough(shell: SshShell, behaviour: hostile.Behaviour) -> None:
    wakeups = GuestWakeups()
    with hostile.listening(behaviour) as port, shell.knock(target(port), wakeups.notify):
        assert wakeups.wait(1.0) == ()


def test_a_banner_after_a_greeting_counts(shell: SshShell) -> None:
    wakeups = GuestWakeups()
    with (
        hostile.listening(hostile.drips(b"welcome\r\n" + BANNER, 0.01)) as port,
        shell.knock(target(port), wakeups.notify),
    ):
        assert wakeups.wait(30) == ("ssh",)


def test_the_guest_is_not_flooded(shell: SshShell) -> None:
    """A server that accepts and is slow to greet gets few further connections: each would cost it a process."""
    accepted: list[float] = []

    def slow(connection: socket.socket, over: threading.Event) -> None:
        accepted.append(time.monotonic())
        hostile.silent(connection, over)

    with hostile.listening(slow) as port, shell.knock(target(port), lambda _: None):
        threading.Event().wait(1.6)
    assert 1 <= len(accepted) <= 5


def test_knocking_at_an_address_that_nobody_has_is_quiet(shell: SshShell) -> None:
    wakeups = GuestWakeups()
    before = used()
    for host in ("127.255.255.254", "256.0.0.1", "::1"):
        with shell.knock(target(free_port(), host=host), wakeups.notify) as knocker:
            assert wakeups.wait(0.2) == ()
            knocker.close()
    assert no_more_than(before)


def test_the_connection_that_found_the_server_is_the_one_that_is_used(sshd: PrivateSshd, shell: SshShell) -> None:
    wakeups = GuestWakeups()
    before = set(sshd.connections())
    with shell.knock(sshd.target(), wakeups.notify):
        assert wakeups.wait(30) == ("ssh",)
        (connection,) = set(sshd.connections()) - before
        session = shell.connect(sshd.target(), deadline=time.monotonic() + 10)
    assert set(sshd.connections()) - before == {connection}
    assert session.run(("true",), timeout=5).exit_code == 0


def test_a_socket_factory_is_used_for_both(sshd: PrivateSshd, shell: SshShell) -> None:
    made: list[float] = []

    def factory(timeout: float) -> socket.socket:
        made.append(timeout)
        return socket.create_connection(("127.0.0.1", sshd.port), timeout)

    wakeups = GuestWakeups()
    way = sshd.target(host="10.255.255.1", socket_factory=factory)
    with shell.knock(way, wakeups.notify):
        assert wakeups.wait(30) == ("ssh",)
    assert shell.connect(way, deadline=time.monotonic() + 10).run(("true",), timeout=5).exit_code == 0
    again = shell.connect(way, deadline=time.monotonic() + 10)
    assert again.run(("true",), timeout=5).exit_code == 0
    assert len(made) == 2


def test_nothing_is_left(sshd: PrivateSshd) -> None:
    before = used()
    for _ in range(3):
        wakeups = GuestWakeups()
        with SshShell() as shell, shell.knock(sshd.target(), wakeups.notify):
            assert wakeups.wait(30) == ("ssh",)
    assert no_more_than(before)
