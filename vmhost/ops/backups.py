"""Backups: points of guests taken, listed, verified and restored."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmhost.engine.observe import observe, observe_domains
from vmhost.engine.together import side_by_side
from vmhost.model.backupsteps import MakeRepository, PublishPoint
from vmhost.model.domains import meant
from vmhost.model.errors import AlreadyThere, ApplyError, Conflict, GuestError, NotFound, UsageError, VmhostError
from vmhost.model.events import Event
from vmhost.model.plan import Plan
from vmhost.model.points import Compression, Damage, Point, PointRef, RepositoryId
from vmhost.model.retention import Keep
from vmhost.ops import outcomes
from vmhost.ops.apply import apply_proposal
from vmhost.ops.proposals import Proposal
from vmhost.ops.room import refuse_too_large
from vmhost.ops.verifying import Verified, verify_points
from vmhost.plan.backup import BackupRequest, guest_for_backup, plan_backup
from vmhost.plan.choose import find_point
from vmhost.plan.restore import RestoreRequest, disk_files, plan_confirm, plan_in_place

if TYPE_CHECKING:
    from vmhost.model.observed import Observed
    from vmhost.model.spec import HostSpec, Site
    from vmhost.ops.drills import Drills
    from vmhost.ops.host import Host
    from vmhost.ops.nightly import Nightly
    from vmhost.ports import Ports

AT_ONCE = 2
"""Guests that are backed up side by side, unless somebody says otherwise: disks gain little by more."""

QEMU_SOCKETS = Path("/var/lib/libvirt/qemu")
"""Where QEMU of the system's hypervisor, which is a user of its own, may make sockets."""

Listener = Callable[[Event], None]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BackupResult:
    """What became of one guest: its new point, or the error that kept it from having one."""

    name: str
    point: Point | None = None
    seconds: float = 0.0
    error: VmhostError | None = field(default=None, compare=False)


class Backups:
    """The backups of one host.

    Every call takes ``repository``, the directory of one; None: the host's own (``VMHOST_BACKUPS_DIR``).
    """

    def __init__(self, host: Host) -> None:
        self._host = host

    @property
    def _ports(self) -> Ports:
        return self._host.ports

    @property
    def nightly(self) -> Nightly:
        """The night's work: run, status."""
        from vmhost.ops.nightly import Nightly

        return Nightly(self._host)

    @property
    def drills(self) -> Drills:
        """Points booted beside everything else: plan, run, oldest_first, history."""
        from vmhost.ops.drills import Drills

        return Drills(self._host)

    def plan(
        self,
        name: str,
        *,
        full: bool = False,
        repository: str | None = None,
        rate: int | None = None,
        whole: int | None = None,
        compression: Compression | None = None,
    ) -> Proposal:
        """Return what would be done to take one point of a guest; nothing is changed.

        :param full: take a full copy, whatever an increment could rest on.
        :param rate: bytes a second that may be copied; 0: no limit; None: what the host's own file says.
        :param whole: of how many that all may copy together, other runs included; None: as many as ``rate``.
        :param compression: how what is copied is packed; None: what the host's own file says
            (``host: {backup_compression: ...}``).
        :raises NotFound: no such guest; :raises Refused: it is foreign, or the repository cannot be used.
        """
        ports, path = self._ports, self._path(repository)
        limit, packed = self.share(rate, 1), compression or self._said().backup_compression or "none"
        taken, new_id = f"{datetime.fromtimestamp(ports.clock.now(), UTC):%Y%m%dT%H%M%SZ}", ports.entropy.uuid()
        sockets = str(QEMU_SOCKETS if observe_privileged(ports) else ports.layout.runtime)

        def again(observed: Observed) -> Plan:
            domain = guest_for_backup(name, observed)
            found = ports.repositories.look(path, new_id=new_id)
            points = ports.repositories.points(path, domain.uuid) if found.known else ()
            tracking = ports.hypervisor.tracking(domain.uuid)
            places = sorted({str(Path(file).parent) for file in disk_files(domain)})
            room = {place: ports.repositories.room(place) for place in places}
            request = BackupRequest(name, observed, found, points, tracking, taken, sockets, full, limit, packed, room)
            return plan_backup(request)

        proposal = Proposal(f"backup {name}", again(observe(ports)), again, locks_host=False)
        anew = partial(self.plan, name, full=full, repository=repository, rate=limit, whole=whole, compression=packed)
        return replace(proposal, share=limit, whole=whole or limit, anew=anew)

    def run(
        self,
        names: Sequence[str] = (),
        *,
        full: bool = False,
        repository: str | None = None,
        at_once: int = AT_ONCE,
        rate: int | None = None,
        compression: Compression | None = None,
        on_event: Listener | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> tuple[BackupResult, ...]:
        """Take one point of each guest, several side by side; one that fails does not stop the others.

        :param names: empty: all guests of vmhost.
        :param rate: bytes a second that may be copied, of all guests together; 0: no limit; None: what the host's own
            file says (``host: {backup_rate: ...}``). Guests that are copied side by side have equal shares of it, and
            a guest waits while what other runs copy leaves less than that.
        :param compression: as for :meth:`plan`.
        """
        chosen = list(dict.fromkeys(names)) or [row.name for row in self._host.guests() if row.site]
        results: list[BackupResult] = []
        share = self.share(rate, min(at_once, len(chosen)))
        how: dict[str, Any] = {"full": full, "repository": repository, "rate": share, "compression": compression}
        how["whole"] = self.share(rate, 1)

        def one(name: str) -> BackupResult:
            return self._one(name, partial(self.plan, name, **how), on_event, cancelled)

        while chosen and not self.repository(repository).known:
            # Several guests would all make it: they go one by one until it is there.
            results.append(one(chosen.pop(0)))
        with ThreadPoolExecutor(max(1, at_once), thread_name_prefix="backup") as pool:
            results += side_by_side(pool, one, chosen)
        return tuple(results)

    def _one(
        self,
        name: str,
        plan: Callable[[], Proposal],
        on_event: Listener | None,
        cancelled: Callable[[], bool] | None,
    ) -> BackupResult:
        clock = self._ports.clock
        start = clock.monotonic()
        try:
            ref, late = self._take(plan, on_event, cancelled)
            found = self._ports.repositories.points(ref.repository, ref.guest)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this guest's
            failure = outcomes.as_failure(error, name)
            return BackupResult(name, error=failure, seconds=clock.monotonic() - start)
        point = next((point for point in found if point.ref == ref), None)
        gone = None if point else NotFound("its new point is gone", subject=ref.id, hint=f"vmhost backup list {name}")
        return BackupResult(name, point, clock.monotonic() - start, gone or late)

    def _take(
        self, plan: Callable[[], Proposal], on_event: Listener | None, cancelled: Callable[[], bool] | None
    ) -> tuple[PointRef, GuestError | None]:
        """Plan a point and apply it, once more if the guest changed in between: another run or host was there.

        Return the point, and what its guest did not do afterwards: a service that did not go on costs no point.
        """
        made: list[Proposal] = []

        def anew() -> Proposal:
            made.append(replace(plan(), anew=anew))
            return made[-1]

        try:
            late = self._applied(anew(), on_event, cancelled)
        except (Conflict, ApplyError) as error:
            if isinstance(error, ApplyError) and not _overtaken(made[-1], error):
                raise
            late = self._applied(anew(), on_event, cancelled)
        return next(item.do.ref for item in made[-1].plan.steps if isinstance(item.do, PublishPoint)), late

    def share(self, rate: int | None, guests: int) -> int:
        """Return how many bytes a second may be copied of each of some guests that are copied side by side.

        :param rate: of all together; 0: no limit; None: what the host's own file says. :raises UsageError: it is none.
        """
        if rate is not None and rate < 0:
            raise UsageError(f"{rate} bytes a second are none", subject="rate", hint="vmhost backup run --rate 200M")
        whole = self._said().backup_rate if rate is None else rate
        return max(1, whole // max(1, guests)) if whole else 0

    def _said(self) -> HostSpec:
        """Return what the host's own file says; points are worth more than what is wrong with it."""
        from vmhost.model.spec import HostSpec
        from vmhost.ops.hostfile import host_spec

        try:
            return host_spec(self._ports)
        except VmhostError as error:
            _log.warning("backups without what the host's own file says: %s", error)
            return HostSpec()

    def _applied(
        self, proposal: Proposal, on_event: Listener | None, cancelled: Callable[[], bool] | None
    ) -> GuestError | None:
        try:
            apply_proposal(self._ports, proposal, on_event=on_event, cancelled=cancelled)
        except GuestError as error:
            return error
        return None

    def repository(self, repository: str | None = None) -> RepositoryId:
        """Return what is at the place of a repository. :raises Refused: it is not mounted, or something else."""
        return self._ports.repositories.look(self._path(repository), new_id=self._ports.entropy.uuid())

    def list(self, name: str = "", *, repository: str | None = None) -> tuple[Point, ...]:
        """Return the points of a guest, by name or UUID, or of all; also of guests that are gone or had that name.

        :raises NotFound: there is no point and no guest of that name.
        """
        path = self._path(repository)
        self.repository(repository)
        living = self._living(name) if name else ""
        found = self._ports.repositories.points(path, living if name == living else "")
        if not name:
            return found
        chosen = tuple(point for point in found if point.ref.guest == living or name in (point.name, point.ref.guest))
        if not chosen and not living:
            raise NotFound("there is no such guest, and no point of one", subject=name, hint="vmhost backup list")
        return chosen

    def damaged(self, guest: str = "", *, repository: str | None = None) -> tuple[Damage, ...]:
        """Return what is damaged so that it is not listed, of a guest (name, UUID) or of all; see :meth:`verify`."""
        uuid = (self._living(guest) or guest) if guest else ""
        return self._ports.repositories.damaged(self._path(repository), uuid)

    def verify(
        self,
        name: str = "",
        *,
        point: str = "",
        repository: str | None = None,
        on_event: Listener | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> tuple[Verified, ...]:
        """Read every byte of points and of what they lie on; return what is damaged in each.

        :param point: one point of the guest; empty: all of them, and of former guests of its name only if it has none.
        :raises NotFound: there is no such point, or it was deleted meanwhile.
        """
        points = self.list(name, repository=repository)
        chosen = (self.choose(points, point, name, repository),) if point else self.its(points, name)
        found = verify_points(self._ports, chosen, name or "all", on_event, cancelled)
        if point and found[0].gone:
            raise NotFound("it was deleted meanwhile", subject=chosen[0].id, hint=f"vmhost backup list {name}")
        return found

    def plan_restore(
        self,
        name: str,
        *,
        point: str = "latest",
        repository: str | None = None,
        stop: bool = False,
        power_off: bool = False,
    ) -> Proposal:
        """Return what would be done to bring a guest's disks back to a point; nothing is changed.

        :param stop: it may be shut down; :param power_off: its power may be taken away.
        :raises NotFound: no such guest or point; :raises Refused: it runs, or an earlier restore was not confirmed.
        """
        ports, path = self._ports, self._path(repository)
        self.repository(repository)

        def again(observed: Observed) -> Plan:
            domain = guest_for_backup(name, observed)
            chosen = self.choose(ports.repositories.points(path, domain.uuid), point, name, repository)
            kept = {file: ports.repositories.kept(file) for file in disk_files(domain)}
            tracking = ports.hypervisor.tracking(domain.uuid)
            return plan_in_place(RestoreRequest(name, chosen, observed, tracking, kept, stop, power_off))

        proposal = Proposal(f"restore {name}", again(observe(ports)), again, locks_host=False)
        refuse_too_large(ports, proposal.plan)
        return proposal

    def plan_restore_as(
        self,
        name: str,
        new_name: str,
        *,
        point: str = "latest",
        site: Site | None = None,
        repository: str | None = None,
    ) -> Proposal:
        """Return what would be done to make a new guest of a point; nothing is changed.

        :param name: the guest of the point, which may be gone; :param site: whose networks the new guest is on.
        :raises NotFound: no such point; :raises Conflict: the new name is taken.
        """
        from vmhost.ops.restoreas import propose_as

        chosen = self.choose(self.list(name, repository=repository), point, name, repository)
        return propose_as(self._ports, chosen, new_name, site)

    def plan_pin(self, name: str, point: str, *, on: bool = True, repository: str | None = None) -> Proposal:
        """Return what would be done to pin a point, so that it never goes, or to unpin it; nothing is changed.

        :raises DamagedData: what is noted of the guest's points cannot be read.
        """
        from vmhost.ops.pin import propose_pin

        return propose_pin(self._host, name, point, on=on, repository=repository)

    def plan_confirm(self, name: str) -> Proposal:
        """Return what would be done to give up what a guest's disks were before its restore; nothing is changed.

        :raises NotFound: no such guest, or nothing is kept.
        """
        ports = self._ports

        def again(observed: Observed) -> Plan:
            domain = guest_for_backup(name, observed)
            return plan_confirm(name, observed, {file: ports.repositories.kept(file) for file in disk_files(domain)})

        return Proposal(f"confirm {name}", again(observe(ports)), again, locks_host=False)

    def plan_prune(
        self, names: Sequence[str] = (), keep: Keep | None = None, *, repository: str | None = None
    ) -> Proposal:
        """Return what would be deleted of the points of guests, of all if there are no names; nothing is changed.

        :param keep: None: what each guest's site says (``backup: {keep: ...}``); without that all its points stay.
        :raises NotFound: there is no point of one of them.
        """
        from vmhost.ops.prune import propose_prune

        return propose_prune(self._host, names, keep, repository)

    def choose(self, points: Sequence[Point], wanted: str, name: str, repository: str | None) -> Point:
        """See :func:`vmhost.plan.choose.find_point`; the living guest comes before former ones of its name."""
        return find_point(points, wanted, name, host=self.repository(repository).host, guest=self._living(name))

    def its(self, points: Sequence[Point], name: str) -> Sequence[Point]:
        """Return those points that are of the living guest of a name or UUID; if it has none, all."""
        living = self._living(name) if name else ""
        return [point for point in points if point.ref.guest == living] or points

    def _living(self, name: str) -> str:
        domain = meant(name, observe_domains(self._host.hypervisor))
        return domain.uuid if domain else ""

    def _path(self, repository: str | None) -> str:
        return str(Path(repository).absolute()) if repository else str(self._ports.layout.backups)


def _overtaken(proposal: Proposal, error: ApplyError) -> bool:
    """Whether all that failed is that the repository which was to be made is there by now."""
    first = isinstance(proposal.plan.steps[0].do, MakeRepository) and not error.done and not error.leftovers
    return first and isinstance(error.__cause__, AlreadyThere)


def observe_privileged(ports: Ports) -> bool:
    """Whether QEMU runs for the system's hypervisor, whose socket directory is not ours."""
    return ports.hypervisor.host().privileged


def raise_failures(results: Sequence[BackupResult]) -> None:
    """Return when all went well.

    :raises VmhostError: the only failure; :raises Cancelled: some were cancelled; :raises PartlyDone: some failed.
    """
    without = "have no new point"
    outcomes.raise_failures(results, failed=without, cancelled=without, hint="vmhost backup list")
