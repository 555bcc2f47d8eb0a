"""What is drawn by chance: UUIDs, MACs and SSH keys."""

from __future__ import annotations

import secrets
import socket
import uuid
from typing import Final

from vmhost.model.errors import NoCapacity
from vmhost.ports import KeyPair

_QEMU_PREFIX: Final = "52:54:00"
FORWARDED_PORTS: Final = range(22200, 23000)


class SystemEntropy:
    """The kernel's random numbers."""

    def uuid(self) -> str:
        return str(uuid.uuid4())

    def mac(self) -> str:
        return ":".join((_QEMU_PREFIX, *(f"{octet:02x}" for octet in secrets.token_bytes(3))))

    def keypair(self, comment: str) -> KeyPair:
        # Imported here: only guests that are made need a key, and the import costs more than a listing may.
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import (
            Encoding,
            NoEncryption,
            PrivateFormat,
            PublicFormat,
        )

        if any(ord(char) < 32 for char in comment):
            raise ValueError("the comment of a key is one line of text")
        key = Ed25519PrivateKey.generate()
        public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode("ascii")
        private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode("ascii")
        return KeyPair(public=f"{public} {comment}".rstrip(), private=private)

    def port(self, taken: frozenset[int]) -> int:
        # A range of our own, tried by binding: the kernel may hand out its ephemeral ports to anybody at any time.
        for number in FORWARDED_PORTS:
            if number not in taken and _is_free(number):
                return number
        first, last = FORWARDED_PORTS[0], FORWARDED_PORTS[-1]
        raise NoCapacity(f"all ports from {first} to {last} are in use", hint="ss -lnt src 127.0.0.1")


def _is_free(number: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(("127.0.0.1", number))
        except OSError:
            return False
    return True
