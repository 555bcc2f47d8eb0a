"""Time and chance of the fake host: the same in every run."""

from __future__ import annotations

import base64
import struct
from datetime import UTC, tzinfo
from hashlib import sha256
from uuid import UUID

from vmhost.model.errors import NoCapacity
from vmhost.ports import KeyPair
from vmhost.testing.guests import facts_of
from vmhost.testing.machine import Machine
from vmhost.testing.world import World


class FakeClock:
    """The world's time."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def now(self) -> float:
        with self._machine.at_work() as world:
            return world.now

    def monotonic(self) -> float:
        with self._machine.at_work():
            return self._machine.monotonic()

    def zone(self) -> tzinfo:
        return UTC


class FakeEntropy:
    """Draws what a seed determines, one after the other."""

    def __init__(self, machine: Machine, seed: int) -> None:
        self._machine = machine
        self._seed = seed

    def uuid(self) -> str:
        with self._machine.at_work(changing=True) as world:
            return drawn_uuid(world, self._seed)

    def mac(self) -> str:
        with self._machine.at_work(changing=True) as world:
            return "52:54:00:" + drawn(world, self._seed)[:3].hex(":")

    def keypair(self, comment: str) -> KeyPair:
        with self._machine.at_work(changing=True) as world:
            return keypair_of(drawn(world, self._seed), comment)

    def port(self, taken: frozenset[int]) -> int:
        with self._machine.at_work() as world:
            domains = [domain for domain in world.domains.values() if domain.live_xml]  # others hold none open
            used = taken | {_port_of(nic.source) for domain in domains for nic in facts_of(domain).nics}
        found = next((number for number in range(22200, 23000) if number not in used), None)
        if found is None:
            raise NoCapacity("all ports from 22200 to 22999 are in use", hint="ss -lnt src 127.0.0.1")
        return found


def drawn(world: World, seed: int = 0) -> bytes:
    """Return 32 bytes that look random."""
    world.drawn += 1
    return sha256(f"{seed}:{world.drawn}".encode()).digest()


def drawn_uuid(world: World, seed: int = 0) -> str:
    """Return a UUID of version 4."""
    return str(UUID(bytes=drawn(world, seed)[:16], version=4))


def _port_of(source: str) -> int:
    port = source.rpartition(":")[2]
    return int(port) if port.isdecimal() else 0


def keypair_of(secret: bytes, comment: str) -> KeyPair:
    """Return the key pair of 32 secret bytes, in OpenSSH's formats (PROTOCOL.key of OpenSSH), the same every time."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    public = Ed25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()
    blob = _string(b"ssh-ed25519") + _string(public)
    private = secret[:4] * 2 + blob + _string(secret + public) + _string(comment.encode())
    private += bytes(range(1, 1 + -len(private) % 8))
    head = b"openssh-key-v1\0" + _string(b"none") * 2 + _string(b"") + struct.pack(">I", 1)
    text = base64.b64encode(head + _string(blob) + _string(private)).decode("ascii")
    lines = "\n".join(text[start : start + 70] for start in range(0, len(text), 70))
    return KeyPair(
        public=f"ssh-ed25519 {base64.b64encode(blob).decode('ascii')} {comment}".rstrip(),
        private=f"-----BEGIN OPENSSH PRIVATE KEY-----\n{lines}\n-----END OPENSSH PRIVATE KEY-----\n",
    )


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data
