"""What vmhost asks of the host's kernel: processors, guests, time. The same rules as in :mod:`vmhost.ports` hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from datetime import tzinfo

    from vmhost.model.stats import LinkLoad
    from vmhost.model.tuning import Held


class Kernel(Protocol):
    """What the host's kernel says of its processors and of the guests that run; it is asked, never told."""

    def processors(self) -> Mapping[str, str]:
        """Files about CPUs and hugepages below ``/sys/devices/system`` by their path; what is not there is missing."""

    def held(self) -> Mapping[str, Held]:
        """Every guest that runs here, by UUID: where its threads may run and what limits its groups."""

    def pressure(self) -> Mapping[str, float]:
        """Percent of the last ten seconds in which something waited for ``cpu``, ``memory`` or ``io``; what the kernel
        does not tell is missing.
        """

    def traffic(self) -> Mapping[str, LinkLoad]:
        """What the network cards and bonds that tell their speed have carried so far, by name."""


class Clock(Protocol):
    """Time."""

    def now(self) -> float:
        """Seconds since the epoch, UTC."""

    def monotonic(self) -> float: ...
    def zone(self) -> tzinfo:
        """The time zone of this machine."""
