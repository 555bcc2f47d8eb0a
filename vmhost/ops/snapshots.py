"""Snapshots of guests: list, take, go back, delete."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from vmhost.engine.observe import observe, observe_guest, observe_guests
from vmhost.model.errors import UsageError
from vmhost.model.permit import Permit
from vmhost.model.reservations import iso
from vmhost.model.units import check_name
from vmhost.ops.guests import find_guest
from vmhost.ops.proposals import Proposal
from vmhost.plan.found import find
from vmhost.plan.restore import disk_files, refuse_kept
from vmhost.plan.snapfiles import Files
from vmhost.plan.snapmerge import plan_delete_snapshot
from vmhost.plan.snapshots import plan_create, plan_revert, plan_thaw
from vmhost.render.parse.snapshots import parse_snapshots

if TYPE_CHECKING:
    from vmhost.model.observed import Observed, ObservedDomain, ObservedGuests
    from vmhost.model.outcome import Outcome
    from vmhost.model.plan import Plan
    from vmhost.ops.apply import Listener
    from vmhost.ops.host import Host


Look = Callable[["ObservedGuests | None"], "ObservedGuests"]
"""Looks again, given an older look, or for the first time."""


@dataclass(frozen=True, slots=True)
class SnapshotRow:
    """One snapshot of a guest.

    ``on`` is the snapshot that it rests on, ``depth`` how many there are from it downwards; ``size`` is what its own
    files take, in bytes. ``present``: the guest's disks of now rest on it. ``state`` is ``whole``, ``merging``,
    ``damaged`` (a file is gone), ``overwritten`` (a guest writes to a file of it, or below one), or ``doubtful``
    (somebody else merged, or took away, what lay on it).
    """

    guest: str
    name: str
    created: str
    level: str
    on: str
    depth: int
    size: int
    disks: tuple[str, ...]
    present: bool
    state: str
    why: str = ""


class Snapshots:
    """The snapshots of one host's guests."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def list(self, guest: str = "") -> tuple[SnapshotRow, ...]:
        """Return the snapshots of a guest, or of all, the oldest first. :raises NotFound: there is no such guest."""
        hypervisor = self._host.ports.hypervisor
        only = find_guest(hypervisor, guest) if guest else None
        seen = observe_guests(hypervisor)
        files = Files(seen.domains, seen.pools)
        sizes = {(v.pool, v.name): v.allocation for pool in seen.pools for v in pool.volumes}
        domains = seen.domains if only is None else [one for one in seen.domains if one.uuid == only.uuid]
        return tuple(row for domain in domains for row in _rows(domain, sizes, files))

    def plan_create(self, guest: str, name: str = "", *, quiesce: bool | None = None) -> Proposal:
        """Return what would be done to take a snapshot; nothing is changed.

        :param name: how it is to be called; empty: after the time.
        :param quiesce: None: freeze the guest's file systems if they let themselves be; True: they must; False: do not.
        :raises NotFound: no such guest; :raises UsageError: this is no name; :raises Refused: it has one of that name,
            or none can be taken of it.
        """
        now = self._host.ports.clock.now()
        called = _checked(name) if name else datetime.fromtimestamp(now, UTC).strftime("%Y%m%d-%H%M%S")

        def again(fresh: ObservedGuests) -> Plan:
            self._refuse_kept(guest, fresh)
            return plan_create(guest, called, fresh, created=iso(now), quiesce=quiesce)

        return _proposal(f"snapshot {guest}", again, self._look_at(guest))

    def create(
        self,
        guest: str,
        name: str = "",
        *,
        quiesce: bool | None = None,
        on_event: Listener | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Outcome:
        """Take a snapshot at once; quicker than :meth:`plan_create` and :meth:`vmhost.Host.apply` one after the other.

        Arguments and errors are those of both; where it failed, the guest and its disks are as before.
        """
        from vmhost.ops.atonce import apply_alone

        return apply_alone(
            self._host.ports,
            guest,
            lambda: self.plan_create(guest, name, quiesce=quiesce),
            on_event=on_event,
            cancelled=cancelled,
        )

    def delete(
        self,
        guest: str,
        name: str,
        *,
        on_event: Listener | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Outcome:
        """Delete a snapshot at once, as :meth:`create` takes one. Errors: those of :meth:`plan_delete`, too."""
        from vmhost.ops.atonce import apply_alone

        return apply_alone(
            self._host.ports, guest, lambda: self.plan_delete(guest, name), on_event=on_event, cancelled=cancelled
        )

    def plan_revert(self, guest: str, name: str, permit: Permit | None = None, *, timeout: float = 180.0) -> Proposal:
        """Return what would be done to put a guest's disks back to a snapshot; what they hold now is kept as another.

        :param permit: ``stop`` or ``power_off`` for a guest that runs; it is started again. ``discard_saved``.
        :param timeout: seconds that the guest has to shut down.
        :raises NotFound: no such guest or snapshot; :raises Refused: it may not be done.
        """
        now, may = iso(self._host.ports.clock.now()), permit or Permit()

        def again(fresh: Observed) -> Plan:
            self._refuse_kept(guest, fresh)
            return plan_revert(guest, name, fresh, may, created=now, timeout=timeout)

        seen = observe(self._host.ports)
        return Proposal(f"revert {guest}", again(seen), again, locks_host=False, seen=seen)

    def plan_delete(self, guest: str, name: str) -> Proposal:
        """Return what would be done to delete a snapshot; the guest, if it runs, runs on.

        :raises NotFound: no such guest or snapshot; :raises Refused: others rest on it.
        """
        hypervisor = self._host.ports.hypervisor
        return _proposal(
            f"delete snapshot of {guest}",
            lambda fresh: plan_delete_snapshot(guest, name, fresh),
            lambda before: observe_guests(hypervisor, before),
        )

    def plan_thaw(self, guest: str) -> Proposal:
        """Return what would be done to thaw a guest's file systems; nothing is changed.

        :raises NotFound: no such guest; :raises Refused: it does not run.
        """
        return _proposal(f"thaw {guest}", lambda fresh: plan_thaw(guest, fresh), self._look_at(guest))

    def _look_at(self, guest: str) -> Look:
        return lambda before: observe_guest(self._host.ports.hypervisor, guest, before)

    def _refuse_kept(self, guest: str, fresh: ObservedGuests) -> None:
        """:raises Refused: what a restore kept lies beside the present disks, not beside overlays of them."""
        if (domain := find(guest, fresh)) is not None:
            kept = self._host.ports.repositories.kept
            refuse_kept(domain.name, {file: kept(file) for file in disk_files(domain)})


def _proposal(operation: str, again: Callable[[ObservedGuests], Plan], look: Look) -> Proposal:
    """Propose from a look at no more than the plan is made of, and so again under the guest's lock."""
    seen = look(None)
    return Proposal(operation, again(seen), again, locks_host=False, narrow=lambda: again(look(seen)))


def _checked(name: str) -> str:
    try:
        return check_name(name)
    except ValueError as error:
        raise UsageError(str(error), subject="--name", hint="--name before-upgrade") from error


def _rows(domain: ObservedDomain, sizes: dict[tuple[str, str], int], files: Files) -> Iterator[SnapshotRow]:
    if domain.foreign:
        return  # what a copied definition says of snapshots are another guest's
    have = parse_snapshots(domain.raw.xml)
    names = {item.number: item.name for item in have.items}
    for item in have.items:
        yield SnapshotRow(
            guest=domain.name,
            name=item.name,
            created=item.created,
            level=str(item.level),
            on=names.get(item.parent, ""),
            depth=len(have.line(item.number)),
            size=sum(sizes.get((kept.pool, kept.volume), 0) for kept in item.disks),
            disks=tuple(kept.disk for kept in item.disks),
            present=item.number == have.present and files.lies_below(item, domain),
            state=files.state(item, have, domain),
            why=item.why,
        )
