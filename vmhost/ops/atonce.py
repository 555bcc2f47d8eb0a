"""What is planned and applied in one go: where nobody is asked in between, the host is looked at once for both."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack

from vmhost.engine.observe import touched
from vmhost.model.errors import Cancelled, Conflict, PermissionDenied
from vmhost.model.events import Notice
from vmhost.model.outcome import Outcome
from vmhost.model.permit import Permit
from vmhost.model.spec import Site
from vmhost.ops.apply import Listener, apply_proposal, recover_host
from vmhost.ops.proposals import Proposal, propose_site
from vmhost.ports import NOT_AT_ALL, Ports
from vmhost.render.seed import secret_references


def apply_site(
    ports: Ports,
    site: Site,
    permit: Permit,
    *,
    on_plan: Callable[[Proposal], None] | None = None,
    on_event: Listener | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Outcome:
    """Settle what was interrupted, plan a site, and apply the plan.

    If the host's lock is free, the site is planned under it; a plan that touches no guest that is there already then
    has all the locks that it needs, and stands. Any other is made again under its guests' locks, as after a question.

    :param on_plan: called with the proposal before anything is done, mostly under the host's lock: nobody is to be
        asked there. What it raises ends it.
    :raises VmhostError: what :func:`propose_site` and :func:`apply_proposal` raise.
    """
    if ports.journals.any_open():
        _settle(ports, on_event)
    with ExitStack() as host:
        locked = _locked(ports, site, host)
        proposal = propose_site(ports, site, permit)
        if locked and not _makes_only(proposal):
            host.close()
            locked = False
        if on_plan is not None:
            on_plan(proposal)
        if cancelled is not None and cancelled():
            raise Cancelled("not begun: it was asked to end", subject=site.name)
        return apply_proposal(ports, proposal, on_event=on_event, cancelled=cancelled, locked=host if locked else None)


def apply_alone(
    ports: Ports,
    guest: str,
    propose: Callable[[], Proposal],
    *,
    on_event: Listener | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Outcome:
    """Settle what was interrupted, plan what is to be done to one guest, and apply the plan.

    If the guest's lock is free, it is planned under it, and the plan stands. Else, and if the plan is about others,
    too, or starts a guest, it is made again under all its locks, as after a question.

    :param guest: its name or UUID.
    :raises VmhostError: what ``propose`` and :func:`apply_proposal` raise.
    """
    if ports.journals.any_open():
        _settle(ports, on_event)
    uuid = ports.hypervisor.uuid_of(guest)
    with ExitStack() as lock:
        locked = bool(uuid) and _held(ports, lambda: ports.locks.guests([uuid], NOT_AT_ALL), lock)
        proposal = propose()
        plan = proposal.plan
        if locked and (proposal.locks_host or proposal.share or plan.starts or {*plan.uuids} - {uuid}):
            lock.close()
            locked = False
        alone = lock if locked else None
        return apply_proposal(ports, proposal, on_event=on_event, cancelled=cancelled, alone=alone)


def _settle(ports: Ports, on_event: Listener | None) -> None:
    for settled in recover_host(ports, on_event=on_event):
        if on_event is not None:
            on_event(Notice(settled.operation, f"interrupted earlier: {settled}"))


def _locked(ports: Ports, site: Site, host: ExitStack) -> bool:
    """Take the host's lock as below, unless secrets are read first, which may take long."""
    if any(secret_references(spec) for spec in site.guests):
        return False
    return _held(ports, lambda: ports.locks.host(NOT_AT_ALL), host)


def _held(ports: Ports, lock: Callable[[], AbstractContextManager[None]], stack: ExitStack) -> bool:
    """Take a lock, unless others have it, or died with it."""
    try:
        stack.enter_context(lock())
    except (Conflict, PermissionDenied):
        return False
    if ports.journals.any_open():
        stack.close()
        return False
    return True


def _makes_only(proposal: Proposal) -> bool:
    """Whether nobody else knows the guests that a plan is about, so that nobody can have a lock of theirs."""
    return proposal.seen is not None and not touched(proposal.plan, proposal.seen)
