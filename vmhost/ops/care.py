"""What is known of a guest's services and points without asking it, for those guests that somebody looks at.

Neither is in a picture of the host: looks are in the history of ``vmhost watch``, points in a repository, which may be
large, far away, or gone. So a thread of its own goes round the guests that are on the screen, and delays nobody.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from vmhost.model.errors import VmhostError

if TYPE_CHECKING:
    from vmhost.model.domains import ObservedDomain
    from vmhost.model.points import Point
    from vmhost.model.services import KeptLook
    from vmhost.ops.host import Host

AGAIN: Final = 30.0
"""Seconds after which what is known of a guest on the screen is read again."""

KEPT: Final = 600.0
"""Seconds after which what is known of a guest that is on the screen no more is forgotten."""

WORTH: Final = 900.0
"""Seconds that a look of the watch is worth something: it may have ended since."""

HANGS: Final = 60.0
"""Seconds after which a round that goes on is one that hangs, as on a repository that is far away."""

SHARE: Final = 20
"""The pause after a round is at least this many times what it cost."""

_PAUSE: Final = 0.5
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Care:
    """What is known of a guest.

    ``up`` and ``down`` are the services whose probes were all good, and not, when the watch last looked; those that it
    did not look at lately are in neither. ``points`` counts its points, -1: the repository cannot be read. ``verified``
    is how old the newest one is that was found whole, in seconds, -1: there is none; ``late``: it is older than the
    guest's site, or else ``nightly status``, lets its newest point be.
    """

    up: frozenset[str] = frozenset()
    down: frozenset[str] = frozenset()
    points: int = -1
    verified: float = -1.0
    late: bool = False


class Rounds:
    """Goes round the guests that somebody looks at; :meth:`run` belongs into a thread of its own."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._known: dict[str, Care] = {}
        self._read_at: dict[str, float] = {}
        self._wanted: dict[str, ObservedDomain] = {}
        self._anew = False
        self._began: float | None = None
        """When the round that goes on began, None: none does."""
        self._end = threading.Event()

    def of(self, domain: ObservedDomain) -> Care | None:
        """Return what is known of a guest, None: nothing yet; it is read soon if that is old. Costs nothing."""
        self._wanted[domain.uuid] = domain
        known, began = self._known.get(domain.uuid), self._began
        if known is not None and began is not None and time.monotonic() - began > HANGS:
            return Care()  # what was true then may have changed since, and nobody can say
        return known

    def forget(self) -> None:
        """Let everything be read again that is wanted: something was done. From any thread."""
        self._anew = True

    @property
    def settled(self) -> bool:
        """Whether all that was asked for was read once, and told."""
        return self._began is None and self._read_at.keys() >= self._wanted.keys()

    def stop(self) -> None:
        """End :meth:`run` soon; from any thread."""
        self._end.set()

    def run(self, tell: Callable[[], None]) -> None:
        """Read what is wanted, and call ``tell`` after each round that read something, until :meth:`stop`."""
        pause = _PAUSE
        while not self._end.wait(pause):
            self._began = began = time.monotonic()
            wanted, self._wanted = self._wanted, {}
            if self._anew:
                self._anew, self._read_at = False, dict.fromkeys(self._read_at, began - AGAIN)
            # A list at once: the thread that draws may be about to add one more to these.
            due = [one for one in list(wanted.values()) if began - self._read_at.get(one.uuid, -AGAIN) >= AGAIN]
            if due:
                self._read_at.update((one.uuid, began) for one in due)
                self._read(due)
                self._drop(began)
                tell()
            self._began = None
            pause = max(_PAUSE, SHARE * (time.monotonic() - began))

    def _read(self, due: Iterable[ObservedDomain]) -> None:
        try:
            self._known.update(read_care(self._host, due))
        except VmhostError as error:
            _log.warning("what is kept of guests: %s", error)
        except Exception:  # noqa: BLE001 - a thread's end would say nothing, and what is known would stay for ever
            _log.exception("what is kept of guests could not be read")

    def _drop(self, now: float) -> None:
        """Forget guests that nobody has looked at for long: they may be gone."""
        for uuid, at in list(self._read_at.items()):
            if now - at > KEPT:
                del self._read_at[uuid]
                self._known.pop(uuid, None)


def read_care(host: Host, domains: Iterable[ObservedDomain]) -> dict[str, Care]:
    """Return what is known of guests, by UUID; what cannot be read is not known."""
    now = host.ledger.clock.now()
    up, down = _services(host, now)
    points = _Points(host)
    return {
        domain.uuid: _care(domain, up.get(domain.uuid, set()), down.get(domain.uuid, set()), points.of(domain), now)
        for domain in domains
    }


def _services(host: Host, now: float) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """Return which services of which guests were good and which were not when the watch last looked."""
    up: dict[str, set[str]] = {}
    down: dict[str, set[str]] = {}
    looks: tuple[KeptLook, ...] = ()
    try:
        looks = host.ledger.history.last_looks(now - WORTH)
    except VmhostError as error:
        _log.warning("looks at services: %s", error)
    for look in looks:
        (up if look.good else down).setdefault(look.guest, set()).add(look.service)
    return up, down


class _Points:
    """The points of single guests; only theirs are read."""

    def __init__(self, host: Host) -> None:
        ports = host.ports  # and not ``host.backups``, which loads what most that look at a list never need
        self._repositories, self._path = ports.repositories, str(ports.layout.backups)
        self._any: bool | None = None
        try:
            self._any = self._repositories.look(self._path, new_id=ports.entropy.uuid()).known
        except VmhostError as error:
            _log.warning("points: %s", error)

    def of(self, domain: ObservedDomain) -> tuple[Point, ...] | None:
        """Return the points of a guest, or None: nobody can say."""
        if not self._any:
            return () if self._any is False else None
        try:
            return self._repositories.points(self._path, domain.uuid)
        except VmhostError as error:
            _log.warning("points of %s: %s", domain.name, error)
            return None


def _care(domain: ObservedDomain, up: set[str], down: set[str], points: tuple[Point, ...] | None, now: float) -> Care:
    found = frozenset(up - down), frozenset(down)
    if points is None:
        return Care(*found)
    from vmhost.plan.choose import whole

    good = [point.taken for point in whole(points) if point.verified]
    if not good:
        return Care(*found, len(points))
    from vmhost.ops.protectionview import RPO
    from vmhost.plan.applied import applied_spec
    from vmhost.plan.due import age_of

    spec = applied_spec(domain)
    limit = (spec.backup.rpo if spec and spec.backup else None) or RPO
    age = age_of(max(good, key=datetime.fromisoformat), now)
    return Care(*found, len(points), age, age > limit)
