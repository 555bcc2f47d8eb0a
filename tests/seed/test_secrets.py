from __future__ import annotations

import os
from pathlib import Path

import pytest

from vmhost.drivers import secrets
from vmhost.drivers.secrets import SecretReader
from vmhost.model.errors import Absent, DriverError, PermissionDenied, VmhostError
from vmhost.model.spec import CommandRef, CredentialRef, EnvRef, FileRef
from vmhost.ops.secrets import read_secrets
from vmhost.ops.sites import parse_site

SECRET = "correct horse battery staple"


def stored(path: Path, data: bytes = SECRET.encode() + b"\n", mode: int = 0o600) -> FileRef:
    path.write_bytes(data)
    path.chmod(mode)
    return FileRef(file=str(path))


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_private_file(tmp_path: Path, mode: int) -> None:
    assert SecretReader().read(stored(tmp_path / "s", mode=mode)) == SECRET


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o700, 0o601])
def test_a_file_that_others_may_use_is_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "with space"
    with pytest.raises(PermissionDenied, match=f"has mode {mode:04o}") as caught:
        SecretReader().read(stored(path, mode=mode))
    assert caught.value.hint == f"chmod 0600 '{path}'"
    assert SECRET not in str(caught.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    reference = stored(tmp_path / "s")
    os.chown(reference.file, 12345, 12345)
    with pytest.raises(PermissionDenied, match="belongs to somebody else"):
        SecretReader().read(reference)


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(DriverError, match="not a regular file"):
        SecretReader().read(FileRef(file=str(tmp_path / "pipe")))
    with pytest.raises(DriverError, match="not a regular file"):
        SecretReader().read(FileRef(file=str(tmp_path)))
    with pytest.raises(Absent, match="no such file"):
        SecretReader().read(FileRef(file=str(tmp_path / "none")))


@pytest.mark.parametrize(
    ("error", "kind"), [(PermissionError(13, "denied"), PermissionDenied), (OSError(5, "I/O"), DriverError)]
)
def test_what_the_system_refuses(monkeypatch: pytest.MonkeyPatch, error: OSError, kind: type[DriverError]) -> None:
    def refuse(*_: object) -> int:
        raise error

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(kind) as caught:
        SecretReader().read(FileRef(file="/srv/a b"))
    assert caught.value.hint == "ls -l '/srv/a b'"


@pytest.mark.parametrize(
    ("data", "secret"),
    [(b"a\n", "a"), (b"a\r\n", "a"), (b"a\n\n", "a\n"), (b"a", "a"), (b" a ", " a "), ("ü\n".encode(), "ü")],
)
def test_one_line_break_at_the_end_is_not_part_of_it(tmp_path: Path, data: bytes, secret: str) -> None:
    assert SecretReader().read(stored(tmp_path / "s", data)) == secret


@pytest.mark.parametrize("data", [b"", b"\n", b"a\0b", b"\xff", b"x" * (secrets.LARGEST + 1)])
def test_what_is_no_secret(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(DriverError):
        SecretReader().read(stored(tmp_path / "s", data))


def test_the_environment() -> None:
    assert SecretReader(environment={"X": SECRET}).read(EnvRef(env="X")) == SECRET
    with pytest.raises(Absent, match="X: this environment variable is not set"):
        SecretReader(environment={}).read(EnvRef(env="X"))


def test_a_program_is_run_without_a_shell() -> None:
    assert SecretReader().read(CommandRef(command=("printf", "%s", "$(id); a b"))) == "$(id); a b"


def test_what_a_failing_program_says_is_not_repeated() -> None:
    with pytest.raises(DriverError, match="sh: gave no secret: exit code 3") as caught:
        SecretReader().read(CommandRef(command=("sh", "-c", f"echo {SECRET}; echo {SECRET} >&2; exit 3")))
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_program_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "TIMEOUT", 0.2)
    with pytest.raises(DriverError, match="took too long"):
        SecretReader().read(CommandRef(command=("sleep", "60")))


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(VmhostError, match="no-such-program-here"):
        SecretReader().read(CommandRef(command=("no-such-program-here",)))


def test_a_systemd_credential(tmp_path: Path) -> None:
    stored(tmp_path / "token", mode=0o440)  # systemd decides who may read it
    reader = SecretReader(environment={"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert reader.read(CredentialRef(credential="token")) == SECRET
    with pytest.raises(Absent, match="no such file"):
        reader.read(CredentialRef(credential="other"))
    with pytest.raises(Absent, match="no systemd credentials") as caught:
        SecretReader(environment={}).read(CredentialRef(credential="token"))
    assert "LoadCredential=token" in caught.value.hint


SITE = """
apiVersion: vmhost/v1
name: shop
networks: {{lan: {{bridge: br0}}}}
defaults: {{image: debian-12, memory: 512M, disks: [{{size: 4G}}], nics: [{{network: lan}}]}}
guests:
  a: {{cloud_init: {{users: [{{name: ann, password_hash: {{file: {place}/open}}}}]}}}}
  b: {{cloud_init: {{files: [{{path: /etc/token, secret: {{env: VMHOST_TEST_NOT_SET}}}}]}}}}
  c: {{cloud_init: {{files: [{{path: /etc/token, secret: {{env: VMHOST_TEST_NOT_SET}}}}]}}}}
  d: {{cloud_init: {{files: [{{path: /etc/token, secret: {{file: {place}/good}}}}]}}}}
"""


def test_all_that_is_wrong_is_told_at_once_with_guest_and_place(tmp_path: Path) -> None:
    stored(tmp_path / "open", mode=0o644)
    good = stored(tmp_path / "good")
    site = parse_site(SITE.format(place=tmp_path))
    missing = "b: secret of file /etc/token, c: secret of file /etc/token: VMHOST_TEST_NOT_SET: this environment"
    with pytest.raises(DriverError) as caught:
        read_secrets(site, "abcd")
    head, first, second = caught.value.message.splitlines()
    assert head == "2 secrets cannot be had:"
    assert first.startswith(f"a: password_hash of user ann: {tmp_path}/open: has mode 0644")
    assert second.startswith(missing)
    assert caught.value.hint.startswith(f"chmod 0600 {tmp_path}/open; read -rs VMHOST_TEST_NOT_SET")
    assert SECRET not in str(caught.value)
    with pytest.raises(Absent) as one:
        read_secrets(site, "bcd")
    assert str(one.value).startswith(missing)
    assert read_secrets(site, "d") == {good.key(): SECRET}
