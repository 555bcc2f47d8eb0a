"""Services inside guests: who they are, what was found there, how they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final


@dataclass(frozen=True, slots=True)
class DeployedService:
    """A service that was deployed into a guest, as the guest's metadata tells.

    ``sha256`` is that of ``state``, the desired state as JSON without texts and secrets; ``deployed`` is the time of
    the last deployment (ISO 8601, UTC), ``user`` who did it. ``stopped``: a person stopped it since. ``roll`` names
    what a rolling change that is under way goes to.
    """

    name: str
    version: str
    env: str
    sha256: str
    state: str
    deployed: str = ""
    user: str = ""
    stopped: bool = False
    roll: str = ""


@dataclass(frozen=True, slots=True)
class PathFact:
    """What lies at a path: ``kind`` is ``file``, ``directory``, ``symlink`` or ``other``; ``mode`` has four digits.

    ``target`` is where a symbolic link leads.
    """

    kind: str
    mode: str
    owner: str
    size: int = 0
    sha256: str = ""
    target: str = ""


@dataclass(frozen=True, slots=True)
class UnitFact:
    """A unit as systemd tells it; ``since`` is when its state was entered, in systemd's words."""

    name: str
    load: str = "not-found"
    active: str = "inactive"
    sub: str = "dead"
    enabled: str = ""
    pid: int = 0
    restarts: int = 0
    result: str = ""
    since: str = ""
    stale: bool = False

    @property
    def there(self) -> bool:
        """Whether systemd knows such a unit."""
        return self.load not in ("not-found", "")


@dataclass(frozen=True, slots=True)
class GuestFacts:
    """What was found in a guest, of that which was asked for; what is not there is missing from the mappings.

    ``packages`` maps names to installed versions, empty where only the configuration is left, ``groups`` names to
    numbers, ``users`` names to their line of passwd(5), ``texts`` paths to contents. ``manifest`` is what an earlier
    deployment left, or empty.
    """

    packages: Mapping[str, str] = field(default_factory=dict)
    paths: Mapping[str, PathFact] = field(default_factory=dict)
    users: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    groups: Mapping[str, int] = field(default_factory=dict)
    sysctl: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, UnitFact] = field(default_factory=dict)
    texts: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    manifest: str = ""


class Health(StrEnum):
    """How a service is by its probes: ``starting`` in its start period, ``unknown`` where nobody looked."""

    UP = "up"
    DOWN = "down"
    STARTING = "starting"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Look:
    """One look of a probe. ``seconds`` is how long it took, ``at`` when it was (epoch)."""

    probe: str
    good: bool
    text: str
    seconds: float
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class KeptLook:
    """A look of the watch as it is kept: ``guest`` is a UUID, ``text`` is kept of bad ones only."""

    guest: str
    service: str
    probe: str
    at: float
    good: bool
    seconds: float
    text: str = ""


@dataclass(frozen=True, slots=True)
class ProbeHistory:
    """What the looks of a probe that are kept come to.

    ``since`` is the first of them (epoch). ``median``, ``tail`` (95 of 100 took no longer) and ``most`` are seconds of
    good looks, None without any. ``last_bad`` and ``text`` are of the last bad one. ``latest`` are all of them, the
    newest last, None for bad ones.
    """

    service: str
    guest: str
    probe: str
    looks: int
    bad: int
    since: float
    median: float | None
    tail: float | None
    most: float | None
    last_bad: float | None = None
    text: str = ""
    latest: tuple[float | None, ...] = ()


@dataclass(frozen=True, slots=True)
class ServiceDrift:
    """Something of a service that is not as it was deployed."""

    guest: str
    service: str
    what: str
    want: str
    have: str

    def __str__(self) -> str:
        return (
            f"{self.guest}: {self.service}: {self.what} is {self.have or 'absent'}, should be {self.want or 'absent'}"
        )


@dataclass(frozen=True, slots=True)
class ServiceRow:
    """A service in a guest, as a listing shows it. ``since`` is when its unit came into its state,
    ``roll`` where a rolling change that is under way goes to.
    """

    service: str
    guest: str
    version: str
    env: str
    unit: str = ""
    state: str = ""
    since: str = ""
    health: Health = Health.UNKNOWN
    looks: tuple[Look, ...] = ()
    drift: tuple[ServiceDrift, ...] = ()
    roll: str = ""
    error: str = ""


MOST_AT_ONCE: Final = 1000
"""Guests of a rolling change that may go first, go side by side, or be away."""


@dataclass(frozen=True, slots=True)
class Rolling:
    """How a group is changed: ``canary`` guests first, one by one, then ``batch`` by ``batch``; never are more than
    ``unavailable`` away at once.
    """

    canary: int = 1
    batch: int = 1
    unavailable: int = 1
