"""Waiting until a service is ready by its probes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vmhost.engine.context import Context
from vmhost.engine.services.probing import Looker
from vmhost.model.errors import GuestError
from vmhost.model.events import Waiting
from vmhost.model.services import Look
from vmhost.model.spec.service import ServiceState

if TYPE_CHECKING:
    from vmhost.model.observed import ObservedDomain
    from vmhost.ports import Ports

PAUSE: Final = 0.5
"""Seconds between two looks while a service is awaited."""


def await_ready(ports: Ports, looker: Looker, domain: ObservedDomain, state: ServiceState, context: Context) -> None:
    """Return when every probe of a service has been good as often as its threshold says.

    It has its start period, and after that as many intervals as bad looks are allowed.

    :raises GuestError: it is not ready in time, with what each probe said last; :raises Cancelled: the person gave up.
    """
    if state.unit is not None and state.unit.state == "stopped":
        return
    probes = {name: probe for name, probe in state.probes.items() if probe.kind != "agent"}
    good = dict.fromkeys(probes, 0)
    patience = max((probe.start_period + probe.failures * probe.interval for probe in probes.values()), default=0.0)
    deadline = ports.clock.monotonic() + patience
    last: dict[str, Look] = {}
    with _Signs(ports, domain) as sleep:
        while True:
            for name, probe in probes.items():
                if good[name] < probe.successes:
                    last[name] = look = looker.look(name, probe, state)
                    good[name] = good[name] + 1 if look.good else 0
            waiting = [name for name, probe in probes.items() if good[name] < probe.successes]
            if not waiting:
                return
            context.check()
            if ports.clock.monotonic() >= deadline:
                text = f"{state.name} is not ready after {patience:.0f} s"
                details = [f"{name}: {last[name].text}" for name in waiting]
                hint = f"vmhost service logs {state.name}"
                raise GuestError(f"{text}: {'; '.join(details)}", subject=domain.name, hint=hint, details=details)
            context.on_event(Waiting(domain.name, f"{state.name}: {last[waiting[0]].text}"))
            sleep.wait(PAUSE)


class _Signs:
    """Sleeps on the guest's own signs, so that its end wakes who waits for it."""

    def __init__(self, ports: Ports, domain: ObservedDomain) -> None:
        self._wakeups = ports.signals.open(ports.hypervisor, domain.uuid, "")

    def __enter__(self) -> _Signs:
        return self

    def __exit__(self, *_: object) -> None:
        self._wakeups.close()

    def wait(self, seconds: float) -> None:
        self._wakeups.wait(seconds)
