"""Applying a proposal: locks, a second look, the steps, the waiting, and a last look."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Final

from vmhost.engine.context import Context
from vmhost.engine.observe import observe, observe_again
from vmhost.engine.record import Record
from vmhost.engine.recover import Recovered, recover
from vmhost.engine.transaction import Transaction
from vmhost.model.errors import AlreadyThere, Conflict, PermissionDenied, VerifyError
from vmhost.model.events import Event, Notice
from vmhost.model.observed import Observed
from vmhost.model.outcome import Outcome
from vmhost.model.plan import Plan
from vmhost.ops.build import user_name
from vmhost.ops.jobs import Job
from vmhost.ops.permission import check_may_change
from vmhost.ops.proposals import Proposal
from vmhost.ports import NOT_AT_ALL, Ports

PATIENCE = 60.0
"""Seconds that an operation tries to have the locks of the host and its guests at the same time."""

A_LOOK: Final = 2.0
"""Seconds for which others may have the host's lock, since they only look, before a start says that it waits."""

Listener = Callable[[Event], None]


def apply_proposal(
    ports: Ports,
    proposal: Proposal,
    *,
    on_event: Listener | None = None,
    cancelled: Callable[[], bool] | None = None,
    locked: ExitStack | None = None,
    alone: ExitStack | None = None,
) -> Outcome:
    """Apply a proposal that was shown, if the host still is as it was.

    Under the host's lock interrupted operations are settled first, then the plan is made again; when it differs from
    the one shown, nothing is done.

    :param locked: holds the host's lock since before the proposal was made, which only makes guests: then it stands.
        The lock is given back as soon as it is not needed any more.
    :param alone: holds the lock of the only guest that the proposal is about, since before it was made; it starts
        none. Then it stands, too.
    :raises Conflict: the host changed, or another vmhost holds the lock; :raises ApplyError: a step failed and
        everything
        was undone (``leftovers`` names what could not be); :raises GuestError: applied, but a guest is not ready;
        :raises VerifyError: applied, but what is there differs.
    """
    if proposal.empty and not ports.journals.any_open():
        return Outcome(proposal.plan)
    check_may_change(ports.hypervisor)
    with Job(ports, proposal.operation, " ".join(proposal.plan.guests), on_event, cancelled) as job:
        return _apply(ports, proposal, job, locked, alone)


def _apply(ports: Ports, proposal: Proposal, job: Job, locked: ExitStack | None, alone: ExitStack | None) -> Outcome:
    clock = ports.clock
    start = clock.monotonic()
    context = _context(ports, proposal, job)
    stands = locked is not None or alone is not None
    if not stands:
        _settle_interrupted(ports, context)
    with alone or ExitStack() as guests:
        with locked or ExitStack() as host:
            if proposal.share:
                waiting = context.waiting(proposal.operation)
                guests.enter_context(ports.locks.budget(proposal.share, proposal.whole, waiting))
                proposal = proposal.anew() if proposal.anew else proposal
            if not stands:
                _lock(proposal, context, host, guests)
                observed, plan = _plan_again(ports, proposal)
            else:
                if alone is None:
                    guests.enter_context(ports.locks.guests(proposal.plan.uuids, NOT_AT_ALL))
                observed, plan = proposal.seen, proposal.plan
            _store_keys(ports, proposal)
            ports.signals.make_room(str(ports.layout.logs))
            record = _begin(ports, proposal, plan, job)
            transaction = Transaction(plan, context, record)
            if not proposal.locks_host:
                host.close()
            transaction.run()
        committed = clock.monotonic()
        transaction.finish()
    _verify(ports, proposal, observed)
    return Outcome(
        plan=plan,
        done=tuple(transaction.done),
        seconds=committed - start,
        total_seconds=clock.monotonic() - start,
        verdicts=tuple(transaction.verdicts.items()),
        told=tuple(transaction.told.items()),
    )


def _lock(proposal: Proposal, context: Context, host: ExitStack, guests: ExitStack) -> None:
    """Take the host's lock and those of the plan's guests.

    A plan that only starts guests has the host's lock while it looks whether there is room; the note that they are
    being started, which others then see, lasts as long as the guests' locks.

    Nobody is kept from the host's lock while we wait for a guest: then it is given back, and taken again afterwards.

    :raises Conflict: others hold them for too long; :raises Cancelled: the person gave up.
    """
    locks, clock = context.ports.locks, context.ports.clock
    uuids, waiting = proposal.plan.uuids, context.waiting(proposal.operation)
    starts = not proposal.locks_host and proposal.plan.starts
    deadline = clock.monotonic() + PATIENCE
    while True:
        if proposal.locks_host or starts:
            host.enter_context(locks.host(replace(waiting, quiet=0.0 if proposal.locks_host else A_LOOK)))
        try:
            guests.enter_context(locks.guests(uuids, NOT_AT_ALL, starts=starts))
        except Conflict:
            host.close()
            if clock.monotonic() >= deadline:
                raise
        else:
            return
        with locks.guests(uuids, waiting):
            context.check()


def _begin(ports: Ports, proposal: Proposal, plan: Plan, job: Job) -> Record:
    """Write down what will be done; where that fails, nothing of it stays."""
    record = Record(ports.journals.begin(job.id))
    try:
        record.begin(proposal.operation, plan, user=user_name(), time=ports.clock.now())
    except BaseException:
        record.close(done=True)
        raise
    return record


def _settle_interrupted(ports: Ports, context: Context) -> None:
    if ports.journals.any_open():
        with ports.locks.host(context.waiting("recover")):
            for settled in recover(context):
                context.on_event(Notice(settled.operation, f"interrupted earlier: {settled}"))


def _context(ports: Ports, proposal: Proposal, job: Job) -> Context:
    site = proposal.plan.site
    keys = {site: str(ports.keys.private_file(site))} if site else {}
    return Context(ports, proposal.secrets, keys, job.tell, job.cancelled)


def _plan_again(ports: Ports, proposal: Proposal) -> tuple[Observed | None, Plan]:
    """Look and plan as under these locks; of a narrow look, which nothing is verified from, the plan alone is of use.

    :raises Conflict: the plan is another one than was shown.
    """
    if proposal.narrow is not None:
        observed, plan = None, proposal.narrow()
    else:
        observed = observe(ports, proposal.seen)
        plan = proposal.again(observed)
    if plan.same_as(proposal.plan) or plan.same_as(proposal.plan.without_pools(plan)):
        return observed, plan
    text = f"the host changed since the plan was shown; nothing was done ({plan.news(proposal.plan)})"
    raise Conflict(text, subject=plan.site, hint="vmhost plan SITE")


def _store_keys(ports: Ports, proposal: Proposal) -> None:
    for site, pair in proposal.new_keys.items():
        try:
            ports.keys.store(site, pair)
        except AlreadyThere as error:
            text = "another vmhost made the site's SSH key meanwhile; nothing was done"
            raise Conflict(text, subject=site, hint="vmhost plan SITE") from error


def _verify(ports: Ports, proposal: Proposal, before: Observed | None) -> None:
    """Read again what may have changed since ``before``. :raises VerifyError: with every difference."""
    if proposal.drift is None:
        return
    assert before is not None
    differences = proposal.drift(observe_again(ports, before, proposal.plan))
    if differences:
        texts = tuple(str(item) for item in differences)
        raise VerifyError(
            f"applied, but {len(texts)} fields differ",
            subject=proposal.plan.site,
            hint="vmhost drift SITE",
            differences=texts,
        )


def recover_host(ports: Ports, *, on_event: Listener | None = None) -> tuple[Recovered, ...]:
    """Settle every interrupted operation now; return what became of each.

    :raises Conflict: another vmhost is at work; :raises DamagedData: a journal cannot be read.
    """
    check_may_change(ports.hypervisor)
    if not ports.journals.any_open():
        return ()
    context = Context(ports)
    if on_event is not None:
        context = replace(context, on_event=on_event)
    with ports.locks.host(context.waiting("recover")):
        return recover(context)


def warn_of_interrupted(ports: Ports) -> bool:
    """Return whether an operation was interrupted and waits for ``vmhost recover``; never fails."""
    with suppress(PermissionDenied):
        return ports.journals.any_open()
    return False
