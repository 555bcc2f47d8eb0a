"""A port in a VLAN that writes down every frame that reaches it (packet(7)), whoever it is for."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from time import monotonic, sleep
from typing import Final

from tests.network.guests import BRIDGE, Guest
from vmhost.drivers.command import run
from vmhost.drivers.netlink import Netlink
from vmhost.model.vlans import PortVlans

ETH_P_ALL: Final = 3
SOL_PACKET: Final = 263
PACKET_AUXDATA: Final = 8
PACKET_IGNORE_OUTGOING: Final = 23
TP_STATUS_VLAN_VALID: Final = 1 << 4


@dataclass(frozen=True)
class Frame:
    """A frame as it came: from which MAC, with which tag (0: none)."""

    source: str
    vid: int


@dataclass
class Sniffer:
    """A port of the bridge with these VLANs; its other end hears all that the bridge sends there.

    A context manager; ``frames`` grows while it is open.
    """

    name: str
    vlans: PortVlans
    frames: list[Frame] = field(default_factory=list)
    _socket: socket.socket | None = None

    @property
    def ear(self) -> str:
        return f"{self.name}-ear"

    def __enter__(self) -> Sniffer:
        run(["ip", "link", "add", self.name, "type", "veth", "peer", "name", self.ear], timeout=20)
        run(["ip", "link", "set", self.name, "master", BRIDGE, "up"], timeout=20)
        run(["ip", "link", "set", self.ear, "up", "promisc", "on"], timeout=20)
        Netlink().set_port_vlans(self.name, self.vlans)
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        # The kernel takes the tag out of the frame and tells it beside (packet(7), PACKET_AUXDATA).
        self._socket.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        self._socket.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        self._socket.bind((self.ear, 0))
        threading.Thread(target=self._hear, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._socket is not None
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RD)
        self._socket.close()
        run(["ip", "link", "del", self.name], timeout=20)

    def heard(self, mac: str) -> list[Frame]:
        """The frames of one sender."""
        return [frame for frame in self.frames if frame.source == mac]

    def vids(self, mac: str, since: int = 0) -> set[int]:
        """The tags of one sender's frames, from the frame with this number on."""
        return {frame.vid for frame in self.frames[since:] if frame.source == mac}

    def tell(self, frame: bytes) -> None:
        """Send a frame into the port, as a machine there would."""
        assert self._socket is not None
        self._socket.send(frame)

    def _hear(self) -> None:
        assert self._socket is not None
        with suppress(OSError, ValueError):
            while True:
                data, extra, _, _ = self._socket.recvmsg(2048, 256)
                self.frames.append(Frame(data[6:12].hex(":"), _tag(data, extra)))


def until(true: Callable[[], bool], seconds: float = 60.0) -> bool:
    """Wait until something is so."""
    deadline = monotonic() + seconds
    while not true() and monotonic() < deadline:
        sleep(0.05)
    return true()


def heard_again(ear: Sniffer, guest: Guest, count: int = 5) -> bool:
    """Whether further frames of a guest come."""
    before = len(ear.heard(guest.mac))
    return until(lambda: len(ear.heard(guest.mac)) >= before + count)


@contextmanager
def unfiltered(ear: Sniffer, sender: Guest) -> Iterator[None]:
    """Let the bridge keep nobody apart for a while; what is heard meanwhile does not count.

    :param sender: a guest in a VLAN that sends all the time.
    """
    before = len(ear.frames)
    _filter_vlans(False)
    try:
        yield
    finally:
        _filter_vlans(True)
        now = len(ear.frames)
        # Frames come in order: behind one that has its tag again there is none of those without.
        until(lambda: any(frame.source == sender.mac and frame.vid for frame in ear.frames[now:]))
        del ear.frames[before:]


def _filter_vlans(on: bool) -> None:
    run(["ip", "link", "set", BRIDGE, "type", "bridge", "vlan_filtering", str(int(on))], timeout=20)


def _tag(data: bytes, extra: list[tuple[int, int, bytes]]) -> int:
    if data[12:14] == b"\x81\x00":
        return int.from_bytes(data[14:16], "big") & 0xFFF
    for level, kind, value in extra:
        if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
            status, _, _, _, _, tci, _ = struct.unpack("IIIHHHH", value[:20])
            return tci & 0xFFF if status & TP_STATUS_VLAN_VALID else 0
    return 0
