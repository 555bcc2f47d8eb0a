"""A site, planned and applied in one go: where nobody is asked in between, the host is looked at once for both."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

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


def _settle(ports: Ports, on_event: Listener | None) -> None:
    for settled in recover_host(ports, on_event=on_event):
        if on_event is not None:
            on_event(Notice(settled.operation, f"interrupted earlier: {settled}"))


def _locked(ports: Ports, site: Site, host: ExitStack) -> bool:
    """Take the host's lock, unless others have it, or died with it, or secrets are read first, which may take long."""
    if any(secret_references(spec) for spec in site.guests):
        return False
    try:
        host.enter_context(ports.locks.host(NOT_AT_ALL))
    except (Conflict, PermissionDenied):
        return False
    if ports.journals.any_open():
        host.close()
        return False
    return True


def _makes_only(proposal: Proposal) -> bool:
    """Whether nobody else knows the guests that a plan is about, so that nobody can have a lock of theirs."""
    return proposal.seen is not None and not touched(proposal.plan, proposal.seen)
