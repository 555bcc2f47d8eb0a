"""OpenSSH's own programs agree with what we write for them and read of theirs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.ssh.private_sshd import PrivateSshd
from vmhost.drivers.entropy import SystemEntropy
from vmhost.drivers.ssh.openssh import known_hosts_line, parse_public_key, ssh_argv
from vmhost.model.errors import UsageError
from vmhost.model.shell import SshTarget


def keygen(*words: str) -> str:
    return subprocess.run(["ssh-keygen", *words], check=True, capture_output=True, text=True).stdout.strip()


def test_our_key_pair_is_one_that_openssh_reads(area: Path) -> None:
    pair = SystemEntropy().keypair("shop")
    path = area / "key"
    path.touch(mode=0o600)
    path.write_text(pair.private)
    assert keygen("-y", "-f", str(path)) == str(parse_public_key(pair.public))
    (area / "key.pub").write_text(pair.public)
    told = keygen("-l", "-f", str(area / "key.pub")).split()
    assert told[:3] == ["256", parse_public_key(pair.public).fingerprint, "shop"]


@pytest.mark.parametrize("kind", [("rsa", "ssh-rsa"), ("ecdsa", "ecdsa-sha2-nistp256"), ("ed25519", "ssh-ed25519")])
def test_every_kind_of_key_is_read(area: Path, kind: tuple[str, str]) -> None:
    keygen("-q", "-t", kind[0], "-N", "", "-f", str(area / "key"))
    key = parse_public_key((area / "key.pub").read_text())
    assert key.type == kind[1]
    assert key.fingerprint == keygen("-l", "-f", str(area / "key.pub")).split()[1]
    assert "ssh-rsa" not in key.signature_algorithms


@pytest.mark.parametrize(
    "line",
    ["", "ssh-ed25519", "ssh-ed25519 !!!", "ssh-ed25519 AAAA", "ssh-dss AAAAB3NzaC1kc3MAAAA", "AAAA ssh-ed25519"],
)
def test_what_is_no_key_is_refused(line: str) -> None:
    with pytest.raises(UsageError):
        parse_public_key(line)


def test_a_key_that_claims_another_type_is_refused() -> None:
    blob = SystemEntropy().keypair("x").public.split()[1]
    with pytest.raises(UsageError):
        parse_public_key(f"ecdsa-sha2-nistp256 {blob}")


@pytest.mark.parametrize(
    ("host", "port"), [("10.20.0.11", 22), ("127.0.0.1", 2222), ("fd00::1", 22), ("fd00::1", 2022)]
)
def test_ssh_keygen_finds_the_line(area: Path, host: str, port: int) -> None:
    key = SystemEntropy().keypair("web-01").public
    path = area / "known_hosts"
    path.write_text(known_hosts_line(host, port, key) + "\n")
    name = host if port == 22 else f"[{host}]:{port}"
    assert str(parse_public_key(key)) in keygen("-F", name, "-f", str(path))


def run_ssh(target: SshTarget, area: Path, *command: str, pinned: str = "") -> subprocess.CompletedProcess[bytes]:
    path = area / "100% known hosts"
    path.write_text(
        "".join(known_hosts_line(target.host, target.port, key) + "\n" for key in [pinned, *target.host_keys] if key)
    )
    argv = ssh_argv(target, path, command)
    return subprocess.run(argv, check=False, capture_output=True, stdin=subprocess.DEVNULL, timeout=20)


def test_the_systems_ssh_runs_a_command(sshd: PrivateSshd, area: Path) -> None:
    done = run_ssh(sshd.target(), area, "printf", "%s|", "a b", "$(id)", "it's")
    assert (done.returncode, done.stdout) == (0, b"a b|$(id)|it's|")


def test_the_systems_ssh_refuses_another_host_key(sshd: PrivateSshd, area: Path) -> None:
    done = run_ssh(sshd.target(host_keys=(SystemEntropy().keypair("other").public,)), area, "true")
    assert done.returncode == 255
    assert b"Host key verification failed" in done.stderr or b"IDENTIFICATION HAS CHANGED" in done.stderr


def test_the_command_line_holds_no_secret_and_no_option_from_the_guest(sshd: PrivateSshd) -> None:
    argv = ssh_argv(sshd.target(host="-oProxyCommand=touch /tmp/x"), Path("/run/known_hosts"))
    assert argv[-2:] == ("--", "-oProxyCommand=touch /tmp/x")
    private = sshd.identity.read_text()
    assert not any(word in private for word in argv if len(word) > 20)
    assert ("-i", str(sshd.identity)) == argv[argv.index("-i") : argv.index("-i") + 2]


def test_the_agent_is_asked_only_when_wanted(sshd: PrivateSshd) -> None:
    assert "IdentityAgent=none" in ssh_argv(sshd.target(), Path("/k"))
    assert "IdentitiesOnly=yes" in ssh_argv(sshd.target(), Path("/k"))
    assert "IdentitiesOnly=no" in ssh_argv(sshd.target(use_agent=True), Path("/k"))


def test_a_terminal_is_asked_for_on_request(sshd: PrivateSshd) -> None:
    assert "-t" not in ssh_argv(sshd.target(), Path("/k"), ("top",))
    assert "-t" in ssh_argv(sshd.target(), Path("/k"), ("top",), tty=True)
