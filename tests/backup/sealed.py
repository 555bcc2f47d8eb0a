"""What the host does with frames that a drilled guest may send it: nothing, unless its bridge is opened on purpose."""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address
from pathlib import Path
from time import monotonic

from vmhost.drivers.accessport import INSIDE
from vmhost.drivers.command import run

SETTINGS = Path("/proc/sys/net/ipv4")
OPEN = {"arp_ignore": 0, "rp_filter": 0, "forwarding": 1}
GUEST = bytes.fromhex("52540a1f0007")
BEYOND, FAR, NEXT = "10.32.0.1", "10.32.0.2", "02:00:0a:20:00:02"
SECONDS = 1.0
"""How long an answer is waited for; one that comes does so within milliseconds."""

SPEAK = """
import socket, sys, time
link, seconds, *frames = sys.argv[1:]
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806)) as wire:
    wire.bind((link, 0x0806))
    for frame in frames:
        wire.send(bytes.fromhex(frame))
    end, said = time.monotonic() + float(seconds), set()
    while (left := end - time.monotonic()) > 0 and len(said) < 2:
        wire.settimeout(left)
        try:
            heard = wire.recv(2048)
        except TimeoutError:
            break
        if heard[20:22] == b"\\0\\2":
            said.add(socket.inet_ntoa(heard[28:32]))
print(*sorted(said))
"""


def minded(space: str, bridge: str, guest: str, host: str) -> set[str]:
    """Return what the host does with frames out of the network of a drill, while it forwards for others.

    ``host`` and one beyond are asked for by ARP, and get UDP through the bridge's own MAC, from the ``guest`` address.
    """
    mac = bytes.fromhex(Path(f"/sys/class/net/{bridge}/address").read_text().strip().replace(":", ""))
    with ExitStack() as stack:
        stack.enter_context(_beyond())
        stack.enter_context(settings("", {"ip_forward": 1}))
        inner = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        inner.bind((host, 0))
        outer = stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800)))
        outer.bind(("beyond1", 0x0800))
        port = inner.getsockname()[1]
        frames = [_arp(guest, host), _arp(guest, BEYOND), _udp(mac, guest, host, port), _udp(mac, guest, FAR, port)]
        words = [sys.executable, "-c", SPEAK, INSIDE, str(SECONDS), *(frame.hex() for frame in frames)]
        asked = run(["ip", "netns", "exec", space, *words], timeout=30).text.split()
        found = {f"answers for {address}" for address in asked}
        found |= {"is delivered"} if _comes(inner, b"", guest) else set()
        found |= {"is forwarded"} if _comes(outer, ip_address(guest).packed + ip_address(FAR).packed, "") else set()
    return found


@contextmanager
def settings(link: str, wanted: Mapping[str, int]) -> Iterator[None]:
    """Set IPv4's settings, of a link or of all, and put them back."""
    place = SETTINGS / "conf" / link if link else SETTINGS
    before = {name: (place / name).read_text() for name in wanted}
    try:
        for name, value in wanted.items():
            (place / name).write_text(str(value))
        yield
    finally:
        for name, text in before.items():
            (place / name).write_text(text)


@contextmanager
def _beyond() -> Iterator[None]:
    """A further network of the host, and somebody there whom it knows."""
    run(["ip", "link", "add", "beyond0", "type", "veth", "peer", "name", "beyond1"], timeout=20)
    try:
        run(["ip", "address", "add", f"{BEYOND}/24", "dev", "beyond0"], timeout=20)
        for link in ("beyond0", "beyond1"):
            run(["ip", "link", "set", link, "up"], timeout=20)
        run(["ip", "neighbour", "add", FAR, "lladdr", NEXT, "dev", "beyond0", "nud", "permanent"], timeout=20)
        yield
    finally:
        run(["ip", "link", "delete", "beyond0"], timeout=20)


def _comes(wire: socket.socket, holds: bytes, sender: str) -> bool:
    end = monotonic() + SECONDS
    while (left := end - monotonic()) > 0:
        wire.settimeout(left)
        try:
            data, origin = wire.recvfrom(2048)
        except TimeoutError:
            return False
        if holds in data and sender in ("", origin[0]):
            return True
    return False


def _arp(source: str, target: str) -> bytes:
    asks = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + GUEST + ip_address(source).packed
    return b"\xff" * 6 + GUEST + b"\x08\x06" + (asks + bytes(6) + ip_address(target).packed).ljust(46, b"\0")


def _udp(mac: bytes, source: str, target: str, port: int) -> bytes:
    def head(checksum: int) -> bytes:
        addresses = ip_address(source).packed + ip_address(target).packed
        return struct.pack("!BBHHHBBH", 0x45, 0, 32, 0, 0, 64, 17, checksum) + addresses

    total = sum(struct.unpack("!10H", head(0)))
    total = (total & 0xFFFF) + (total >> 16)
    datagram = head(~((total & 0xFFFF) + (total >> 16)) & 0xFFFF) + struct.pack("!HHHH", 4000, port, 12, 0) + b"here"
    return mac + GUEST + b"\x08\x00" + datagram.ljust(46, b"\0")
