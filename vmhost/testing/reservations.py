"""``ports.Reservations`` on a fake host."""

from __future__ import annotations

from collections.abc import Sequence

from vmhost.model.reservations import Reservation, keep
from vmhost.testing.machine import Machine


class FakeReservations:
    """What is reserved on a fake host."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def read(self) -> tuple[Reservation, ...]:
        with self._machine.at_work() as world:
            return tuple(world.reservations)

    def keep(self, items: Sequence[Reservation], now: str) -> None:
        with self._machine.at_work(changing=True) as world:
            world.reservations = list(keep(world.reservations, items, now))

    def drop(self, items: Sequence[Reservation]) -> None:
        keys = {item.key for item in items}
        with self._machine.at_work(changing=True) as world:
            world.reservations = [item for item in world.reservations if item.key not in keys]
