"""Servers that never answer, talk nonsense or are somebody else: each ends in time, in our words, with nothing left."""

from __future__ import annotations

import errno
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ssh import hostile
from tests.ssh.private_sshd import PrivateSshd, free_port
from vmhost.drivers.entropy import SystemEntropy
from vmhost.drivers.ssh import connect
from vmhost.drivers.ssh.banner import banner_probe
from vmhost.drivers.ssh.openssh import parse_public_key
from vmhost.drivers.ssh.shell import SshShell
from vmhost.model.errors import (
    Cancelled,
    DriverError,
    HostKeyMismatch,
    PermissionDenied,
    Silent,
    Unreachable,
    UsageError,
)
from vmhost.model.shell import SshTarget

pytestmark = pytest.mark.serial  # it has deadlines in real time

LIMIT = 0.5
"""Seconds that each stage may take in these tests."""

HOST_KEY = SystemEntropy().keypair("somebody").public


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No thread outlives a failed connection, not even the library's timers."""
    before = set(threading.enumerate())
    yield
    until = time.monotonic() + 8  # the library's own would go on for 15
    while (left := set(threading.enumerate()) - before) and time.monotonic() < until:
        next(iter(left)).join(timeout=0.1)
    assert not left


def target(port: int, **changes: object) -> SshTarget:
    fields: dict[str, object] = {
        "guest": "web-01",
        "host": "127.0.0.1",
        "port": port,
        "host_keys": (HOST_KEY,),
        "connect_timeout": LIMIT,
        "banner_timeout": LIMIT,
        "handshake_timeout": LIMIT,
        "auth_timeout": LIMIT,
    }
    return SshTarget(**(fields | changes))  # type: ignore[arg-type]


def refused(port: int, **changes: object) -> tuple[DriverError, float]:
    """Connect, expect a refusal, return it with the seconds it took."""
    began = time.monotonic()
    with pytest.raises(DriverError) as caught, SshShell() as shell:
        shell.connect(target(port, **changes), deadline=time.monotonic() + 10)
    return caught.value, time.monotonic() - began


@pytest.mark.parametrize(
    ("behaviour", "kind", "words", "retryable"),
    [
        pytest.param(hostile.silent, Silent, "no SSH banner came in time", True, id="no banner"),
        pytest.param(hostile.hanging_up, Unreachable, "closed before the SSH banner", True, id="closed at once"),
        pytest.param(
            hostile.says(b"HTTP/1.1 400 Bad Request\r\n" * 1000), DriverError, "not an SSH server", False, id="HTTP"
        ),
        pytest.param(hostile.says(b"\x1b]52;c;AAAA\x07" * 3000), DriverError, "not an SSH server", False, id="binary"),
        pytest.param(hostile.says(b"SSH-1.5-old\n"), DriverError, "not an SSH 2 server", False, id="SSH 1"),
        pytest.param(hostile.pours(b"please wait\r\n"), DriverError, "not an SSH server", False, id="endless lines"),
        pytest.param(hostile.pours(b"x" * 1000), DriverError, "not an SSH server", False, id="endless line"),
        pytest.param(hostile.pours(b"SSH-2.0-" + b"x" * 4000), DriverError, "not an SSH", False, id="endless version"),
        pytest.param(hostile.drips(b"welcome\r\n", 0.05), Silent, "only 'welcome", True, id="dripping lines"),
        pytest.param(hostile.says(b"SSH-2.0-dead\r\n"), Silent, "key exchange did not end", True, id="no kex"),
        pytest.param(
            hostile.says(b"SSH-2.0-nonsense\r\n" + b"\xff" * 4096),
            DriverError,
            "key exchange failed",
            False,
            id="noise",
        ),
        pytest.param(
            hostile.drips(b"SSH-2.0-slow\r\n\0\0\x7f\xfc" + bytes(4096), 0.01),
            Silent,
            "time",
            True,
            id="dripping kex",
        ),
    ],
)
def test_a_server_that_misbehaves_is_given_up_in_time(
    behaviour: hostile.Behaviour, kind: type[DriverError], words: str, retryable: bool
) -> None:
    with hostile.listening(behaviour) as port:
        error, seconds = refused(port)
    assert type(error) is kind
    assert words in error.message
    assert error.retryable is retryable
    assert error.subject == "web-01"
    assert error.hint == "vmhost guest console web-01"
    assert error.message.isprintable()
    assert seconds < 2 * LIMIT + 1


def test_nobody_listens() -> None:
    error, seconds = refused(free_port())
    assert type(error) is Unreachable, "it is refused, which is no silence"
    assert "connection refused" in error.message
    assert error.retryable
    assert seconds < 2 * LIMIT + 1


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.EHOSTUNREACH, Silent), (errno.ETIMEDOUT, Silent), (errno.ENETUNREACH, Unreachable)]
)
def test_silence_is_told_from_a_way_that_is_not_there(number: int, kind: type[DriverError]) -> None:
    def fails(_: float) -> socket.socket:
        raise OSError(number, "words")

    error, _ = refused(1, socket_factory=fails)
    assert type(error) is kind


def test_who_is_asked_meanwhile_may_end_the_key_exchange() -> None:
    with hostile.listening(hostile.says(b"SSH-2.0-dead\r\n")) as port, SshShell() as shell:
        began = time.monotonic()
        with pytest.raises(Cancelled):
            shell.connect(target(port, handshake_timeout=60.0), deadline=began + 60, check=cancelled)
        assert time.monotonic() - began < 20


def test_who_is_asked_meanwhile_may_end_the_log_in(sshd: PrivateSshd, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is stopped as soon as keys are exchanged: it takes what is sent, and says nothing."""
    known = connect._check_host_key
    stopped: list[int] = []

    def stop(*arguments: Any) -> None:
        known(*arguments)
        stopped.append(sshd.connections()[-1])
        os.kill(stopped[0], signal.SIGSTOP)

    monkeypatch.setattr(connect, "_check_host_key", stop)
    with SshShell() as shell:
        began = time.monotonic()
        try:
            with pytest.raises(Cancelled):
                shell.connect(sshd.target(auth_timeout=60.0), deadline=began + 60, check=cancelled)
            assert time.monotonic() - began < 20
        finally:
            for number in stopped:
                os.kill(number, signal.SIGCONT)


def cancelled() -> None:
    """What somebody wants who has typed Ctrl-C."""
    raise Cancelled("cancelled")


def test_the_deadline_of_the_call_ends_every_stage() -> None:
    with hostile.listening(hostile.silent) as port, SshShell() as shell:
        began = time.monotonic()
        with pytest.raises(Unreachable):
            shell.connect(target(port, banner_timeout=30.0), deadline=time.monotonic() + 0.3)
        assert time.monotonic() - began < 10, "not the 30 s that the server has for its banner"


def test_a_deadline_in_the_past_connects_nowhere() -> None:
    with SshShell() as shell, pytest.raises(Unreachable, match="the time is up"):
        shell.connect(target(1), deadline=time.monotonic() - 1)


def test_another_host_key_is_refused_before_any_log_in(sshd: PrivateSshd, shell: SshShell) -> None:
    logged = len(sshd.log)
    expected = parse_public_key(HOST_KEY).fingerprint
    presented = parse_public_key(sshd.host_key).fingerprint
    with pytest.raises(HostKeyMismatch) as caught:
        shell.connect(sshd.target(host_keys=(HOST_KEY,)), deadline=time.monotonic() + 10)
    assert expected in caught.value.message
    assert presented in caught.value.message
    assert caught.value.hint == "vmhost guest console web-01"
    assert not any("Accepted" in line or "Failed" in line for line in sshd.log[logged:])


def test_a_server_without_the_pinned_kind_of_key_is_refused(sshd: PrivateSshd, shell: SshShell, area: Path) -> None:
    ecdsa = ecdsa_public_line()
    with pytest.raises(HostKeyMismatch, match="no host key of the expected kind") as caught:
        shell.connect(sshd.target(host_keys=(ecdsa,)), deadline=time.monotonic() + 10)
    assert parse_public_key(ecdsa).fingerprint in caught.value.message


def ecdsa_public_line() -> str:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = generate_private_key(SECP256R1()).public_key()
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def test_without_a_pinned_key_nothing_is_trusted(sshd: PrivateSshd, shell: SshShell) -> None:
    with pytest.raises(UsageError, match="no host key is pinned"):
        shell.connect(sshd.target(host_keys=()), deadline=time.monotonic() + 10)


def test_one_of_several_pinned_keys_is_enough(sshd: PrivateSshd, shell: SshShell) -> None:
    keys = (HOST_KEY, sshd.host_key)
    session = shell.connect(sshd.target(host_keys=keys), deadline=time.monotonic() + 10)
    assert session.run(("true",), timeout=5).exit_code == 0


def key_file(directory: Path, text: str, mode: int = 0o600) -> Path:
    path = directory / "key"
    path.touch(mode=mode)
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_key_that_is_not_authorised(sshd: PrivateSshd, shell: SshShell, area: Path) -> None:
    path = key_file(area, SystemEntropy().keypair("stranger").private)
    with pytest.raises(PermissionDenied, match="does not accept the key for") as caught:
        shell.connect(sshd.target(private_key_files=(path,)), deadline=time.monotonic() + 10)
    assert caught.value.subject == "web-01"


def test_the_second_key_is_tried_when_the_first_is_refused(sshd: PrivateSshd, shell: SshShell, area: Path) -> None:
    path = key_file(area, SystemEntropy().keypair("stranger").private)
    keys = (path, sshd.identity)
    session = shell.connect(sshd.target(private_key_files=keys), deadline=time.monotonic() + 10)
    assert session.run(("true",), timeout=5).exit_code == 0


def test_too_many_keys_end_in_words(sshd: PrivateSshd, shell: SshShell, area: Path) -> None:
    keys = []
    for number in range(8):
        (area / str(number)).mkdir()
        keys.append(key_file(area / str(number), SystemEntropy().keypair("stranger").private))
    with pytest.raises(DriverError, match=r"closed the connection while|does not accept any of"):
        shell.connect(sshd.target(private_key_files=tuple(keys)), deadline=time.monotonic() + 10)


def passphrase_key() -> str:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

    key = Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, BestAvailableEncryption(b"secret")).decode()


@pytest.mark.parametrize(
    ("text", "mode", "words", "hint"),
    [
        pytest.param(
            lambda: SystemEntropy().keypair("").private, 0o644, "others may read", "chmod 600", id="readable by others"
        ),
        pytest.param(passphrase_key, 0o600, "has a passphrase", "ssh-add", id="passphrase"),
        pytest.param(lambda: "no key at all", 0o600, "no private key", "ssh-keygen", id="not a key"),
        pytest.param(lambda: "", 0o600, "no private key", "ssh-keygen", id="empty"),
    ],
)
def test_a_private_key_that_cannot_be_used(
    sshd: PrivateSshd, shell: SshShell, area: Path, text: Callable[[], str], mode: int, words: str, hint: str
) -> None:
    path = key_file(area, text(), mode)
    with pytest.raises(PermissionDenied, match=words) as caught:
        shell.connect(sshd.target(private_key_files=(path,)), deadline=time.monotonic() + 10)
    assert caught.value.subject == str(path)
    assert caught.value.hint.startswith(hint)


def test_a_private_key_that_is_not_there(sshd: PrivateSshd, shell: SshShell, area: Path) -> None:
    with pytest.raises(PermissionDenied, match="no such file"):
        shell.connect(sshd.target(private_key_files=(area / "absent",)), deadline=time.monotonic() + 10)


def test_no_key_at_all(sshd: PrivateSshd, shell: SshShell) -> None:
    with pytest.raises(PermissionDenied, match="no private key to log in with"):
        shell.connect(sshd.target(private_key_files=()), deadline=time.monotonic() + 10)


def test_a_server_that_takes_passwords_only(tmp_path_factory: pytest.TempPathFactory, shell: SshShell) -> None:
    config = "PubkeyAuthentication no\nAuthenticationMethods password\nPasswordAuthentication yes\n"
    with (
        PrivateSshd(tmp_path_factory.mktemp("sshd"), extra=config) as sshd,
        pytest.raises(PermissionDenied, match="takes no public keys, only password"),
    ):
        shell.connect(sshd.target(), deadline=time.monotonic() + 10)


@pytest.mark.parametrize(
    "config",
    [
        "Ciphers aes128-cbc,3des-cbc\n",
        "Ciphers aes128-ctr\nMACs hmac-sha1,hmac-md5\n",
        "KexAlgorithms diffie-hellman-group14-sha1\n",
    ],
)
def test_old_algorithms_are_refused(tmp_path_factory: pytest.TempPathFactory, shell: SshShell, config: str) -> None:
    with (
        PrivateSshd(tmp_path_factory.mktemp("sshd"), extra=config) as sshd,
        pytest.raises(DriverError, match="key exchange failed: Incompatible"),
    ):
        shell.connect(sshd.target(), deadline=time.monotonic() + 10)


def test_the_probe_reads_the_banner_and_leaves(sshd: PrivateSshd) -> None:
    assert banner_probe("127.0.0.1", sshd.port, 2.0).startswith("SSH-2.0-OpenSSH")
    with pytest.raises(Unreachable) as caught:
        banner_probe("127.0.0.1", free_port(), 1.0)
    assert caught.value.retryable


def test_lines_before_the_version_are_allowed() -> None:
    with hostile.listening(hostile.says(b"Welcome\r\nto the house\r\nSSH-2.0-x y\r\nmore")) as port:
        assert banner_probe("127.0.0.1", port, 2.0) == "SSH-2.0-x y"
