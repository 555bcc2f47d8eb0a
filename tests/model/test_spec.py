from __future__ import annotations

import base64

import pytest
from pydantic import ValidationError

from vmhost.model.spec import (
    CloudInitSpec,
    CommandRef,
    EnvRef,
    FileSpec,
    GuestInput,
    GuestSpec,
    NetworkSpec,
    UserDataSpec,
)

MINIMAL = {"name": "web", "image": "debian-12", "cpus": {"count": 1}, "memory": "512M", "disks": [{"size": "4G"}]}


def public_key(kind: str = "ssh-ed25519", comment: str = " me@here") -> str:
    blob = len(kind).to_bytes(4, "big") + kind.encode() + (32).to_bytes(4, "big") + bytes(32)
    return f"{kind} {base64.b64encode(blob).decode()}{comment}"


def test_a_guest_survives_json() -> None:
    spec = GuestSpec.model_validate(
        MINIMAL
        | {
            "nics": [{"network": "prod", "id": "prod", "address": "10.0.0.5"}],
            "labels": {"tier": "web"},
            "ready": {"by": "agent", "timeout": "5m"},
            "cloud_init": {
                "users": [{"name": "bob", "password_hash": {"command": ["pass", "show"]}, "ssh_keys": [public_key()]}],
                "files": [{"path": "/a", "secret": {"env": "X"}}, {"path": "/b", "content": "\u2028😀\0"}],
                "commands": ["ls", ["ls", "-l a"]],
                "user_data": {"file": "x", "content": "#!/bin/sh"},
            },
        }
    )
    assert GuestSpec.model_validate_json(spec.model_dump_json(exclude_none=True)) == spec
    assert GuestSpec.model_validate(spec.model_dump()) == spec


def test_sizes_become_whole_mebibytes() -> None:
    spec = GuestSpec.model_validate(MINIMAL | {"memory": "1GB", "disks": [{"size": "10GB"}]})
    assert spec.memory.size == 954 << 20
    assert spec.root.size == 9537 << 20


def test_short_forms() -> None:
    written = GuestInput.model_validate({"cpus": 2, "memory": "1G", "cloud_init": {"user_data": "own.yaml"}})
    assert written.cpus is not None
    assert written.cpus.count == 2
    assert written.memory is not None
    assert written.memory.size == 1 << 30
    assert written.cloud_init is not None
    assert written.cloud_init.user_data == UserDataSpec(file="own.yaml")


@pytest.mark.parametrize("value", [True, "2", 0.001, 300.5, float("nan"), -0.5, 0, 711])
def test_vcpus_are_a_number_that_libvirt_takes(value: object) -> None:
    with pytest.raises(ValidationError):
        GuestInput.model_validate({"cpus": value})


def test_different_commands_have_different_keys() -> None:
    assert CommandRef(command=("a b", "c")).key() != CommandRef(command=("a", "b c")).key()
    assert CommandRef(command=("env:X",)).key() != EnvRef(env="X").key()


@pytest.mark.parametrize("kind", ["ssh-ed25519", "ecdsa-sha2-nistp256", "sk-ssh-ed25519@openssh.com", "ssh-rsa"])
def test_public_keys(kind: str) -> None:
    for comment in ("", " me", " me and you"):
        line = public_key(kind, comment)
        assert CloudInitSpec(ssh_keys=(line,)).ssh_keys == (line,)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "ssh-ed25519",
        "ssh-ed25519 AAAA",
        public_key() + "\n",
        public_key(comment=" a\nssh-ed25519 AAAA"),
        public_key()[:40],
        "ssh-rsa " + public_key().split()[1],
        'command="id" ' + public_key(),
    ],
)
def test_other_lines_are_no_public_keys(line: str) -> None:
    with pytest.raises(ValidationError, match="public key"):
        CloudInitSpec(ssh_keys=(line,))


@pytest.mark.parametrize("path", ["/etc/motd", "/a b", "/ü"])
def test_paths_in_the_guest(path: str) -> None:
    assert FileSpec(path=path, content="").path == path


@pytest.mark.parametrize("path", ["", "/", "a", "/a/", "/a//b", "/a/../b", "/./a", "/a\n", "/a\0", "../a"])
def test_other_paths_are_refused(path: str) -> None:
    with pytest.raises(ValidationError):
        FileSpec(path=path, content="")


def test_half_a_surrogate_pair_is_no_text() -> None:
    with pytest.raises(ValidationError, match="surrogate"):
        FileSpec(path="/a", content="\ud800")


def test_the_pool_of_a_network() -> None:
    def bounds(**keys: str) -> tuple[int, int] | None:
        return NetworkSpec.model_validate({"bridge": "br0"} | keys).pool_bounds()

    assert bounds() is None
    assert bounds(subnet="10.0.0.0/24") == (0x0A000001, 0x0A0000FE)
    assert bounds(subnet="10.0.0.0/31") == (0x0A000000, 0x0A000001)
    assert bounds(subnet="10.0.0.0/24", pool="10.0.0.9 - 10.0.0.10") == (0x0A000009, 0x0A00000A)
    assert bounds(subnet="fd00::/127") == (0xFD << 120, (0xFD << 120) + 1)
