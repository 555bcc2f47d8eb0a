"""``netports.Keeper`` on a fake host."""

from __future__ import annotations

import json
from collections.abc import Sequence

from vmhost.model.errors import Absent, Conflict, Refused
from vmhost.model.netsteps import GuardNetwork, KeepNetwork, LinkStep, step_from_json, step_to_json
from vmhost.model.network import LinkManager, ObservedNetwork, PendingChange
from vmhost.testing.machine import Machine
from vmhost.testing.netsteps import restore
from vmhost.testing.world import Guarded, World


class FakeKeeper:
    """What a fake host keeps of its network; its watchdog acts when the world's time has come, or its maker dies."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def state(self) -> ObservedNetwork:
        with self._machine.at_work() as world:
            kept = tuple(KeepNetwork(site, _steps(texts)) for site, texts in sorted(world.kept.items()))
            return ObservedNetwork(kept=kept, pending=_pending(world), systemd=world.systemd, unit=world.unit)

    def managers(self, links: Sequence[tuple[int, str]]) -> tuple[LinkManager, ...]:
        names = {name for _, name in links}
        with self._machine.at_work() as world:
            return tuple(manager for manager in world.managers if manager.link in names)

    def keep(self, network: KeepNetwork) -> None:
        with self._machine.at_work(changing=True) as world:
            world.kept.pop(network.site, None)
            if network.steps:
                world.kept[network.site] = _texts(network.steps)

    def guard(self, change: GuardNetwork) -> None:
        with self._machine.at_work(changing=True) as world:
            if world.guarded is not None and world.guarded.state != "restored":
                text = "another network change waits for its confirmation"
                raise Conflict(text, subject=world.guarded.site, hint="vmhost net confirm")
            world.guarded = Guarded(change.site, change.seconds, _texts(change.undo), _texts(change.keep.steps))

    def await_confirmation(self) -> None:
        with self._machine.at_work(changing=True) as world:
            guarded = world.guarded
            if guarded is None or guarded.state != "applying":
                raise Refused("the watchdog has put the former network back", subject="network", hint="vmhost net show")
            guarded.state, guarded.deadline = "waiting", world.now + guarded.seconds

    def dismiss(self, *, confirmed: bool) -> None:
        with self._machine.at_work(changing=True) as world:
            if world.guarded is None:
                raise Absent("no network change waits", subject="network", hint="vmhost net show")
            if confirmed and world.guarded.state != "waiting":
                text = "it is too late: the former network was put back"
                raise Refused(text, subject=world.guarded.site, hint="vmhost net apply SITE")
            if confirmed:
                world.kept[world.guarded.site] = world.guarded.keep
                if not world.guarded.keep:
                    del world.kept[world.guarded.site]
            world.guarded = None

    def install_unit(self) -> None:
        with self._machine.at_work(changing=True) as world:
            world.unit = True

    def remove_unit(self) -> None:
        with self._machine.at_work(changing=True) as world:
            world.unit = False

    def maker_died(self) -> None:
        """Let the watchdog see that the process that made a change is gone."""
        with self._machine.at_work(changing=True) as world:
            if world.guarded is not None and world.guarded.state == "applying":
                restore(world)


def _pending(world: World) -> PendingChange | None:
    guarded = world.guarded
    if guarded is None:
        return None
    keep = KeepNetwork(guarded.site, _steps(guarded.keep))
    failures = tuple(guarded.failures)
    left = max(0.0, guarded.deadline - world.now) if guarded.state == "waiting" else 0.0
    return PendingChange(guarded.site, guarded.state, guarded.seconds, left, "", keep, failures)


def _texts(steps: Sequence[LinkStep]) -> list[str]:
    return [json.dumps(step_to_json(step)) for step in steps]


def _steps(texts: Sequence[str]) -> tuple[LinkStep, ...]:
    return tuple(step_from_json(json.loads(text)) for text in texts)
