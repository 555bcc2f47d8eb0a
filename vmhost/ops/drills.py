"""Drills: points of guests booted in a network that leads nowhere, looked at, and taken away to the last file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from vmhost.engine.observe import observe
from vmhost.model.drills import DrillRecord, SeeDrill
from vmhost.model.errors import DrillFailed, GuestError, Refused, VmhostError
from vmhost.model.events import Event, StepDone, StepStarted
from vmhost.model.plan import Plan
from vmhost.model.reservations import iso
from vmhost.ops import outcomes
from vmhost.ops.apply import apply_proposal
from vmhost.ops.backups import QEMU_SOCKETS, observe_privileged
from vmhost.ops.hostfile import host_spec
from vmhost.ops.proposals import Proposal
from vmhost.ops.verifying import LATELY, verify_points
from vmhost.plan.choose import Pick, pick_point
from vmhost.plan.drill import DrillRequest, plan_drill, user_macs
from vmhost.plan.turnofdrills import Turn, turns

if TYPE_CHECKING:
    from vmhost.model.observed import Observed
    from vmhost.model.points import Point
    from vmhost.ops.host import Host
    from vmhost.ports import Ports

TAIL = 12
"""Lines of the console that a drill keeps."""

Listener = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class DrillResult:
    """What became of one guest: its drill, the error that kept it from one or ended it, or why it had no turn."""

    name: str
    drill: DrillRecord | None = None
    skipped: str = ""
    error: VmhostError | None = field(default=None, compare=False)


class Drills:
    """The drills of one host."""

    def __init__(self, host: Host) -> None:
        self._host = host

    @property
    def _ports(self) -> Ports:
        return self._host.ports

    def history(self) -> tuple[DrillRecord, ...]:
        """Return what became of earlier drills, the oldest first."""
        return self._ports.history.drills()

    def plan(self, name: str, *, point: str = "", pick: Pick = "newest", repository: str | None = None) -> Proposal:
        """Return what would be done to drill a point of a guest, which may be gone; nothing is changed.

        :param point: its id or time, or how these begin; empty: the one that ``pick`` says.
        :raises NotFound: no such point; :raises NoCapacity: there is no memory for it; :raises Refused: nobody knows by
            what to see that the guest is there.
        """
        return self._propose(self._point(name, point, pick, repository))

    def run(
        self,
        names: Sequence[str],
        *,
        point: str = "",
        pick: Pick = "newest",
        repository: str | None = None,
        on_event: Listener | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> tuple[DrillResult, ...]:
        """Drill a point of each guest, one after another; one that fails does not stop the others.

        The point is read back first, then booted from an overlay; of the repository only the note
        that it was read back is written.
        """
        return tuple(self._one(name, point, pick, repository, on_event, cancelled) for name in dict.fromkeys(names))

    def oldest_first(
        self,
        *,
        budget: float,
        pick: Pick = "newest",
        repository: str | None = None,
        on_event: Listener | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> tuple[DrillResult, ...]:
        """Drill the guests of vmhost that have points: first those that never were, then the longest ago.

        :param budget: seconds; a drill is left for another time when they are over, or what the guest's last one took
            in all, whatever became of it, would not fit into the rest. Where it would never fit, that is an error.
        """
        points = self._host.backups.list(repository=repository)
        living = {row.uuid: row.name for row in self._host.guests() if row.site}
        guests = {uuid: name for uuid, name in living.items() if any(point.ref.guest == uuid for point in points)}
        clock = self._ports.clock
        end = clock.monotonic() + budget

        def drilled() -> Iterator[DrillResult]:
            for turn in turns(guests, self.history()):
                left = end - clock.monotonic()
                if turn.seconds > budget:
                    yield DrillResult(turn.name, error=_too_long(turn, budget))
                elif left <= 0 or turn.seconds > left:
                    yield DrillResult(turn.name, skipped="there was no time left for it")
                elif cancelled is not None and cancelled():
                    yield DrillResult(turn.name, skipped="cancelled")
                else:
                    yield self._one(turn.name, "", pick, repository, on_event, cancelled)

        return tuple(drilled())

    def _one(
        self,
        name: str,
        point: str,
        pick: Pick,
        repository: str | None,
        on_event: Listener | None,
        cancelled: Callable[[], bool] | None,
    ) -> DrillResult:
        try:
            chosen = self._point(name, point, pick, repository)
            self._propose(chosen)  # what cannot be drilled is refused before hours of reading
            return self._drill(chosen, on_event, cancelled)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this guest's
            return DrillResult(name, error=outcomes.as_failure(error, name))

    def _drill(self, point: Point, on_event: Listener | None, cancelled: Callable[[], bool] | None) -> DrillResult:
        """Drill a point. :raises ApplyError: this host could not, which says nothing about the point."""
        ports = self._ports
        watch = _Watch(ports, on_event)
        try:
            (found,) = verify_points(ports, (point,), point.name, on_event, cancelled, lately=LATELY)
            if found.damages:
                raise DrillFailed(f"the point is damaged: {found.damages[0]}")
            proposal = self._propose(point)
            watch.look_for(proposal.plan)
            apply_proposal(ports, proposal, on_event=watch.tell, cancelled=cancelled)
        except (DrillFailed, GuestError) as error:
            return self._failed(point, watch, error)
        except VmhostError as error:
            # What the guest did may be known already; what could not be taken away is told beside it.
            if isinstance(guest := error.__cause__, GuestError):
                return DrillResult(point.name, self._note(point, watch, guest.message, guest.details), error=error)
            if watch.seconds < 0:
                raise
            return DrillResult(point.name, self._note(point, watch, "", watch.console), error=error)
        return DrillResult(point.name, self._note(point, watch, "", watch.console))

    def _failed(self, point: Point, watch: _Watch, error: DrillFailed | GuestError) -> DrillResult:
        said = error.details or watch.console
        drill = self._note(point, watch, error.message, said)
        hint, text = f"vmhost backup verify {point.name}", f"the drill of {point.id} failed: {error.message}"
        failed = DrillFailed(text, subject=point.name, hint=hint, details=said)
        failed.__cause__ = error
        return DrillResult(point.name, drill, error=failed)

    def _note(self, point: Point, watch: _Watch, failed: str, console: tuple[str, ...]) -> DrillRecord:
        now = self._ports.clock.now()
        age = max(0.0, now - datetime.fromisoformat(point.taken).timestamp())
        record = DrillRecord(
            *(point.ref.guest, point.name, point.id, iso(watch.began), -1.0 if failed else watch.seconds, age),
            failed=failed,
            seconds=self._ports.clock.monotonic() - watch.opened,
            console=console,
        )
        self._ports.history.drilled(record)
        return record

    def _point(self, name: str, point: str, pick: Pick, repository: str | None) -> Point:
        backups = self._host.backups
        points = backups.list(name, repository=repository)
        if point:
            return backups.choose(points, point, name, repository)
        host = backups.repository(repository).host
        return pick_point(backups.its(points, name), pick, name, host=host, chance=self._ports.entropy.uuid())

    def _propose(self, point: Point) -> Proposal:
        ports = self._ports
        xml = ports.repositories.read(point.ref, "domain.xml")
        uuid, observed = ports.entropy.uuid(), observe(ports)
        theirs = frozenset(
            nic.ssh_port for domain in observed.domains if domain.metadata for nic in domain.metadata.identity.nics
        )
        forwards: tuple[int, ...] = ()
        for _ in user_macs(xml):
            forwards += (ports.entropy.port(theirs.union(forwards)),)
        sockets = str(QEMU_SOCKETS if observe_privileged(ports) else ports.layout.runtime)
        places = (str(ports.layout.disks), str(ports.layout.logs), sockets)
        host = host_spec(ports)

        def again(observed: Observed) -> Plan:
            return plan_drill(DrillRequest(point, xml, observed, host, uuid, forwards, *places))

        return Proposal(f"drill {point.name}", again(observed), again)


def _too_long(turn: Turn, budget: float) -> Refused:
    """Return why no run of such a budget will ever drill a guest."""
    text = f"its last drill took {turn.seconds:.0f} s in all, more than the whole budget of {budget:.0f} s"
    return Refused(text, subject=turn.name, hint=f"vmhost backup drill {turn.name}")


class _Watch:
    """Sees when a drill began and when its guest was there, and what that had said by then."""

    def __init__(self, ports: Ports, on_event: Listener | None) -> None:
        self._ports, self._listener = ports, on_event
        self._log = self._why = ""
        self.opened = self._start = ports.clock.monotonic()
        self.began = ports.clock.now()
        self.seconds = -1.0
        self.console: tuple[str, ...] = ()

    def look_for(self, plan: Plan) -> None:
        """Take note of the step that waits for the guest."""
        for item in plan.after:
            if isinstance(item.do, SeeDrill):
                self._log, self._why = item.do.ready.serial_log, item.why

    def tell(self, event: Event) -> None:
        """Take note of an event and pass it on."""
        if isinstance(event, StepStarted) and event.number == 1:
            self._start = self._ports.clock.monotonic()
        if isinstance(event, StepDone) and event.why == self._why:
            self.seconds = self._ports.clock.monotonic() - self._start
            self.console = self._ports.signals.console_tail(self._log, TAIL)
        if self._listener is not None:
            self._listener(event)


def raise_failures(results: Sequence[DrillResult]) -> None:
    """Return when all went well.

    :raises VmhostError: the only failure; :raises Cancelled: some were cancelled; :raises PartlyDone: some failed.
    """
    text = "did not come back in a drill"
    outcomes.raise_failures(results, failed=text, cancelled="were not drilled", hint="vmhost nightly status")
