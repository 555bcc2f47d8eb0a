"""``ports.Prober`` on a fake host: a port answers where a unit of the guest that listens on it is active."""

from __future__ import annotations

from vmhost.model.errors import Unreachable
from vmhost.model.probing import HttpAnswer, HttpAsk
from vmhost.model.shell import SshTarget
from vmhost.ports import ShellSession
from vmhost.testing import guests
from vmhost.testing.machine import Machine
from vmhost.testing.shell import answering


class FakeProber:
    """Looks into fake guests."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def tcp(self, target: SshTarget, port: int, *, timeout: float, inside: ShellSession | None = None) -> None:
        with self._machine.at_work() as world:
            domain = answering(world, target)
            system = guests.system_of(world, domain) if domain else None
            if system is None:
                raise Unreachable("no answer to the connection in time", subject=f"{target.host} port {port}")
            if not any(unit.active and port in unit.ports for unit in system.land.units.values()):
                raise Unreachable("connection refused", subject=f"{target.host} port {port}")

    def http(
        self, target: SshTarget, ask: HttpAsk, *, timeout: float, inside: ShellSession | None = None
    ) -> HttpAnswer:
        self.tcp(target, ask.port, timeout=timeout, inside=inside)
        return HttpAnswer(200, b"<h1>It works</h1>\n", 90.0 if ask.tls else None)
