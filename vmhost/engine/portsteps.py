"""The effect of steps about the ports of guests and what is reserved for them, in one ``match``."""

from __future__ import annotations

from typing import assert_never

from vmhost.model.portsteps import (
    GuardPort,
    IsolatePort,
    PortStep,
    Release,
    Reserve,
    SetBandwidth,
    UnguardPort,
    Unreserve,
)
from vmhost.model.reservations import iso
from vmhost.ports import Ports
from vmhost.render import nft
from vmhost.render.parse.nft import parse_guards


def execute_on_port(step: PortStep, ports: Ports) -> str:
    """Do one step; nothing is to be told of it. :raises DriverError: it failed; nothing was changed."""
    match step:
        case GuardPort(guard):
            ports.packet.change(lambda _: nft.guard([guard]), look=False)
        case UnguardPort(port):
            ports.packet.change(lambda table: nft.unguard([port], parse_guards(table)))
        case IsolatePort(port, on):
            ports.links.isolate_port(port, on)
        case SetBandwidth(uuid, tap, inbound, outbound):
            ports.hypervisor.set_bandwidth(uuid, tap, inbound, outbound)
        case Reserve(items) | Release(items):
            ports.reservations.keep(items, iso(ports.clock.now()))
        case Unreserve(items):
            ports.reservations.drop(items)
        case _:
            assert_never(step)
    return ""
