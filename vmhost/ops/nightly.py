"""The night's work: each guest gets a point that is read back, and old points go; one that fails stops nobody."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from importlib.util import find_spec
from shlex import quote
from typing import TYPE_CHECKING

from vmhost.engine.observe import observe_domains
from vmhost.model.domains import meant
from vmhost.model.errors import Cancelled, Conflict, DamagedData, DriverError, PartlyDone, UsageError, VmhostError
from vmhost.model.events import Event, Notice
from vmhost.model.nightly import GuestNight, Night, Protection
from vmhost.model.reservations import iso
from vmhost.ops import outcomes
from vmhost.ops.jobs import Job
from vmhost.ops.verifying import LATELY, verify_points
from vmhost.ops.wards import NIGHT, measure, ward_of
from vmhost.plan.applied import backup_wish
from vmhost.plan.due import Due, due
from vmhost.plan.protection import protection
from vmhost.plan.prune import ALL_STAY
from vmhost.plan.turnofdrills import last_drills

if TYPE_CHECKING:
    from pathlib import Path

    from vmhost.model.points import Point
    from vmhost.model.retention import Keep
    from vmhost.ops.host import Host
    from vmhost.ops.nightwakes import Waking
    from vmhost.ops.proposals import Proposal

_log = logging.getLogger("vmhost.nightly")
Listener = Callable[[Event], None]


class Nightly:
    """The nightly job of one host."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def run(
        self,
        names: Sequence[str] = (),
        *,
        at: str | None = None,
        keep: Keep | None = None,
        repository: str | None = None,
        on_event: Listener | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Night:
        """Do what is due of each guest: a point, which is read back, old ones go, a drill; one that fails stops nobody.

        :param names: guests that get a point in any case; empty: all guests of vmhost, each if one is due by what its
            site says (``backup: {every: 4h}``).
        :param at: when guests have their turn whose sites say nothing, as a calendar event; None: every time.
        :param keep: None: what each guest's site says (``backup: {keep: ...}``); without that all its points stay.
        :raises Conflict: another night is at work.
        """
        ports = self._host.ports
        chosen = list(dict.fromkeys(names)) or [row.name for row in self._host.guests() if row.site]
        started, done = iso(ports.clock.now()), list[GuestNight]()
        ended = ""
        try:
            with Job(ports, NIGHT, " ".join(chosen), on_event, cancelled) as job:
                self._refuse_overlap(job.id)
                for name in chosen:
                    if job.cancelled():
                        raise Cancelled("cancelled", hint="vmhost nightly status")
                    guest, error = self._guest(name, at, bool(names), keep, repository, job)
                    done.append(guest)
                    job.tell(Notice(name, str(guest).removeprefix(f"{name}: ")))
                    if isinstance(error, Cancelled):
                        raise error
        except Cancelled:  # the job has ended as a cancelled one; what was done is reported all the same
            ended = f"cancelled; {sum(not guest.failed for guest in done)} of {len(chosen)} guests are done"
        return Night(started, iso(ports.clock.now()), tuple(done), ended)

    def status(self, *, objective: float, repository: str | None = None) -> tuple[Protection, ...]:
        """Return how the guests of vmhost are protected, the worst first.

        :param objective: seconds that a guest's newest point may be old, where its site says nothing else.
        """
        ports, backups = self._host.ports, self._host.backups
        wards = [ward_of(domain) for domain in observe_domains(ports.hypervisor) if domain.metadata]
        points, place = backups.list(repository=repository), backups.repository(repository)
        held = measure(self._host, objective, place.host)
        return tuple(protection(wards, points, held, ports.history.drills(), backups.damaged(repository=repository)))

    def plan_install(self, waking: Waking) -> Proposal:
        """Return what would be written and started to wake the night's work by itself; see :func:`propose_install`."""
        from vmhost.ops.nightwakes import propose_install

        return propose_install(self._host, waking)

    def plan_remove(self) -> Proposal:
        """Return what would be stopped and deleted of what wakes the night's work; foreign files stay."""
        from vmhost.ops.nightwakes import propose_remove

        return propose_remove(self._host)

    def _due(self, name: str, at: str | None, asked: bool, repository: str | None) -> Due:
        """Return what is due of a guest; one that was asked for by name gets a point in any case."""
        ports = self._host.ports
        domain = meant(name, observe_domains(ports.hypervisor))
        if domain is None:
            return Due()
        place = self._host.backups.repository(repository)
        points = ports.repositories.points(place.path, domain.uuid) if place.known else ()
        wish, now, zone = backup_wish(domain), ports.clock.now(), ports.clock.zone()
        try:
            last, known = last_drills(ports.history.drills()).get(domain.uuid), True
        except DriverError as error:  # points matter more than what became of drills
            _log.warning("no drill is due, since nobody knows of the last ones: %s", error)
            last, known = None, False
        found = due(wish, points, last, now, place.host, local=zone, otherwise=at)
        return replace(found, point=found.point or found.full or asked, drill=found.drill and known)

    def _guest(
        self, name: str, at: str | None, asked: bool, keep: Keep | None, repository: str | None, job: Job
    ) -> tuple[GuestNight, VmhostError | None]:
        """Return what became of a guest, and the error that kept it from more."""
        clock = self._host.ports.clock
        began = clock.monotonic()
        try:
            owed = self._due(name, at, asked, repository)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this guest's
            failure = outcomes.as_failure(error, name)
            return GuestNight(name, failed="look", error=failure.message), failure
        turn = _Turn(self._host, GuestNight(name), owed, keep, repository, job)
        steps = [("backup", turn.back_up), ("verify", turn.verify), ("prune", turn.prune)] if owed.point else []
        steps += [("drill", turn.drill)] if owed.drill else []
        for step, act in steps:
            try:
                act()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is this guest's
                failure, seconds = outcomes.as_failure(error, name), clock.monotonic() - began
                return replace(turn.done, seconds=seconds, failed=step, error=failure.message), failure
        done = replace(turn.done, seconds=clock.monotonic() - began)
        if turn.late is not None:  # the point is good, and its guest, or what is kept of it, needs somebody
            step, late = turn.late
            return replace(done, failed=step, error=late.message), late
        return done, None

    def _refuse_overlap(self, mine: str) -> None:
        """:raises Conflict: a night that began before this one is still at work."""
        nights = [job for job in self._host.jobs() if job.kind == NIGHT and job.state == "running"]
        first = min(nights, key=lambda job: (job.started, job.id), default=None)
        if first is not None and first.id != mine:
            raise Conflict("another night is at work", subject=first.id, hint=f"vmhost job show {first.id}")


@dataclass
class _Turn:
    """One guest's turn: what it is owed, and what of that is done."""

    host: Host
    done: GuestNight
    owed: Due
    keep: Keep | None
    repository: str | None
    job: Job
    point: Point | None = None
    late: tuple[str, VmhostError] | None = None

    def back_up(self) -> None:
        job, name = self.job, self.done.name
        (result,) = self.host.backups.run(
            [name], full=self.owed.full, repository=self.repository, on_event=job.tell, cancelled=job.cancelled
        )
        if result.point is None:
            raise result.error or VmhostError("there is no new point")
        self.late = ("backup", result.error) if result.error else None
        self.point = result.point
        self.done = GuestNight(name, self.point.id, self.point.kind, self.point.size)

    def verify(self) -> None:
        assert self.point is not None
        (found,) = verify_points(
            self.host.ports, (self.point,), self.done.name, None, self.job.cancelled, lately=LATELY
        )
        if found.gone:
            raise VmhostError("the new point was deleted meanwhile")
        if found.damages:
            raise VmhostError(f"the new point is damaged: {found.damages[0]}")
        self.done = replace(self.done, verified=True)

    def prune(self) -> None:
        assert self.point is not None
        pruning = self.host.backups.plan_prune([self.point.ref.guest], self.keep, repository=self.repository)
        self.host.apply(pruning, on_event=self.job.tell, cancelled=self.job.cancelled)
        self.done = replace(self.done, pruned=len(pruning.plan.after))
        stays = next((note.text for note in pruning.plan.notes if note.text.startswith(ALL_STAY)), "")
        if stays and self.late is None:
            self.late = ("prune", DamagedData(stays, subject=self.done.name, hint="vmhost backup list"))

    def drill(self) -> None:
        (result,) = self.host.backups.drills.run(
            [self.done.name], repository=self.repository, on_event=self.job.tell, cancelled=self.job.cancelled
        )
        if result.error is not None or result.drill is None:
            raise result.error or VmhostError("there was no drill")
        text = f"{result.drill.point} came back after {result.drill.rto:.1f} s"
        self.done = replace(self.done, drilled=text)


def raise_failures(night: Night) -> None:
    """Return when all went well. :raises PartlyDone: something failed; :raises Cancelled: it was ended early."""
    if night.cancelled:
        raise Cancelled(night.cancelled, hint="vmhost nightly status")
    if night.failures:
        failures = {guest.name: VmhostError(f"{guest.failed}: {guest.error}") for guest in night.failures}
        text = f"{len(failures)} of {len(night.guests)} guests failed"
        raise PartlyDone(text, failures=failures, hint="vmhost nightly status")


def check_metrics(path: Path) -> None:
    """Return when a night may be written there, which is asked before its work is done.

    :raises UsageError: the library for it is not installed, or the file could not be written.
    """
    if find_spec("prometheus_client") is None:
        raise UsageError("metrics need a library", subject=str(path), hint="pip install 'vmhost[metrics]'")
    if path.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
        raise UsageError("cannot be written", subject=str(path), hint=f"ls -ld {quote(str(path.parent))}")


def write_metrics(night: Night, path: Path) -> None:
    """Write a night as a file for node_exporter's textfile collector, all at once.

    :raises UsageError: as :func:`check_metrics` says.
    """
    check_metrics(path)
    from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

    registry = CollectorRegistry()
    ended = Gauge("vmhost_nightly_end_timestamp_seconds", "When the last night ended", registry=registry)
    ended.set(datetime.fromisoformat(night.ended).timestamp())
    texts = {
        "success": ("1: what was due of the guest in the last night was done", lambda g: float(not g.failed)),
        "duration_seconds": ("How long the guest took", lambda g: g.seconds),
        "point_bytes": ("Size of the guest's new point", lambda g: float(g.size)),
        "pruned_points": ("Points of the guest that were deleted", lambda g: float(g.pruned)),
    }
    for name, (text, value) in texts.items():
        gauge = Gauge(f"vmhost_nightly_{name}", text, ["guest"], registry=registry)
        for guest in night.guests:
            if name == "point_bytes" and not guest.point:
                continue  # none was due, or none was taken
            gauge.labels(guest.name).set(value(guest))  # type: ignore[no-untyped-call]
    try:
        write_to_textfile(str(path), registry)
    except OSError as error:
        raise UsageError(
            f"cannot be written: {error.strerror}", subject=str(path), hint=f"ls -ld {quote(str(path.parent))}"
        ) from error
