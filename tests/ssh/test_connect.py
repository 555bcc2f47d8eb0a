"""What a connection is made of: algorithms, socket options, keys, agent, key renewal."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ssh.private_sshd import PrivateSshd
from vmhost.drivers.ssh import transport
from vmhost.drivers.ssh.command import command_line, ending_line
from vmhost.drivers.ssh.session import SshSession
from vmhost.drivers.ssh.shell import SshShell
from vmhost.model.errors import PermissionDenied

MEBIBYTE = 1 << 20
OLD = ("cbc", "3des", "md5", "sha1", "ssh-rsa", "ssh-dss", "group14", "group1-", "-cert-", "-96")


def soon() -> float:
    return time.monotonic() + 10


def test_only_modern_algorithms_are_offered(session: SshSession, sshd: PrivateSshd) -> None:
    wire = session._transport
    offered = (
        wire.preferred_ciphers,
        wire.preferred_macs,
        wire.preferred_kex,
        wire.preferred_pubkeys,
        wire.preferred_keys,
    )
    assert all(offered)
    assert not [name for names in offered for name in names if any(word in name for word in OLD)]
    assert wire.preferred_keys == ("ssh-ed25519",)
    assert wire.host_key_type == "ssh-ed25519"
    assert wire.local_cipher in transport.CIPHERS
    assert wire.agreed_on_strict_kex


def test_the_socket_does_not_wait_and_notices_a_dead_peer(session: SshSession) -> None:
    wire = session._transport.wire
    assert wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert wire.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000


@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_other_kinds_of_host_keys(
    tmp_path_factory: pytest.TempPathFactory, shell: SshShell, area: Path, kind: str
) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(area / "host")], check=True)
    pinned = (area / "host.pub").read_text()
    with PrivateSshd(tmp_path_factory.mktemp("sshd"), extra=f"HostKey {area}/host\n") as sshd:
        session = shell.connect(sshd.target(host_keys=(pinned,)), deadline=soon())
        assert session.run(("true",), timeout=5).exit_code == 0
        assert session._transport.host_key_type in {"rsa-sha2-512", "ecdsa-sha2-nistp256"}
        shell.close()


def test_an_rsa_key_logs_in_by_sha2(sshd: PrivateSshd, shell: SshShell, area: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-N", "", "-f", str(area / "key")], check=True)
    with (sshd.directory / "authorized_keys").open("a") as file:
        file.write((area / "key.pub").read_text())
    session = shell.connect(sshd.target(private_key_files=(area / "key",)), deadline=soon())
    assert session.run(("true",), timeout=5).exit_code == 0


@pytest.fixture
def agent(sshd: PrivateSshd, area: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A real ssh-agent that holds the server's identity."""
    path = area / "agent"
    with subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        subprocess.run(["ssh-add", "-q", str(sshd.identity)], check=True, env=os.environ | {"SSH_AUTH_SOCK": str(path)})
        yield
        process.terminate()


@pytest.mark.usefixtures("agent")
def test_the_agents_keys_are_used_only_when_wanted(sshd: PrivateSshd, shell: SshShell) -> None:
    session = shell.connect(sshd.target(private_key_files=(), use_agent=True), deadline=soon())
    assert session.run(("true",), timeout=5).exit_code == 0
    with pytest.raises(PermissionDenied, match="no private key"):
        shell.connect(sshd.target(private_key_files=()), deadline=soon())


def test_no_agent_at_all(sshd: PrivateSshd, shell: SshShell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", "/nonexistent")
    with pytest.raises(PermissionDenied, match="no private key"):
        shell.connect(sshd.target(private_key_files=(), use_agent=True), deadline=soon())


def test_a_server_that_wants_more_than_a_key(tmp_path_factory: pytest.TempPathFactory, shell: SshShell) -> None:
    config = "AuthenticationMethods publickey,password\nPasswordAuthentication yes\n"
    with (
        PrivateSshd(tmp_path_factory.mktemp("sshd"), extra=config) as sshd,
        pytest.raises(PermissionDenied, match="wants more than a key"),
    ):
        shell.connect(sshd.target(), deadline=soon())


def test_keys_are_renewed_in_the_middle(tmp_path_factory: pytest.TempPathFactory, shell: SshShell) -> None:
    """Both directions at once, with a new key exchange after every mebibyte."""
    data = os.urandom(MEBIBYTE) * 6
    with PrivateSshd(tmp_path_factory.mktemp("sshd"), extra="RekeyLimit 1M\n") as sshd:
        session = shell.connect(sshd.target(), deadline=soon())
        assert session.run(("cat",), input=data, timeout=30, cap=len(data)).stdout == data
        path = sshd.directory / "file"
        session.write_file(str(path), data)
        assert session.read_file(str(path), cap=len(data)) == data
        shell.close()


def test_sudo_never_asks_and_keeps_the_mark() -> None:
    line = command_line(("systemctl", "restart", "a b"), mark="c0ffee", sudo=True).decode()
    assert line.endswith("VMHOST_COMMAND=c0ffee exec sudo -n -- env VMHOST_COMMAND=c0ffee systemctl restart 'a b'")
    assert " exec sudo -n -- sh -c " in ending_line("c0ffee", sudo=True).decode()
    assert "sudo" not in ending_line("c0ffee").decode()


def test_importing_what_faces_need_loads_no_paramiko() -> None:
    modules = "vmhost.drivers.ssh.openssh, vmhost.drivers.ssh.banner, vmhost.drivers.ssh.wire"
    code = f"import sys, {modules}; print('paramiko' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "False\n"
