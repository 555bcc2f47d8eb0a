"""Points read back, as one job that tells of each damage when it is found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vmhost.model.errors import Cancelled, Conflict, DamagedData, DriverError
from vmhost.model.events import Event, Notice, Progress
from vmhost.model.points import Damage, Point
from vmhost.model.reservations import iso
from vmhost.ops.jobs import Job

if TYPE_CHECKING:
    from vmhost.ports import Ports


@dataclass(frozen=True, slots=True)
class Verified:
    """What became of the verification of one point."""

    point: Point
    damages: tuple[Damage, ...] = ()


def verify_points(
    ports: Ports,
    points: Sequence[Point],
    subject: str,
    on_event: Callable[[Event], None] | None,
    cancelled: Callable[[], bool] | None,
) -> tuple[Verified, ...]:
    """Read every byte of points and of what they lie on, and note what came of it beside them.

    :param subject: what the job is about. :raises Cancelled: it was asked to end; what was damaged by then is said.
    """
    found: list[Verified] = []
    with Job(ports, "backup verify", subject, on_event, cancelled) as job:
        try:
            for number, point in enumerate(points, 1):
                which = f"{number} of {len(points)}, " if len(points) > 1 else ""
                found.append(_verify(ports, point, job, which))
        except Cancelled as error:
            if (damages := damages_in(found)) is None:
                raise
            raise Cancelled(f"cancelled; of those read by then {damages.message}", hint=error.hint) from error
        if (damages := damages_in(found)) is not None:
            job.fail(damages)
    return tuple(found)


def _verify(ports: Ports, point: Point, job: Job, which: str) -> Verified:
    clock = ports.clock
    began = clock.monotonic()

    def tell(done: int, total: int) -> None:
        seconds = clock.monotonic() - began
        rate = done / seconds if seconds > 0 else 0.0
        job.tell(Progress(point.name, f"verify {which}{point.id}", done, total, rate))
        if job.cancelled():
            raise Cancelled("cancelled", hint="vmhost job list")

    damages = ports.repositories.verify(point.ref, tell)
    for damage in damages:
        job.tell(Notice(point.name, f"{point.id}: DAMAGED: {damage}"))
    found = "" if damages else iso(clock.now())
    try:
        ports.repositories.note(point.ref, verified=found, damaged=bool(damages))
    except (DriverError, DamagedData, Conflict) as error:
        # a repository that cannot be written to can be verified all the same
        job.tell(Notice(point.name, f"{point.id}: the outcome could not be noted: {error}"))
    return Verified(point, damages)


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
