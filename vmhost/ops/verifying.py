"""Points read back, as one job that tells of each damage when it is found."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import inf
from typing import TYPE_CHECKING, Final

from vmhost.model.errors import Absent, Cancelled, Conflict, DamagedData, DriverError
from vmhost.model.events import Event, Notice, Progress
from vmhost.model.points import Damage, Point, PointRef, beneath
from vmhost.model.reservations import iso
from vmhost.ops.jobs import Job

if TYPE_CHECKING:
    from vmhost.backupports import Tell
    from vmhost.ports import Ports

LATELY: Final = 7 * 86400.0
"""Seconds for which what a new point lies on need not be read again: else each hour's point would cost a whole disk."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What became of the verification of one point; ``gone``: it was deleted before all of it was read."""

    point: Point
    damages: tuple[Damage, ...] = ()
    gone: bool = False


def verify_points(
    ports: Ports,
    points: Sequence[Point],
    subject: str,
    on_event: Callable[[Event], None] | None,
    cancelled: Callable[[], bool] | None,
    *,
    lately: float = 0.0,
) -> tuple[Verified, ...]:
    """Read every byte of points and of what they lie on, each once, and note what came of it beside them.

    Points that are deleted meanwhile, as by a prune, are told and hinder nobody.

    :param subject: what the job is about.
    :param lately: seconds; what the points lie on is not read again if it was found whole no longer ago than that.
    :raises Cancelled: it was asked to end; what was damaged by then is said.
    """
    found: list[Verified] = []
    with Job(ports, "backup verify", subject, on_event, cancelled) as job:
        reading = _Reading(ports, job, lately)
        try:
            for number, point in enumerate(points, 1):
                which = f"{number} of {len(points)}, " if len(points) > 1 else ""
                found.append(reading.verify(point, which))
        except Cancelled as error:
            if (damages := damages_in(found)) is None:
                raise
            raise Cancelled(f"cancelled; of those read by then {damages.message}", hint=error.hint) from error
        if (damages := damages_in(found)) is not None:
            job.fail(damages)
    return tuple(found)


class _Reading:
    """What one job reads: no point twice, however many lie on it."""

    def __init__(self, ports: Ports, job: Job, lately: float) -> None:
        self._ports = ports
        self._job = job
        self._lately = lately
        self._read: dict[PointRef, tuple[Damage, ...]] = {}
        self._there: dict[tuple[str, str], Mapping[PointRef, Point]] = {}

    def verify(self, point: Point, which: str) -> Verified:
        """Return what is wrong with a point and what it lies on, and note it; ``which`` of how many it is."""
        repositories = self._ports.repositories
        links = _links(point, self._beside(point.ref))
        lately = {one.ref for one in links[1:] if self._was_read_lately(one)}
        known = lately.union(one.ref for one in links if one.ref in self._read)
        try:
            found = repositories.verify(point.ref, self._teller(point, which), {ref.id for ref in known})
        except Absent:
            if self._is_there(point):
                raise
            return self._gone(point)
        if found and not self._is_there(point):
            return self._gone(point)
        before = (damage for one in links for damage in self._read.get(one.ref, ()))
        damages = tuple(dict.fromkeys((*found, *before)))
        for damage in damages:
            self._job.tell(Notice(point.name, f"{point.id}: DAMAGED: {damage}"))
        self._note_all(point, links, damages, known)
        return Verified(point, damages)

    def _beside(self, ref: PointRef) -> Mapping[PointRef, Point]:
        """Return the points of a guest as they were when this job first met one: each manifest is read once."""
        place = (ref.repository, ref.guest)
        if place not in self._there:
            self._there[place] = {one.ref: one for one in self._ports.repositories.points(*place)}
        return self._there[place]

    def _note_all(
        self, point: Point, links: Sequence[Point], damages: Sequence[Damage], known: Collection[PointRef]
    ) -> None:
        bad = False
        for one in reversed(links):
            its = tuple(damage for damage in damages if damage.point == one.id)
            bad = bad or bool(its)
            if one.ref not in known:
                self._read[one.ref] = its
            if one.ref not in known or one is point:
                self._note(one, bad=bad)

    def _is_there(self, point: Point) -> bool:
        """Whether a point is one still, also one whose manifest cannot be understood."""
        path, guest = point.ref.repository, point.ref.guest
        repositories = self._ports.repositories
        there = {one.ref for one in repositories.points(path, guest)}
        return point.ref in there or any(damage.point == point.id for damage in repositories.damaged(path, guest))

    def _gone(self, point: Point) -> Verified:
        self._job.tell(Notice(point.name, f"{point.id}: was deleted meanwhile, so it is not verified"))
        return Verified(point, gone=True)

    def _was_read_lately(self, point: Point) -> bool:
        return bool(point.verified) and not point.damaged and self._age(point.verified) < self._lately

    def _age(self, time: str) -> float:
        """Return how many seconds ago a time was; one that is yet to come, when the clock was wrong, is long ago."""
        age = self._ports.clock.now() - datetime.fromisoformat(time).timestamp()
        return age if age >= 0 else inf

    def _teller(self, point: Point, which: str) -> Tell:
        clock = self._ports.clock
        began = clock.monotonic()

        def tell(done: int, total: int) -> None:
            seconds = clock.monotonic() - began
            rate = done / seconds if seconds > 0 else 0.0
            self._job.tell(Progress(point.name, f"verify {which}{point.id}", done, total, rate))
            if self._job.cancelled():
                raise Cancelled("cancelled", hint="vmhost job list")

        return tell

    def _note(self, point: Point, *, bad: bool) -> None:
        """Note beside a point whether it is whole with all that it lies on."""
        verified = "" if bad else iso(self._ports.clock.now())
        try:
            self._ports.repositories.note(point.ref, verified=verified, damaged=bad)
        except (DriverError, DamagedData, Conflict) as error:
            # a repository that cannot be written to can be verified all the same
            self._job.tell(Notice(point.name, f"{point.id}: the outcome could not be noted: {error}"))


def _links(point: Point, there: Mapping[PointRef, Point]) -> tuple[Point, ...]:
    """Return a point and all that it lies on; itself alone if not all of that is there, since then nobody reads it."""
    links = (point, *beneath(point, there))
    return (point,) if links[-1].parent else links


def raise_damages(found: Sequence[Verified], more: Sequence[Damage]) -> None:
    """Return when nothing is damaged. :raises DamagedData: it is; what exactly was told before."""
    if (error := damages_in(found, more)) is not None:
        raise error


def damages_in(found: Sequence[Verified], more: Sequence[Damage] = ()) -> DamagedData | None:
    """Return the error that says that something is damaged, or None: nothing is."""
    bad = [item.point.id for item in found if item.damages]
    if not bad and not more:
        return None
    text = f"{len(bad)} of {len(found)} points are damaged" if bad else "the repository is damaged"
    return DamagedData(text, subject="backup", hint="vmhost backup list")
