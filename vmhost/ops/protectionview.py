"""How all guests are protected, in one view: against their own objectives, with all that is kept of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from vmhost.engine.observe import observe_domains
from vmhost.model.nightly import Protection
from vmhost.model.objectives import Objectives
from vmhost.ops.wards import measure, ward_of
from vmhost.plan.applied import backup_wish
from vmhost.plan.choose import whole
from vmhost.plan.objectives import objectives
from vmhost.plan.protection import protection

if TYPE_CHECKING:
    from vmhost.model.domains import ObservedDomain
    from vmhost.model.drills import DrillRecord
    from vmhost.model.points import Damage, Point, PointRef
    from vmhost.ops.host import Host
    from vmhost.ops.snapshots import SnapshotRow

RPO: Final = 26 * 3600.0
"""Seconds that the newest point may be old where a site says nothing, as ``vmhost nightly status`` has it."""


@dataclass(frozen=True, slots=True)
class Guarded:
    """How a guest is protected. ``objectives`` is None for one that is not a guest of vmhost any more, of which only
    points are left; ``gone``: it is not on this host at all. ``unread`` are its points that cannot be understood.
    """

    uuid: str
    protection: Protection
    objectives: Objectives | None
    gone: bool = False
    unread: tuple[Damage, ...] = ()

    @property
    def name(self) -> str:
        """How it is called, or was."""
        return self.protection.name


@dataclass(frozen=True, slots=True)
class ProtectionView:
    """What protects the guests of a host.

    ``guests`` are those of vmhost, the worst first, then those that are not its guests any more. ``points`` are those
    of each guest by its UUID, the newest first; another guest that had its name has none there. ``whole`` are those
    that are known neither to be damaged nor to lie on such. ``drills`` is the last drill of a point, by its guest's
    UUID and its id. ``now`` is when all this was read (epoch).
    """

    guests: tuple[Guarded, ...] = ()
    points: Mapping[str, Sequence[Point]] = field(default_factory=dict)
    whole: frozenset[PointRef] = frozenset()
    snapshots: tuple[SnapshotRow, ...] = ()
    drills: Mapping[tuple[str, str], DrillRecord] = field(default_factory=dict)
    now: float = 0.0

    def guest(self, uuid: str) -> Guarded | None:
        """Return a guest, or None: there is nothing of it here."""
        return next((guest for guest in self.guests if guest.uuid == uuid), None)


def view_protection(host: Host, *, rpo: float = RPO, only: ObservedDomain | None = None) -> ProtectionView:
    """Return how all guests are protected, as ``vmhost nightly status`` has it, with all that is kept of them.

    :param rpo: seconds that a guest's newest point may be old, where its site says nothing else.
    :param only: one guest, of which alone is read.
    :raises Refused: the repository is not mounted, or something else lies at its place.
    """
    ports, backups = host.ports, host.backups
    domains = (only,) if only else observe_domains(ports.hypervisor)
    ours = {domain.name: domain for domain in domains if domain.metadata}
    there = backups.repository()
    kept: dict[str, list[Point]] = {}
    for point in ports.repositories.points(there.path, only.uuid if only else ""):
        kept.setdefault(point.ref.guest, []).append(point)
    for its in kept.values():
        its.sort(key=lambda point: (point.taken, point.generation), reverse=True)
    unread: dict[str, list[Damage]] = {}
    for damage in backups.damaged(only.uuid if only else ""):
        unread.setdefault(damage.holds, []).append(damage)
    drills, held = ports.history.drills(), measure(host, rpo, there.host)
    now = held.now
    told: dict[str, list[DrillRecord]] = {}
    for drill in drills:
        told.setdefault(drill.guest, []).append(drill)

    def guarded(domain: ObservedDomain, row: Protection) -> Guarded:
        uuid = domain.uuid
        wish, its = backup_wish(domain), kept.get(uuid, ())
        wants = objectives(wish, its, told.get(uuid, ()), now, there.host, rpo, local=held.local)
        return Guarded(uuid, row, wants, unread=tuple(unread.get(uuid, ())))

    wards = [ward_of(domain) for domain in ours.values()]
    points = [point for its in kept.values() for point in its]
    damages = [damage for its in unread.values() for damage in its]
    rows = protection(wards, points, held, drills, damages)
    guests = [guarded(ours[row.name], row) for row in rows]
    others = {domain.uuid: domain.name for domain in domains if not domain.metadata}
    left = [
        Guarded(uuid, _left(kept[uuid], others.get(uuid, "")), None, uuid not in others, tuple(unread.get(uuid, ())))
        for uuid in kept.keys() - {guest.uuid for guest in guests}
    ]
    left.sort(key=lambda guest: (guest.name, guest.uuid))
    last = {(drill.guest, drill.point): drill for drill in drills}
    snapshots = host.snapshots.list(only.name if only else "")
    good = frozenset(point.ref for point in whole(points))
    return ProtectionView((*guests, *left), kept, good, snapshots, last, now)


def _left(points: Sequence[Point], name: str) -> Protection:
    """Return what is left of a guest that is not one of vmhost, or not any more; ``name``: as it is called now."""
    last = points[0]
    verified = max((point.verified for point in whole(points)), default="")
    return Protection(name or last.name, len(points), last.id, -1, last.kind, last.level, verified=verified)
