"""Ways to guests that the host's routing does not lead to: through another host, as SSH of both kinds goes it."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ssh.private_sshd import PrivateSshd
from vmhost.drivers.command import socket_to
from vmhost.drivers.entropy import SystemEntropy
from vmhost.drivers.ssh.openssh import known_hosts_line, ssh_argv
from vmhost.drivers.ssh.shell import SshShell
from vmhost.drivers.ssh.via import proxy_argv, proxy_command
from vmhost.model.errors import Unreachable
from vmhost.model.reach import AccessPort, Jump, parse_jump
from vmhost.model.shell import SshTarget

JUMP_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFoo"


@pytest.fixture(scope="session")
def jump_host(tmp_path_factory: pytest.TempPathFactory, sshd: PrivateSshd) -> Iterator[PrivateSshd]:
    """Another SSH server, which lets the same key in."""
    directory = tmp_path_factory.mktemp("jump")
    with PrivateSshd(directory) as server:
        shutil.copy(sshd.directory / "authorized_keys", directory / "authorized_keys")
        yield server


@pytest.fixture
def through(sshd: PrivateSshd, jump_host: PrivateSshd) -> SshTarget:
    jump = Jump(jump_host.user, jump_host.address, jump_host.port, _bare(jump_host.host_key))
    return sshd.target(via=jump)


def _bare(line: str) -> str:
    return " ".join(line.split()[:2])


def soon() -> float:
    return time.monotonic() + 20


def test_a_session_goes_through_the_jump_host(through: SshTarget, jump_host: PrivateSshd, shell: SshShell) -> None:
    before = set(jump_host.connections())
    session = shell.connect(through, deadline=soon())
    try:
        assert session.run(["echo", "hello"], timeout=10).stdout == b"hello\n"
        assert len(set(jump_host.connections()) - before) == 1
        session.write_file(f"{jump_host.directory}/there", b"data")
        assert session.read_file(f"{jump_host.directory}/there") == b"data"
    finally:
        session.close()


def test_knocking_goes_through_it_and_the_session_goes_on_with_that_connection(
    through: SshTarget, shell: SshShell
) -> None:
    opened = threading.Event()
    with shell.knock(through, lambda _sign: opened.set()):
        assert opened.wait(20)
    session = shell.connect(through, deadline=soon())
    assert session.run(["true"], timeout=10).exit_code == 0
    session.close()


def test_another_host_key_of_the_jump_host_is_not_trusted(
    sshd: PrivateSshd, jump_host: PrivateSshd, shell: SshShell
) -> None:
    other = _bare(SystemEntropy().keypair("other").public)
    target = sshd.target(via=Jump(jump_host.user, jump_host.address, jump_host.port, other))
    with pytest.raises(Unreachable):
        shell.connect(target, deadline=soon())


def test_the_systems_ssh_goes_through_it_too(through: SshTarget, jump_host: PrivateSshd, area: Path) -> None:
    known = area / "known hosts"
    known.write_text("".join(known_hosts_line(through.host, through.port, key) + "\n" for key in through.host_keys))
    argv = ssh_argv(through, known, ("printf", "%s", "$SSH_CONNECTION"), proxy=proxy_command(through))
    jump_host.log.clear()
    done = subprocess.run(argv, check=False, capture_output=True, stdin=subprocess.DEVNULL, timeout=30)
    assert (done.returncode, done.stdout) == (0, b"$SSH_CONNECTION")
    assert any("Accepted publickey" in line for line in jump_host.log)


def test_a_server_behind_a_jump_host_has_the_time_that_logging_in_there_takes(
    through: SshTarget, sshd: PrivateSshd, area: Path
) -> None:
    def seconds(target: SshTarget) -> int:
        words = ssh_argv(target, area / "known", proxy=proxy_command(target) if target.via else "")
        return int(next(word for word in words if word.startswith("ConnectTimeout=")).partition("=")[2])

    assert seconds(sshd.target()) == sshd.target().connect_timeout + sshd.target().banner_timeout
    assert seconds(through) == seconds(sshd.target()) + through.handshake_timeout + through.auth_timeout
    assert through.first_line_timeout > sshd.target().first_line_timeout == sshd.target().banner_timeout


def test_the_way_to_a_jump_host_is_written_and_read_back() -> None:
    for host in ("10.0.0.5", "gate.example.org", "fd00::5"):
        jump = Jump("ops", host, 2222, JUMP_KEY)
        assert parse_jump(str(jump)) == jump
    for nonsense in ("", "gate", "ops@gate", "ops@gate:22", "ops@gate:x ssh-ed25519 AAAA"):
        with pytest.raises(ValueError):
            parse_jump(nonsense)


def test_a_namespace_is_entered_by_a_program_of_ours_and_no_word_is_taken_for_a_token() -> None:
    target = SshTarget("web", "10.1.0.2", ("x",), via=AccessPort("br%h", 100, "10.1.0.250/24"))
    argv = proxy_argv(target)
    assert argv[-3:] == ("vmhost-br%h-100", "10.1.0.2", "22")
    assert "vmhost-br%%h-100" in proxy_command(target)


def test_a_program_s_streams_are_a_socket_and_its_end_is_theirs() -> None:
    with socket_to(["cat"]) as wire:
        wire.sendall(b"there and back")
        assert wire.recv(64) == b"there and back"
        wire.shutdown(socket.SHUT_WR)
        assert wire.recv(64) == b""


def test_a_namespace_that_is_gone_is_unreachable(sshd: PrivateSshd, shell: SshShell) -> None:
    target = sshd.target(via=AccessPort("br-none", 7, "10.9.9.1/24"))
    with pytest.raises(Unreachable, match="no namespace vmhost-br-none-7: the way there is gone"):
        shell.connect(target, deadline=soon())
