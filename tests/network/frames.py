"""Frames as a guest may send them, sent from the far end of a port, and what comes out of others."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass, field
from ipaddress import ip_address
from itertools import count
from pathlib import Path
from time import monotonic
from types import TracebackType

from vmhost.drivers.command import run
from vmhost.drivers.netlink import Netlink
from vmhost.model.vlans import PortVlans

ARP, IPV4, IPV6, VLAN = 0x0806, 0x0800, 0x86DD, 0x8100
EVERYBODY = "ff:ff:ff:ff:ff:ff"
ALL = 3  # ETH_P_ALL of linux/if_ether.h
GUESTS = bytes.fromhex("525400")


def ethernet(source: str, kind: int, payload: bytes, *tags: int) -> bytes:
    """A frame to everybody; ``tags`` are VLAN ids, the outermost first."""
    tagged = b"".join(struct.pack("!HH", VLAN, vid) for vid in tags)
    return _mac(EVERYBODY) + _mac(source) + tagged + struct.pack("!H", kind) + payload


def arp(mac: str, ip: str, *, sizes: tuple[int, int] = (6, 4)) -> bytes:
    """A gratuitous ARP: who says that an address is its own."""
    who = _mac(mac) + ip_address(ip).packed
    return struct.pack("!HHBBH", 1, IPV4, *sizes, 1) + who + bytes(6) + ip_address(ip).packed


def ipv4(source: str, payload: bytes, protocol: int = 17) -> bytes:
    length = 20 + len(payload)
    head = struct.pack("!BBHHHBBH", 0x45, 0, length, 0, 0, 64, protocol, 0)
    return head + ip_address(source).packed + ip_address("255.255.255.255").packed + payload


def ipv6(source: str, payload: bytes, protocol: int = 17) -> bytes:
    head = struct.pack("!IHBB", 6 << 28, len(payload), protocol, 255)
    return head + ip_address(source).packed + ip_address("ff02::1").packed + payload


def udp(source: int, target: int) -> bytes:
    return struct.pack("!HHHH", source, target, 16, 0) + bytes(8)


def icmpv6(kind: int, target: str = "::") -> bytes:
    return struct.pack("!BBHI", kind, 0, 0, 0) + ip_address(target).packed


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


@dataclass
class Port:
    """A port of a bridge with somebody behind it: the two ends of a veth; ``name`` is the bridge's."""

    name: str
    bridge: str
    vlans: PortVlans | None = None
    _socket: socket.socket | None = field(default=None, repr=False)

    @property
    def far(self) -> str:
        return f"far-{self.name}"[:15]

    def __enter__(self) -> Port:
        run(["ip", "link", "add", self.name, "type", "veth", "peer", "name", self.far], timeout=20)
        for end in (self.name, self.far):  # an end that speaks by itself would be heard
            Path(f"/proc/sys/net/ipv6/conf/{end}/disable_ipv6").write_text("1")
        run(["ip", "link", "set", self.name, "master", self.bridge, "up"], timeout=20)
        run(["ip", "link", "set", self.far, "up"], timeout=20)
        if self.vlans is not None:
            Netlink().set_port_vlans(self.name, self.vlans)
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL))
        self._socket.bind((self.far, ALL))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._socket is not None
        self._socket.close()
        run(["ip", "link", "delete", self.name], timeout=20, check=False)

    def send(self, *frames: bytes) -> None:
        assert self._socket is not None
        for frame in frames:
            self._socket.send(frame.ljust(60, b"\0"))

    def drain(self) -> None:
        """Forget what came so far."""
        assert self._socket is not None
        self._socket.settimeout(0)
        while True:
            try:
                self._socket.recv(2048)
            except BlockingIOError:
                return

    def heard(self, last: bytes, seconds: float = 60.0) -> list[bytes]:
        """What guests said until a certain frame came; it and its own words are left out."""
        assert self._socket is not None
        found: list[bytes] = []
        deadline = monotonic() + seconds
        while not found or not found[-1].startswith(last):
            self._socket.settimeout(max(0.01, deadline - monotonic()))
            data, address = self._socket.recvfrom(2048)
            if address[2] != socket.PACKET_OUTGOING and data[6:9] == GUESTS:
                found.append(data)
        return found[:-1]


_numbers = count(1)


def last_of(frame: bytes) -> bytes:
    """The same frame in a way that no other has: whoever hears it has heard all before it."""
    return frame.ljust(60, b"\0") + b"the end %d." % next(_numbers)
