"""What the protection of guests is judged by, beside their points: what is wished, and whether anything wakes it."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

from vmhost.model.nightsteps import CRON
from vmhost.plan.applied import backup_wish
from vmhost.plan.frozen import frozen_since
from vmhost.plan.protection import Measure, Ward

if TYPE_CHECKING:
    from vmhost.model.domains import ObservedDomain
    from vmhost.ops.host import Host

NIGHT: Final = "nightly"
"""What the history calls a night's job."""
_JOBS: Final = 1000
"""Jobs of the history among which a night is looked for: each has several for each guest."""


def ward_of(domain: ObservedDomain) -> Ward:
    """Return a guest with what its site wants of its protection, and since when it is frozen."""
    return Ward(domain.name, domain.uuid, backup_wish(domain), frozen_since(domain))


def measure(host: Host, objective: float, place: str) -> Measure:
    """Return what the guests of a host are held against now.

    :param objective: seconds that a guest's newest point may be old, where its site says nothing else.
    :param place: the host's id in the repository.
    """
    clock = host.ports.clock
    return Measure(clock.now(), objective, place, _woken(host), clock.zone())


def _woken(host: Host) -> float:
    """Return inf where a timer wakes the night's work, also one that is another's, else when a night last ran."""
    if host.ports.hypervisor.daemon().privileged:
        seen = host.ports.timers.state()
        if seen.boot or seen.now or seen.foreign or any(file.path == CRON for file in seen.files):
            return inf
    return max((job.started for job in host.jobs(limit=_JOBS) if job.kind == NIGHT), default=-inf)
