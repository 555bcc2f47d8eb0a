"""Guests that somebody has taken over: no answer costs more than its deadline, no flood more than a bounded memory."""

from __future__ import annotations

import time

import pytest

from tests.ssh.private_sshd import PrivateSshd
from tests.ssh.rogue import (
    Deed,
    answer_nobody,
    end_without_a_word,
    flood,
    greet_and_flood,
    never_answer,
    refuse,
    rogue,
    say_and_never_close,
    send_a_huge_packet,
)
from vmhost.drivers.ssh.shell import SshShell
from vmhost.model.errors import DriverError, Unreachable

pytestmark = pytest.mark.serial  # it has deadlines in real time


@pytest.mark.parametrize(
    ("deed", "words"),
    [
        (refuse, "refuses to run commands"),
        (never_answer, "no end within 1 s|does not answer"),
        (flood, "no end within 1 s|connection was lost"),
        (send_a_huge_packet, "connection was lost"),
        (answer_nobody, "connection was lost"),
    ],
)
def test_a_command_ends_in_time(sshd: PrivateSshd, shell: SshShell, deed: Deed, words: str) -> None:
    with rogue(deed, sshd.identity) as target:
        session = shell.connect(target, deadline=time.monotonic() + 10)
        began = time.monotonic()
        with pytest.raises(DriverError, match=words):
            session.run(("uptime",), timeout=1)
        assert time.monotonic() - began < 4
        session.close()


def test_a_command_without_an_exit_code(sshd: PrivateSshd, shell: SshShell) -> None:
    with rogue(end_without_a_word, sshd.identity) as target:
        result = shell.connect(target, deadline=time.monotonic() + 10).run(("uptime",), timeout=5)
    assert (result.exit_code, result.signal) == (None, None)


def test_a_channel_that_is_never_closed(sshd: PrivateSshd, shell: SshShell) -> None:
    with rogue(say_and_never_close, sshd.identity) as target:
        began = time.monotonic()
        result = shell.connect(target, deadline=time.monotonic() + 10).run(("uptime",), timeout=30)
        assert time.monotonic() - began < 6
    assert (result.exit_code, result.stdout, result.truncated) == (0, b"done", True)


@pytest.mark.parametrize(
    "deed", [refuse, never_answer, flood, send_a_huge_packet, end_without_a_word, say_and_never_close]
)
def test_a_file_ends_in_time(sshd: PrivateSshd, shell: SshShell, deed: Deed) -> None:
    with rogue(deed, sshd.identity) as target:
        session = shell.connect(target, deadline=time.monotonic() + 10)
        began = time.monotonic()
        with pytest.raises(DriverError):
            session.read_file("/etc/hostname", timeout=1)
        assert time.monotonic() - began < 4
        session.close()


def test_a_flood_on_an_idle_channel_ends_the_connection(sshd: PrivateSshd, shell: SshShell) -> None:
    """Nobody reads the file channel between two calls; a guest may not fill our memory through it."""
    with rogue(greet_and_flood, sshd.identity) as target:
        session = shell.connect(target, deadline=time.monotonic() + 10)
        session._files._open(time.monotonic() + 5)
        session._transport.join(10)
        assert not session._transport.is_alive()
        with pytest.raises(Unreachable):
            session.run(("true",), timeout=5)
