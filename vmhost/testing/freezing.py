"""File systems of fake guests that are frozen and thawed, and agents that do it badly."""

from __future__ import annotations

from typing import Final, Literal

from vmhost.testing.world import Domain, World

Answer = Literal["", "gone", "silent", "nonsense"]

DEAD_MAN: Final = 10.0
LATE: Final = 12.0
FILE_SYSTEMS: Final = 2


def answering(world: World, domain: Domain, command: str) -> Answer:
    """Return how an agent behaves at a command: empty, as it should; see :class:`Behaviour`."""
    thaw_on_time(world, domain)
    how = world.behaviour(domain.name).freezes
    since = world.now - domain.frozen_at if domain.frozen else 0.0
    if how == "garbage":
        return "nonsense"
    if how == "silent" and command.startswith("guest-fsfreeze"):
        return "silent"
    if how == "late" and domain.frozen and since < LATE:
        return "silent"
    return "gone" if how == "dies" and domain.frozen else ""


def freeze(world: World, domain: Domain) -> int:
    """Freeze; return how many file systems are frozen."""
    domain.frozen, domain.frozen_at = FILE_SYSTEMS, world.now
    return domain.frozen


def thaw(world: World, domain: Domain) -> int:
    """Thaw; return how many file systems were frozen."""
    thaw_on_time(world, domain)
    if world.behaviour(domain.name).freezes == "lies":
        return 0
    count, domain.frozen = domain.frozen, 0
    return count


def thaw_on_time(world: World, domain: Domain) -> None:
    """Let the dead-man in the guest thaw, if it has one and the time has come."""
    if domain.frozen and world.behaviour(domain.name).dead_man and world.now - domain.frozen_at >= DEAD_MAN:
        domain.frozen = 0
