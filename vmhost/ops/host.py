"""One hypervisor, as scripts and faces see it: values in, values out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from vmhost.model.permit import Permit
from vmhost.ops.connected import Connected

if TYPE_CHECKING:
    from vmhost.engine.recover import Recovered
    from vmhost.model.capacity import Capacity
    from vmhost.model.errors import VmhostError
    from vmhost.model.events import Event
    from vmhost.model.network import PendingChange
    from vmhost.model.observed import Observed
    from vmhost.model.outcome import Finding, JobRecord, Outcome
    from vmhost.model.plan import Difference, Note
    from vmhost.model.shell import CommandResult, SshTarget
    from vmhost.model.spec import Site
    from vmhost.model.wire import NetDifference
    from vmhost.ops.backups import Backups
    from vmhost.ops.forms import NewGuest
    from vmhost.ops.guards import GuardRow
    from vmhost.ops.guests import GuestDetails, GuestRow
    from vmhost.ops.images import Images
    from vmhost.ops.keep import PortKeeper
    from vmhost.ops.networkview import BridgeRow
    from vmhost.ops.nics import Nics
    from vmhost.ops.power import Action, PowerResult
    from vmhost.ops.proposals import Proposal
    from vmhost.ops.services import Services
    from vmhost.ops.snapshots import Snapshots
    from vmhost.ops.vlans import Vlans
    from vmhost.ops.watch import Watch

Listener = Callable[["Event"], None]


class Host(Connected):
    """A connection to one hypervisor; a context manager; safe to use from several threads.

    :param uri: as for virsh's ``-c``; None: ``LIBVIRT_DEFAULT_URI``, libvirt's own default, ``qemu:///system`` if it
        answers, else ``qemu:///session``; ``fake:demo``: the built-in fake host, which needs no libvirt.
    """

    def close(self) -> None:
        """End the connection; the host goes on as it is."""
        if "services" in self.__dict__:
            self.services.close()
        super().close()

    def observe(self) -> Observed:
        """Return the whole host as it is now. :raises Unreachable: libvirt does not answer."""
        from vmhost.engine.observe import observe

        return observe(self.ports)

    def plan(self, site: Site, permit: Permit | None = None) -> Proposal:
        """Return what would be done to bring this host to the site; nothing is changed.

        :raises Refused: it cannot be done here, with every reason; :raises NotFound: an image or pool is missing.
        """
        from vmhost.ops.proposals import propose_site

        return propose_site(self.ports, site, permit or Permit())

    def plan_create(self, wish: NewGuest) -> Proposal:
        """Return what would be done to make one guest, as a site of its own; nothing is changed.

        :raises SpecError: the wish makes no guest, with every fault; :raises Refused: it cannot be made here.
        """
        from vmhost.ops.forms import propose_create

        return propose_create(self.ports, wish)

    def plan_resize(
        self, name: str, *, cpus: int | None = None, memory: int | None = None, permit: Permit | None = None
    ) -> Proposal:
        """Return what would be done to give a guest other vCPUs and memory (bytes); nothing is changed.

        :raises NotFound: no such guest; :raises Refused: it is foreign, or the host is too small.
        """
        from vmhost.ops.forms import propose_resize

        return propose_resize(self.ports, name, cpus=cpus, memory=memory, permit=permit or Permit())

    def plan_pin(self, name: str, *, permit: Permit | None = None, **cpus: Any) -> Proposal:
        """Return what would be done to give a guest other pCPUs; nothing is changed.

        :param cpus: fields of ``cpus`` as in a site file: ``policy="dedicated"``, ``pins={0: 4, 1: 6}``, ``limit=1.5``.
        :raises NotFound: no such guest; :raises Refused: it is foreign, or there is no such place.
        """
        from vmhost.ops.capacity import propose_pin

        return propose_pin(self.ports, name, cpus, permit or Permit())

    def capacity(self, *, fits: Sequence[str] = (), site: Site | None = None, measure: float = 0.0) -> Capacity:
        """Return what this host has, who has it, and how many more guests of each kind would fit.

        :param fits: ``small``, ``medium``, ``large``, ``2x4G``, ``4x8G:dedicated``, or guests of ``site``.
        :param measure: seconds in which to watch who waits for pCPUs; 0: not at all.
        :raises UsageError: one of them is no kind of guest.
        """
        from vmhost.ops.capacity import capacity

        return capacity(self.ports, fits, site, measure=measure)

    def plan_delete(self, names: Iterable[str], permit: Permit | None = None) -> Proposal:
        """Return what would be done to remove guests; nothing is changed.

        :raises NotFound: no such guest; :raises Refused: foreign, protected, or running without leave.
        """
        from vmhost.ops.proposals import propose_delete

        return propose_delete(self.ports, names, permit or Permit())

    def apply(
        self,
        proposal: Proposal,
        *,
        on_event: Listener | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Outcome:
        """Do what a proposal says, if the host still is as it was; ends when all its guests are ready.

        :param on_event: called with every event, also from other threads.
        :param cancelled: asked between steps; True undoes what was done and ends.
        :raises Conflict: the host changed since; :raises ApplyError: a step failed, everything was undone;
            :raises GuestError: applied, but a guest is not ready; :raises VerifyError: applied, yet it differs.
        """
        from vmhost.ops.apply import apply_proposal

        return apply_proposal(self.ports, proposal, on_event=on_event, cancelled=cancelled)

    def apply_site(
        self,
        site: Site,
        permit: Permit | None = None,
        *,
        on_plan: Callable[[Proposal], None] | None = None,
        on_event: Listener | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Outcome:
        """Plan a site and apply it at once; quicker than one after the other where nobody is asked between.

        :param on_plan: called with the proposal before anything is done, mostly under the host's lock; what it raises
            ends it there.
        :raises Refused: and all else that :meth:`plan` and :meth:`apply` raise.
        """
        from vmhost.ops.atonce import apply_site

        return apply_site(self.ports, site, permit or Permit(), on_plan=on_plan, on_event=on_event, cancelled=cancelled)

    def drift(self, site: Site, *, on_note: Callable[[Note], None] | None = None) -> tuple[Difference, ...]:
        """Return where this host differs from the site, on the fields that vmhost owns; empty when it does not.

        :param on_note: is told what is no drift, and yet to be known: disks that others laid overlays over.
        """
        from vmhost.ops.proposals import find_drift

        return find_drift(self.ports, site, on_note)

    def verify_network(self, site: Site | None = None) -> tuple[NetDifference, ...]:
        """Return every difference on the way from the site over libvirt and the kernel's VLAN table to the uplinks.

        :param site: None: all guests of ours, from their own metadata on.
        """
        from vmhost.plan.netverify import verify_network

        return verify_network(self.observe(), site)

    def recover(self, *, on_event: Listener | None = None) -> tuple[Recovered, ...]:
        """Settle operations that were interrupted by a crash; return what became of each."""
        from vmhost.ops.apply import recover_host

        return recover_host(self.ports, on_event=on_event)

    def interrupted(self) -> bool:
        """Return whether an interrupted operation waits for :meth:`recover`; costs next to nothing."""
        from vmhost.model.errors import PermissionDenied

        try:
            return self.ledger.journals.any_open()
        except PermissionDenied:
            return False

    def guests(self) -> tuple[GuestRow, ...]:
        """Return all guests, ours and foreign, by name, in one bulk read."""
        from vmhost.ops.guests import list_guests

        return list_guests(self.hypervisor)

    def guest(self, name: str) -> GuestDetails:
        """Return everything about one guest, by name or UUID. :raises NotFound: there is none."""
        from vmhost.ops.guests import show_guest

        return show_guest(self.ports, name)

    def network(self) -> tuple[BridgeRow, ...]:
        """Return the bridges of this host, ours and foreign, with their ports, VLANs and guests."""
        from vmhost.ops.networkview import bridge_rows

        return bridge_rows(self.observe())

    def network_change(self) -> PendingChange | None:
        """Return the network change that waits for its confirmation, or the last one if it was taken back."""
        return self.ports.keeper.state().pending

    def plan_network(self, site: Site, *, confirm: int = 60, prune: Iterable[str] = ()) -> Proposal:
        """Return what would be done to bring this host's network to a site, without its guests; nothing is changed.

        :param confirm: seconds, 5 to 3600, that :meth:`plan_confirmation` has to be applied in, once a change that may
            cut this host off is made; otherwise the former network is put back, whatever becomes of this process.
        :param prune: bridges that have left the site and are to go.
        :raises Refused: it cannot be done here, with every reason; :raises NotFound: a link or bridge is missing.
        """
        from vmhost.ops.network import propose_network

        return propose_network(self.ports, site, confirm=confirm, prune=prune)

    def plan_confirmation(self) -> Proposal:
        """Return what makes the network change that waits stay, also at the host's next boot.

        :raises NotFound: nothing waits; :raises Refused: the former network was put back already.
        """
        from vmhost.ops.network import propose_confirmation

        return propose_confirmation(self.ports)

    def guards(self) -> tuple[GuardRow, ...]:
        """Return what holds at the ports of running guests: guards with what they dropped, isolation, limits."""
        from vmhost.ops.guards import guard_rows

        return guard_rows(self.observe())

    def power(
        self,
        names: Sequence[str],
        action: Action,
        *,
        timeout: float = 180.0,
        discard_saved: bool = False,
        on_event: Listener | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> tuple[PowerResult, ...]:
        """Start, stop, restart or power off guests, eight at a time; one that fails does not stop the others.

        :param timeout: seconds that a guest has to shut down; it is never powered off for being slow.
        :param cancelled: asked every second; True ends the waiting, and guests go on as they are.
        """
        from vmhost.ops.power import power_all

        return power_all(
            self.ports,
            names,
            action,
            timeout=timeout,
            discard_saved=discard_saved,
            on_event=on_event,
            cancelled=cancelled,
        )

    def plan_power(
        self, names: Sequence[str], action: Action, *, timeout: float = 180.0, discard_saved: bool = False
    ) -> tuple[Proposal, ...]:
        """Return what :meth:`power` would do, as one proposal for each guest; nothing is changed.

        :raises NotFound: one of the names is unknown; :raises Refused: one is foreign.
        """
        from vmhost.ops.power import propose_power

        return propose_power(self.ports, names, action, timeout=timeout, discard_saved=discard_saved)

    def console_tail(self, serial_log: str, lines: int = 200) -> tuple[str, ...]:
        """Return the last lines of a guest's serial console, safe for a terminal.

        :param serial_log: as in the guest's :class:`vmhost.model.observed.DomainFacts`.
        """
        return self.ports.signals.console_tail(serial_log, lines)

    def watch(self, *, interval: float | None = None) -> Watch:
        """Return a watch that takes pictures of this host; ``interval`` in seconds."""
        from vmhost.ops.watch import INTERVAL, Watch

        return Watch(self, interval=interval or INTERVAL)

    def keeper(self, on_event: Listener) -> PortKeeper:
        """Return what keeps the ports of guests in their VLANs; its ``run`` ends after its ``stop``."""
        from vmhost.ops.keep import PortKeeper

        return PortKeeper(self.ports, on_event)

    def ssh_target(self, name: str) -> SshTarget:
        """Return how a guest is reached over SSH, with its pinned host key."""
        from vmhost.ops.shell import ssh_target_of

        return ssh_target_of(self.ports, name, numbers=True)

    def exec(
        self,
        names: Sequence[str],
        argv: Sequence[str],
        *,
        timeout: float = 60.0,
        sudo: bool = False,
        input: bytes = b"",  # noqa: A002
    ) -> dict[str, CommandResult | VmhostError]:
        """Run one command in guests, eight at a time; return each guest's result or error."""
        from vmhost.ops.shell import exec_in

        return exec_in(self.ports, names, argv, timeout=timeout, sudo=sudo, input=input)

    @cached_property
    def images(self) -> Images:
        """The images of this host: list, build, pull, verify, delete."""
        from vmhost.ops.images import Images

        return Images(self)

    @cached_property
    def backups(self) -> Backups:
        """The backups of this host's guests: run, list, verify, restore, confirm."""
        from vmhost.ops.backups import Backups

        return Backups(self)

    @cached_property
    def nics(self) -> Nics:
        """One NIC more or less for a guest of a site: ``plan_attach``, ``plan_detach``."""
        from vmhost.ops.nics import Nics

        return Nics(self.ports)

    @cached_property
    def vlans(self) -> Vlans:
        """The VLAN ids of this host: list, allocate, release."""
        from vmhost.ops.vlans import Vlans

        return Vlans(self)

    @cached_property
    def snapshots(self) -> Snapshots:
        """The snapshots of this host's guests: list, take, go back, delete."""
        from vmhost.ops.snapshots import Snapshots

        return Snapshots(self)

    @cached_property
    def services(self) -> Services:
        """The services inside guests: list, deploy, check, start, stop, restart, logs."""
        from vmhost.ops.services import Services

        return Services(self)

    def jobs(self, *, limit: int = 100) -> tuple[JobRecord, ...]:
        """Return running and past operations of all processes, the newest first."""
        return self.ledger.history.jobs(limit=limit)

    def job_log(self, id: str) -> tuple[str, ...]:  # noqa: A002 - what it is
        """Return the log of an operation. :raises Absent: there is none of that id."""
        return self.ledger.history.lines(id)

    def cancel_job(self, id: str) -> JobRecord:  # noqa: A002 - what it is
        """Ask a running operation, of any process, to end: it ends its step and undoes what it did.

        :raises NotFound: no such operation; :raises Refused: it does not run any more.
        """
        from vmhost.ops.jobs import cancel_job

        return cancel_job(self.ledger.history, id)

    def doctor(self, *, only: str | None = None) -> tuple[Finding, ...]:
        """Examine the host; ``only`` limits it to one area (``kvm``, ``storage``, ``versions``, ...)."""
        from vmhost.ops.doctor import examine

        return examine(self.ports, only=only)


def connect(uri: str | None = None) -> Host:
    """Return a :class:`Host` (``uri`` as there); libvirt is contacted at the first call that needs it."""
    return Host(uri)
