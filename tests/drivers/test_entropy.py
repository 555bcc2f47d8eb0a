from __future__ import annotations

import base64
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from vmhost.drivers.clock import SystemClock
from vmhost.drivers.entropy import SystemEntropy
from vmhost.model.units import parse_mac


def test_uuids_are_random_ones() -> None:
    drawn = {SystemEntropy().uuid() for _ in range(200)}
    assert len(drawn) == 200
    assert all(uuid.UUID(text).version == 4 and str(uuid.UUID(text)) == text for text in drawn)


def test_macs_have_qemus_prefix() -> None:
    drawn = {SystemEntropy().mac() for _ in range(200)}
    assert len(drawn) > 190
    assert all(parse_mac(mac) == mac and mac.startswith("52:54:00:") for mac in drawn)


def test_ssh_keygen_reads_the_private_key_and_finds_the_public_one(tmp_path: Path) -> None:
    pair = SystemEntropy().keypair("web-01 host key")
    path = tmp_path / "key"
    path.write_text(pair.private)
    path.chmod(0o600)
    done = subprocess.run(["ssh-keygen", "-y", "-f", str(path)], check=True, capture_output=True, text=True)
    assert done.stdout.split()[:2] == pair.public.split()[:2]
    assert pair.public.startswith("ssh-ed25519 AAAA")
    assert pair.public.endswith(" web-01 host key")
    assert b"ssh-ed25519" in base64.b64decode(pair.public.split()[1])


def test_keys_differ_and_the_private_half_is_not_shown() -> None:
    one, two = SystemEntropy().keypair("a"), SystemEntropy().keypair("a")
    assert one.private != two.private
    assert "PRIVATE" in one.private
    assert "PRIVATE" not in repr(one)


def test_a_comment_cannot_add_a_line() -> None:
    with pytest.raises(ValueError, match="one line"):
        SystemEntropy().keypair("x\nssh-ed25519 AAAA")


def test_no_key_no_cryptography() -> None:
    code = "import sys, vmhost.drivers.entropy as e; e.SystemEntropy().mac(); sys.exit('cryptography' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_clock_is_this_machines() -> None:
    clock = SystemClock()
    assert abs(clock.now() - time.time()) < 1
    assert clock.monotonic() - clock.monotonic() + 1 >= 0
    first = clock.monotonic()
    assert clock.monotonic() >= first
