"""A link to the wire: the host's only way out, with its address and default route, and a router at the other end."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from vmhost.drivers.command import run
from vmhost.drivers.netlink import Netlink

UPLINK = "up0"
SITE = """
apiVersion: vmhost/v1
name: wired
bridges:
  br-up: {mode: vlan-aware, uplink: up0, native: 10, mtu: 1400}
networks:
  mgmt:
    bridge: br-up
    vlan: 10
    subnet: 192.0.2.0/24
    address: 192.0.2.5/24
    routes: [{to: default, via: 192.0.2.1}]
  prod: {bridge: br-up, vlan: 100, subnet: 10.20.0.0/24, address: 10.20.0.1/24}
  spare: {bridge: br-up, vlan: 200, reach: agent}
"""
PASSING = {
    *("ifindex", "link_index", "stats", "stats64", "valid_life_time", "preferred_life_time", "gc_timer", "hello_timer"),
    *(
        "tcn_timer",
        "topology_change_timer",
        "num_tx_queues",
        "num_rx_queues",
        "cache_info",
        "used",
        "updated",
        "tentative",
    ),
}
"""What is not the state of a link: numbers, counters, timers."""


def ip(*words: str, check: bool = True) -> str:
    return run(["ip", *words], timeout=30, check=check).text


@contextmanager
def wire() -> Iterator[None]:
    """``up0`` with 192.0.2.5 and the default route; behind it a router, untagged and in VLAN 100."""
    ip("netns", "add", "wire")
    ip("link", "add", UPLINK, "type", "veth", "peer", "name", "wire0", "netns", "wire")
    ip("link", "set", UPLINK, "up")
    ip("address", "add", "192.0.2.5/24", "broadcast", "+", "dev", UPLINK)
    ip("route", "add", "default", "via", "192.0.2.1", "dev", UPLINK)
    for words in (
        "link set wire0 up",
        "address add 192.0.2.1/24 dev wire0",
        "link add link wire0 name wire0.100 type vlan id 100",
        "link set wire0.100 up",
        "address add 10.20.0.9/24 dev wire0.100",
    ):
        ip("-n", "wire", *words.split())
    ip("link", "add", "foreign0", "type", "bridge", "vlan_filtering", "1")
    ip("link", "add", "dum0", "type", "dummy")
    ip("link", "set", "dum0", "master", "foreign0", "up")
    run(["bridge", "vlan", "add", "dev", "dum0", "vid", "77"], timeout=30)
    until(lambda: "tentative" not in ip("-6", "address") and "linkdown" not in ip("route"))
    try:
        yield
    finally:
        for name in ("br-up.10", "br-up.100", "br-up", UPLINK, "dum0", "foreign0"):
            ip("link", "delete", name, check=False)
        ip("netns", "delete", "wire", check=False)


def dump() -> dict[str, Any]:
    """Return what iproute2 shows of this host's links, without what only passes."""
    shown = {
        "link": ["ip", "-j", "-d", "link"],
        "address": ["ip", "-j", "address"],
        "route": ["ip", "-j", "-d", "route", "show", "table", "all"],
        "route6": ["ip", "-j", "-6", "-d", "route", "show", "table", "all"],
        "vlan": ["bridge", "-j", "vlan"],
        "port": ["bridge", "-j", "-d", "link"],
    }
    return {name: _settled(json.loads(run(words, timeout=30).stdout or b"[]")) for name, words in shown.items()}


def _settled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _settled(each) for key, each in value.items() if key not in PASSING}
    if isinstance(value, list):
        return sorted((_settled(each) for each in value), key=lambda each: json.dumps(each, sort_keys=True))
    return value


def until(condition: Any, seconds: float = 60.0) -> None:
    """Wait until something holds."""
    deadline = monotonic() + seconds
    while not condition():
        assert monotonic() < deadline, "it does not come to hold"
        sleep(0.1)


def reaches(address: str) -> bool:
    """Whether somebody at an address of the wire answers: the kernel asks for its MAC before it sends anything."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender, suppress(OSError):
        sender.sendto(b"?", (address, 9))
    return address in {neighbour.address for neighbour in Netlink().neighbours()}


def site_file(directory: Path, text: str = SITE) -> Path:
    path = directory / "wired.yaml"
    path.write_text(text)
    return path
