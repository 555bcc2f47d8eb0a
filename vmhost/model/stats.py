"""What guests use of the host, read in bulk: counters that only grow, and what follows from two of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from vmhost.model.domains import DomainState


class DomainStats(NamedTuple):
    """The counters of one domain at one moment; zeros where it does not run or libvirt does not know.

    ``cpu_time`` is in nanoseconds since its start, over all vCPUs. ``memory`` is what its balloon leaves it, ``used``
    what its own system says that it uses (0: it says nothing), ``resident`` what QEMU holds of the host's; bytes.
    ``read``, ``written``, ``received`` and ``sent`` are bytes since its start, over all disks and NICs. ``whole`` is
    whether memory and disks are known: nobody may have asked for them, or QEMU was busy.

    A named tuple and no dataclass: thousands of them are made every two seconds.
    """

    uuid: str
    state: DomainState
    cpu_time: int = 0
    memory: int = 0
    used: int = 0
    resident: int = 0
    read: int = 0
    written: int = 0
    received: int = 0
    sent: int = 0
    whole: bool = True

    def with_dear_of(self, other: DomainStats) -> DomainStats:
        """Return them with memory and disks as they were at another moment."""
        return self._replace(
            memory=other.memory,
            used=other.used,
            resident=other.resident,
            read=other.read,
            written=other.written,
            whole=other.whole,
        )


class Load(NamedTuple):
    """What a domain does between two moments: ``cpu`` in CPUs (1.0: one of them all the time), the rest in bytes a
    second; None: it is not known.
    """

    cpu: float = 0.0
    read: float | None = 0.0
    written: float | None = 0.0
    received: float = 0.0
    sent: float = 0.0


IDLE = Load()


def load_between(before: DomainStats, after: DomainStats, seconds: float) -> Load:
    """Return the load between two moments that lie ``seconds`` apart; nothing where a counter began anew."""
    if seconds <= 0 or after.cpu_time < before.cpu_time or not after.state.active:
        return IDLE
    return Load(
        (after.cpu_time - before.cpu_time) / seconds / 1e9,
        max(0, after.read - before.read) / seconds,
        max(0, after.written - before.written) / seconds,
        max(0, after.received - before.received) / seconds,
        max(0, after.sent - before.sent) / seconds,
    )


@dataclass(frozen=True, slots=True)
class LinkLoad:
    """What a network card has carried since it is there, in bytes, and its speed in bits a second."""

    received: int
    sent: int
    speed: int
