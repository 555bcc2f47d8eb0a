"""``ports.Signals`` on a fake host: who waits for a guest turns the clock on to the next thing that happens."""

from __future__ import annotations

from collections.abc import Callable

from vmhost.ports import Hypervisor
from vmhost.testing.machine import Machine


class FakeSignals:
    """Watches guests of a fake host."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def open(self, hypervisor: Hypervisor, uuid: str, serial_log: str) -> FakeWakeups:
        signs, forget = self._machine.events.watch(uuid)
        return FakeWakeups(self._machine, signs, forget)

    def make_room(self, logs: str) -> None:
        """A fake host has room for every log."""

    def console_tail(self, serial_log: str, lines: int) -> tuple[str, ...]:
        with self._machine.at_work() as world:
            return tuple(world.consoles.get(serial_log, [])[-lines:]) if lines > 0 else ()

    def forget_console(self, serial_log: str) -> None:
        with self._machine.at_work(changing=True) as world:
            world.consoles.pop(serial_log, None)


class FakeWakeups:
    """Signs of one guest."""

    def __init__(self, machine: Machine, signs: list[str], forget: Callable[[], None]) -> None:
        self._machine = machine
        self._signs = signs
        self._forget = forget

    def wait(self, timeout: float) -> tuple[str, ...]:
        with self._machine.at_work(changing=True) as world:
            deadline = world.now + timeout
            while not self._heard() and world.now < deadline:
                moment = self._machine.next_moment()
                self._machine.advance_to(deadline if moment is None else min(moment, deadline))
            found = tuple(self._signs)
            self._signs.clear()
            return found

    def notify(self, sign: str) -> None:
        self._signs.append(sign)

    def _heard(self) -> bool:
        """Whether there is a sign; whoever knocks at a guest knocks now."""
        for knock in tuple(self._machine.knocks):
            knock()
        return bool(self._signs)

    def close(self) -> None:
        self._forget()
