"""Looking at a service by its probes: once, or until it is ready."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vmhost.engine.services.line import Lines
from vmhost.model.errors import DriverError, VmhostError
from vmhost.model.guestops import GuestCommand
from vmhost.model.probing import HttpAnswer, HttpAsk
from vmhost.model.services import Look
from vmhost.model.shell import SshTarget
from vmhost.model.spec.service import HttpSpec, ProbeSpec, ServiceState
from vmhost.model.text import sanitize
from vmhost.ports import Ports
from vmhost.render.guestfacts import ask_units, read_units

PING = '{"execute": "guest-ping"}'


@dataclass(frozen=True, slots=True)
class Patient:
    """The guest that is looked at: how it is reached, and its UUID for the guest agent."""

    guest: str
    uuid: str
    target: Callable[[], SshTarget]


class Looker:
    """Looks at one guest's services; safe from several threads."""

    def __init__(self, ports: Ports, lines: Lines, patient: Patient) -> None:
        self._ports = ports
        self._lines = lines
        self._patient = patient

    def look(self, name: str, probe: ProbeSpec, state: ServiceState) -> Look:
        """Look once; a probe that cannot be made is a bad look, and says why."""
        began, now = self._ports.clock.monotonic(), self._ports.clock.now()
        try:
            text = self._ask(probe, state)
            good = True
        except VmhostError as error:
            text, good = error.message, False
        seconds = self._ports.clock.monotonic() - began
        if good and probe.http and probe.http.latency is not None and seconds > probe.http.latency:
            text, good = f"answered after {seconds:.2f} s, more than {probe.http.latency:g} s", False
        return Look(name, good, sanitize(text), seconds, now)

    def look_at_all(self, state: ServiceState) -> tuple[Look, ...]:
        """Look by every probe of a service."""
        return tuple(self.look(name, probe, state) for name, probe in state.probes.items())

    def _ask(self, probe: ProbeSpec, state: ServiceState) -> str:
        """Return what is good. :raises VmhostError: what is not."""
        guest, timeout = self._patient.guest, probe.timeout
        if probe.tcp is not None:
            inside = self._lines.session(guest, timeout) if self._is_inside(probe) else None
            self._ports.prober.tcp(self._patient.target(), probe.tcp.port, timeout=timeout, inside=inside)
            return f"port {probe.tcp.port} takes connections"
        if probe.http is not None:
            inside = self._lines.session(guest, timeout) if self._is_inside(probe) else None
            ask = _request(probe.http)
            answer = self._ports.prober.http(self._patient.target(), ask, timeout=timeout, inside=inside)
            return _judged(probe.http, answer)
        if probe.command is not None:
            return self._command(probe.command, timeout)
        if probe.agent:
            self._ports.hypervisor.agent(self._patient.uuid, PING, timeout)
            return "the guest agent answers"
        return self._unit(state, timeout)

    def _is_inside(self, probe: ProbeSpec) -> bool:
        """Whether to connect from within the guest: it is wished, or only its SSH port is forwarded to this host."""
        return probe.source == "guest" or self._patient.target().port != 22

    def _command(self, argv: tuple[str, ...], timeout: float) -> str:
        result = self._lines.run(self._patient.guest, GuestCommand(argv, timeout=timeout), again=True)
        said = (result.stdout or result.stderr).decode("utf-8", "replace").strip().partition("\n")[0][:120]
        if result.exit_code != 0:
            how = result.exit_code if result.exit_code is not None else f"signal {result.signal}"
            raise DriverError(f"{argv[0]} ended with {how}{f': {said}' if said else ''}")
        return said or f"{argv[0]} ended with 0"

    def _unit(self, state: ServiceState, timeout: float) -> str:
        assert state.unit is not None
        name = state.unit.name
        asked = ask_units([name])
        command = GuestCommand(asked.argv, timeout=timeout, sudo=False)
        result = self._lines.run(self._patient.guest, command, again=True)
        fact = read_units(result.stdout, [name]).get(name)
        if fact is None or not fact.there:
            raise DriverError(f"there is no unit {name}")
        if fact.active not in ("active", "reloading"):
            why = f", {fact.result}" if fact.result not in ("", "success") else ""
            raise DriverError(f"{name} is {fact.active} ({fact.sub}{why})")
        return f"{name} is {fact.active} ({fact.sub}) since {fact.since or 'an unknown time'}"


def _request(spec: HttpSpec) -> HttpAsk:
    return HttpAsk(spec.port, spec.path, spec.tls, spec.host or "", spec.verify)


def _judged(spec: HttpSpec, answer: HttpAnswer) -> str:
    first, _, last = spec.status.partition("-")
    if not int(first) <= answer.status <= int(last or first):
        raise DriverError(f"status {answer.status}, not {spec.status}")
    if spec.body is not None and spec.body.encode() not in answer.body:
        raise DriverError(f"status {answer.status}, but the answer does not hold {spec.body!r}")
    if answer.days is not None and answer.days < 0:
        raise DriverError(f"its certificate expired {-answer.days:.0f} days ago")
    if spec.days is not None and answer.days is not None and answer.days < spec.days:
        raise DriverError(f"its certificate holds {answer.days:.0f} days more, not {spec.days}")
    holds = f", the certificate holds {answer.days:.0f} days more" if answer.days is not None else ""
    return f"status {answer.status}{holds}"
