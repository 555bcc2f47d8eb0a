"""``snapports.ThawGuards`` on a fake host."""

from __future__ import annotations

from vmhost.testing import freezing
from vmhost.testing.machine import Machine


class FakeThawGuards:
    """Guards that act when their maker dies; nothing of a fake host takes longer than it should."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._armed: set[str] = set()

    def arm(self, uuid: str, seconds: float) -> FakeThawGuard:
        del seconds
        with self._machine.at_work(changing=True):
            self._armed.add(uuid)
        return FakeThawGuard(self._armed, uuid)

    def maker_died(self) -> None:
        """Let the guests thaw whose agents still answer."""
        for uuid in self._armed:
            with self._machine.at_work(changing=True) as world:
                domain = world.domains.get(uuid)
                if domain is not None and not freezing.answering(world, domain, "guest-fsfreeze-thaw"):
                    freezing.thaw(world, domain)
        self._armed.clear()


class FakeThawGuard:
    """One of them."""

    def __init__(self, armed: set[str], uuid: str) -> None:
        self._armed, self._uuid = armed, uuid

    def dismiss(self) -> None:
        self._armed.discard(self._uuid)
