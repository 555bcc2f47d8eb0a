"""The night's work: each guest gets a point that is read back, and old points go; one that fails stops nobody."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from importlib.util import find_spec
from shlex import quote
from typing import TYPE_CHECKING, Final

from vmhost.drivers.command import CommandFailed
from vmhost.drivers.command import run as run_program
from vmhost.model.errors import Absent, Cancelled, Conflict, PartlyDone, UsageError, VmhostError
from vmhost.model.events import Event, Notice
from vmhost.model.nightly import GuestNight, Night, Protection
from vmhost.model.reservations import iso
from vmhost.ops.jobs import Job
from vmhost.plan.protection import protection
from vmhost.render.nightunits import TIMER, cron_line, units

if TYPE_CHECKING:
    from pathlib import Path

    from vmhost.model.retention import Keep
    from vmhost.ops.host import Host

OPERATION: Final = "nightly"
Listener = Callable[[Event], None]


class Nightly:
    """The nightly job of one host."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def run(
        self,
        names: Sequence[str] = (),
        *,
        keep: Keep | None = None,
        repository: str | None = None,
        on_event: Listener | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Night:
        """Take a point of each guest, read it back, and let old ones go, whatever becomes of the other guests.

        :param names: empty: all guests of vmhost.
        :param keep: None: what each guest's site says (``backup: {keep: ...}``); without that all its points stay.
        :raises Conflict: another night is at work.
        """
        ports = self._host.ports
        chosen = list(dict.fromkeys(names)) or [row.name for row in self._host.guests() if row.site]
        started, done = iso(ports.clock.now()), list[GuestNight]()
        ended = ""
        try:
            with Job(ports, OPERATION, " ".join(chosen), on_event, cancelled) as job:
                self._refuse_overlap(job.id)
                for name in chosen:
                    if job.cancelled():
                        raise Cancelled("cancelled", hint="vmhost nightly status")
                    guest, error = self._guest(name, keep, repository, job)
                    done.append(guest)
                    job.tell(Notice(name, str(guest).removeprefix(f"{name}: ")))
                    if isinstance(error, Cancelled):
                        raise error
        except Cancelled:  # the job has ended as a cancelled one; what was done is reported all the same
            ended = f"cancelled; {sum(not guest.failed for guest in done)} of {len(chosen)} guests are done"
        return Night(started, iso(ports.clock.now()), tuple(done), ended)

    def status(self, *, objective: float, repository: str | None = None) -> tuple[Protection, ...]:
        """Return how the guests of vmhost are protected, the worst first.

        :param objective: seconds that a guest's newest point may be old.
        """
        guests = [(row.name, row.uuid) for row in self._host.guests() if row.site]
        points, place = self._host.backups.list(repository=repository), self._host.backups.repository(repository)
        return tuple(protection(guests, points, self._host.ports.clock.now(), objective, place.host))

    def _guest(
        self, name: str, keep: Keep | None, repository: str | None, job: Job
    ) -> tuple[GuestNight, VmhostError | None]:
        """Return what became of a guest, and the error that kept it from more."""
        clock, backups = self._host.ports.clock, self._host.backups
        began, step, done = clock.monotonic(), "backup", GuestNight(name)
        try:
            (result,) = backups.run([name], repository=repository, on_event=job.tell, cancelled=job.cancelled)
            if result.error is not None or result.point is None:
                raise result.error or VmhostError("there is no new point")
            point = result.point
            done = GuestNight(name, point.id, point.kind, point.size)
            step = "verify"
            (found,) = backups.verify_points((point,), name, cancelled=job.cancelled)
            if found.damages:
                raise VmhostError(f"the new point is damaged: {found.damages[0]}")
            done = GuestNight(name, point.id, point.kind, point.size, verified=True)
            step = "prune"
            pruning = backups.plan_prune([point.ref.guest], keep, repository=repository)
            self._host.apply(pruning, on_event=job.tell, cancelled=job.cancelled)
            count = len(pruning.plan.after)
        except VmhostError as error:
            text, seconds = error.message, clock.monotonic() - began
            return replace(done, seconds=seconds, failed=step, error=text), error
        return replace(done, pruned=count, seconds=clock.monotonic() - began), None

    def _refuse_overlap(self, mine: str) -> None:
        """:raises Conflict: a night that began before this one is still at work."""
        nights = [job for job in self._host.jobs() if job.kind == OPERATION and job.state == "running"]
        first = min(nights, key=lambda job: (job.started, job.id), default=None)
        if first is not None and first.id != mine:
            raise Conflict("another night is at work", subject=first.id, hint=f"vmhost job show {first.id}")


def timer_texts(argv: Sequence[str], at: str, on_failure: str = "", *, cron: bool = False) -> Mapping[str, str]:
    """Return what starts the night's work, by the names of the files that it belongs into.

    :raises UsageError: ``at`` is no time that systemd, where it is here, or cron understands.
    """
    if cron:
        return {"/etc/cron.d/vmhost-nightly": cron_line(argv, at)}
    found = units(argv, at, on_failure)
    calendar = next(line for line in found[TIMER].splitlines() if line.startswith("OnCalendar="))
    try:
        run_program(("systemd-analyze", "calendar", "--", calendar.removeprefix("OnCalendar=")), timeout=30)
    except Absent:
        pass  # whoever has no systemd here may still write units for elsewhere
    except CommandFailed as error:
        text = "systemd does not understand this time"
        raise UsageError(
            text, subject=at, hint="vmhost nightly units --at 22:00, or systemd-analyze calendar"
        ) from error
    return {f"/etc/systemd/system/{name}": text for name, text in found.items()}


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
        "success": ("1: the guest has a new, verified point of the last night", lambda g: float(not g.failed)),
        "duration_seconds": ("How long the guest took", lambda g: g.seconds),
        "point_bytes": ("Size of the guest's new point", lambda g: float(g.size)),
        "pruned_points": ("Points of the guest that were deleted", lambda g: float(g.pruned)),
    }
    for name, (text, value) in texts.items():
        gauge = Gauge(f"vmhost_nightly_{name}", text, ["guest"], registry=registry)
        for guest in night.guests:
            gauge.labels(guest.name).set(value(guest))  # type: ignore[no-untyped-call]
    try:
        write_to_textfile(str(path), registry)
    except OSError as error:
        raise UsageError(
            f"cannot be written: {error.strerror}", subject=str(path), hint=f"ls -ld {quote(str(path.parent))}"
        ) from error
