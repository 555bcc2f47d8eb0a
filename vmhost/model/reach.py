"""How the host gets to guests where its own routing does not lead: by a namespace in their VLAN, or another host."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from zlib import crc32

INSIDE: Final = "eth0"
"""The link inside a namespace of ours, the other end of the access port on the bridge."""

_JUMP: Final = re.compile(r"([A-Za-z0-9._-]+)@\[?([0-9A-Za-z.:_-]+?)\]?:([0-9]+) (\S+ \S+)")


@dataclass(frozen=True, slots=True)
class AccessPort:
    """Into one VLAN of a bridge: a port on the bridge, whose other end is alone in a network namespace.

    ``vid`` 0: the bridge keeps no VLANs apart. ``address`` is the host's own there, ``ip/prefix``; nobody else may have
    it.
    """

    bridge: str
    vid: int
    address: str

    @property
    def namespace(self) -> str:
        """The network namespace; ``ip netns exec NAME`` enters it."""
        return f"vmhost-{self.bridge}-{self.vid}"

    @property
    def port(self) -> str:
        """The port on the bridge."""
        return f"vr{crc32(f'{self.bridge}/{self.vid}'.encode()):08x}"


@dataclass(frozen=True, slots=True)
class Jump:
    """Through another host's SSH server, whose host key is pinned (an OpenSSH public key line)."""

    user: str
    host: str
    port: int
    host_key: str

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.user}@{host}:{self.port} {self.host_key}"


Via = AccessPort | Jump


def parse_jump(text: str) -> Jump:
    """Return what :class:`Jump` writes: ``USER@HOST:PORT TYPE BASE64``.

    :raises ValueError: it is something else.
    """
    found = _JUMP.fullmatch(text)
    if not found:
        raise ValueError(f"{text!r} names no host to jump through")
    user, host, port, key = found.groups()
    return Jump(user, host, int(port), key)
