"""How all guests are protected, in one view: against their own objectives, with all that is kept of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from vmhost.engine.observe import observe_domains
from vmhost.model.nightly import Protection
from vmhost.model.objectives import Objectives
from vmhost.plan.applied import applied_spec
from vmhost.plan.objectives import objectives
from vmhost.plan.protection import NO_WISH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vmhost.model.domains import ObservedDomain
    from vmhost.model.drills import DrillRecord
    from vmhost.model.points import Point
    from vmhost.ops.host import Host
    from vmhost.ops.snapshots import SnapshotRow

RPO: Final = 26 * 3600.0
"""Seconds that the newest point may be old where a site says nothing, as ``vmhost nightly status`` has it."""


@dataclass(frozen=True, slots=True)
class Guarded:
    """How a guest is protected. ``objectives`` is None for one that is gone, of which only points are left."""

    uuid: str
    protection: Protection
    objectives: Objectives | None

    @property
    def name(self) -> str:
        """How it is called, or was."""
        return self.protection.name

    @property
    def subject(self) -> str:
        """What a command is to call it: a guest of that name may have come after one that is gone."""
        return self.name if self.objectives else self.uuid


@dataclass(frozen=True, slots=True)
class ProtectionView:
    """What protects the guests of a host.

    ``guests`` are those of vmhost, the worst first, then those that are gone. ``drills`` is the last drill of a point,
    by its guest's UUID and its id. ``now`` is when all this was read (epoch).
    """

    guests: tuple[Guarded, ...] = ()
    points: tuple[Point, ...] = ()
    snapshots: tuple[SnapshotRow, ...] = ()
    drills: Mapping[tuple[str, str], DrillRecord] = field(default_factory=dict)
    now: float = 0.0

    def guest(self, uuid: str) -> Guarded | None:
        """Return a guest, or None: there is nothing of it here."""
        return next((guest for guest in self.guests if guest.uuid == uuid), None)

    def points_of(self, uuid: str) -> tuple[Point, ...]:
        """Return the points of a guest, the newest first; another guest that had its name has none here."""
        found = [point for point in self.points if point.ref.guest == uuid]
        return tuple(sorted(found, key=lambda point: (point.taken, point.generation), reverse=True))


def view_protection(host: Host, *, rpo: float = RPO) -> ProtectionView:
    """Return how all guests are protected, as ``vmhost nightly status`` has it, with all that is kept of them.

    :param rpo: seconds that a guest's newest point may be old, where its site says nothing else.
    :raises Refused: the repository is not mounted, or something else lies at its place.
    """
    ports, backups = host.ports, host.backups
    rows, points, here = backups.nightly.status(objective=rpo), backups.list(), backups.repository().host
    domains = {domain.name: domain for domain in observe_domains(ports.hypervisor) if domain.metadata}
    drills, now = ports.history.drills(), ports.clock.now()
    kept: dict[str, list[Point]] = {}
    for point in points:
        kept.setdefault(point.ref.guest, []).append(point)
    told: dict[str, list[DrillRecord]] = {}
    for drill in drills:
        told.setdefault(drill.guest, []).append(drill)

    def guarded(domain: ObservedDomain, row: Protection) -> Guarded:
        spec, uuid = applied_spec(domain), domain.uuid
        wish = spec.backup if spec and spec.backup else NO_WISH
        return Guarded(uuid, row, objectives(wish, kept.get(uuid, ()), told.get(uuid, ()), now, here, rpo))

    there = [guarded(domains[row.name], row) for row in rows if row.name in domains]
    gone = [_gone(uuid, kept[uuid]) for uuid in kept.keys() - {guest.uuid for guest in there}]
    gone.sort(key=lambda guest: (guest.name, guest.uuid))
    last = {(drill.guest, drill.point): drill for drill in drills}
    return ProtectionView((*there, *gone), points, host.snapshots.list(), last, now)


def _gone(uuid: str, points: Sequence[Point]) -> Guarded:
    """Return what is left of a guest that is not here, or not any more."""
    last = max(points, key=lambda point: point.taken)
    verified = max((point.verified for point in points if not point.damaged), default="")
    row = Protection(last.name, len(points), last.id, -1, last.kind, last.level, verified=verified)
    return Guarded(uuid, row, None)
