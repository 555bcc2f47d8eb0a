"""Changes of services as plans that are looked at before they are carried out: acts, deployments, rolls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from vmhost.model.errors import Refused
from vmhost.model.events import Event, Notice, StepDone
from vmhost.model.guestops import ActOnUnit
from vmhost.model.plan import Change, Note
from vmhost.model.serviceplan import ServiceOutcome, ServicePlan, ServiceStep
from vmhost.ops.serviceact import check_may_act, words_of
from vmhost.ops.servicedeploy import check_possible
from vmhost.render.service import service_secrets

if TYPE_CHECKING:
    from vmhost.model.guestops import GuestOp
    from vmhost.model.services import Rolling, ServiceRow
    from vmhost.ops.host import Host
    from vmhost.ops.servicedeploy import Deployment, GuestDeployment
    from vmhost.ops.serviceroll import Roll
    from vmhost.ops.services import ActionResult, Verb

Listener = Callable[[Event], None]
CarryOut = Callable[[Listener, Callable[[], bool]], "Sequence[ActionResult]"]

NOT_UNDONE: Final = "is not undone"
_HARM: Final = {
    "stop": "stops",
    "restart": "is away for a moment",
    "reload-or-restart": "is reloaded or restarted",
}
_LISTED: Final = 3
"""Guests that are named; more are counted."""


@dataclass(frozen=True, slots=True)
class ServiceProposal:
    """A plan together with what carries it out; that looks at each guest again under its lock."""

    operation: str
    plan: ServicePlan
    fragment: str = ""
    work: CarryOut = field(repr=False, default=lambda _tell, _cancelled: ())

    def carry_out(self, host: Host, *, on_event: Listener, cancelled: Callable[[], bool]) -> ServiceOutcome:
        """Do it. What is empty does nothing.

        :raises VmhostError: it failed or was cancelled, as :meth:`vmhost.ops.services.Services.deploy`, ``roll`` and
            ``act_on`` say; :raises Refused: an operation was interrupted since it was planned.
        """
        if self.plan.empty:
            return ServiceOutcome(())
        _check_settled(host)
        results = self.work(on_event, cancelled)
        for result in results:
            if result.error is not None:
                for other in results:
                    if other.text == "not tried":
                        on_event(Notice(other.guest, f"{other.service}: not tried"))
                raise result.error
        for number, step in enumerate(self.plan.steps, 1):
            if step.quiet:
                on_event(StepDone(number, len(self.plan.steps), step.subject, step.why, 0.0))
        return ServiceOutcome(
            tuple(f"{result.service} in {result.guest}: {result.text}" for result in results), self.fragment
        )


def _check_settled(host: Host) -> None:
    """Refuse while an operation waits to be settled: that may undo much else, and nobody said yes to it here."""
    if host.interrupted():
        text = "an operation was interrupted and is to be settled first"
        raise Refused(text, subject="services", hint="vmhost recover")


def propose_act(host: Host, name: str, verb: Verb, guests: Sequence[str] = ()) -> ServiceProposal:
    """Plan to start, stop or restart a service, in these guests or in all that have it; the guests are asked how it is.

    :raises VmhostError: as :meth:`vmhost.ops.services.Services.act` before it changes anything; :raises Refused: an
        operation was interrupted.
    """
    _check_settled(host)
    services = host.services
    found = services.to_act_on([name], guests)
    check_may_act(found)
    rows = {row.guest: row for row in services.list([name], guests=guests)}
    steps = []
    for item in found:
        shown = (*_now(rows.get(item.guest)), *(("nothing starts it again by itself",) if verb == "stop" else ()))
        steps.append(ServiceStep(item.guest, words_of(verb, item), NOT_UNDONE, shown))
    harm = _harm(name, _HARM.get(verb, ""), [item.guest for item in found])
    return ServiceProposal(
        f"service {verb} {name}",
        ServicePlan(tuple(steps), harm=harm),
        work=lambda tell, cancelled: services.act_on(found, verb, on_event=tell, cancelled=cancelled),
    )


def _harm(name: str, what: str, guests: Sequence[str]) -> str:
    where = ", ".join(guests) if len(guests) <= _LISTED else f"{len(guests)} guests"
    return f"{name} {what} in {where}" if what and guests else ""


def _now(row: ServiceRow | None) -> Iterator[str]:
    if row is None:
        return
    if row.error:
        yield f"not reached: {row.error}"
        return
    yield f"now: {row.state or 'unknown'}{f', since {row.since}' if row.since else ''}; {row.health}"
    for look in row.looks:
        yield f"{'+' if look.good else '-'} {look.probe}: {look.text}"


def propose_deploy(host: Host, file: str, only: Sequence[str] = (), guests: Sequence[str] = ()) -> ServiceProposal:
    """Plan to bring the services of a site file to its guests.

    :raises SpecError: the file is wrong; :raises NotFound: it has no such service, or a guest is not there yet;
        :raises Refused: a guest cannot hold its service, with every reason.
    """
    from vmhost.ops.sites import load_site

    _check_settled(host)
    services = host.services
    deployment = services.plan_deploy(load_site(file), only=only, guests=guests)
    return _of_deployment(host, deployment, f"service deploy {deployment.site}")


def needs_secrets(file: str, only: Sequence[str] = ()) -> bool:
    """Return whether secrets are read to plan services of a site file. :raises SpecError: the file is wrong."""
    from vmhost.ops.sites import load_site

    services = load_site(file).services
    return any(tuple(service_secrets(spec)) for name, spec in services.items() if not only or name in only)


def propose_delete(host: Host, name: str, guests: Sequence[str] = ()) -> ServiceProposal:
    """Plan to take a service out of its guests.

    :raises NotFound: there is no such service; :raises Refused: a roll of it is under way.
    """
    _check_settled(host)
    return _of_deployment(host, host.services.plan_delete(name, guests=guests), f"service delete {name}")


def _of_deployment(host: Host, deployment: Deployment, operation: str) -> ServiceProposal:
    check_possible(deployment)
    steps = tuple(step for item in deployment.items for step in _steps(item))
    notes = tuple(Note(item.guest, text) for item in deployment.items for text in item.plan.satisfied)
    return ServiceProposal(
        operation,
        ServicePlan(steps, notes if not steps else (), _harm_of(deployment.items)),
        work=lambda tell, cancelled: host.services.deploy(deployment, on_event=tell, cancelled=cancelled),
    )


def _harm_of(items: Iterable[GuestDeployment]) -> str:
    """Return which services stop or are away meanwhile, and where, as one sentence."""
    found: dict[tuple[str, str], list[str]] = {}
    for item in items:
        verbs = {step.do.verb for step in item.plan.steps if isinstance(step.do, ActOnUnit)}
        what = next((words for verb, words in _HARM.items() if verb in verbs), "")
        if {"stop", "start"} <= verbs:
            what = _HARM["restart"]
        if item.wanted.gone and not item.empty:
            what = "stops and is taken out"
        found.setdefault((item.service, what), []).append(item.guest)
    return "; ".join(filter(None, (_harm(name, what, guests) for (name, what), guests in found.items())))


def propose_roll(
    host: Host, name: str, how: Rolling, *, file: str = "", to: str = "", refresh: bool = True, rollback: bool = False
) -> ServiceProposal:
    """Plan a rolling change to what a site file says, or to another version.

    :param refresh: as for :meth:`vmhost.ops.services.Services.plan_roll`; :param rollback: take it all back when it
        fails.
    """
    from vmhost.ops.sites import load_site

    _check_settled(host)
    site = load_site(file) if file else None
    plan = host.services.plan_roll(name, how, site=site, to=to, refresh=refresh and bool(to))
    return _of_roll(host, plan, rollback=rollback)


def propose_back(host: Host, name: str, how: Rolling) -> ServiceProposal:
    """Plan to take the last roll of a service back.

    :raises NotFound: there is nothing to go back to; :raises Unreachable: no guest that has something answers.
    """
    _check_settled(host)
    return _of_roll(host, host.services.plan_back(name, how), rollback=False)


def _of_roll(host: Host, plan: Roll, *, rollback: bool) -> ServiceProposal:
    steps: list[ServiceStep] = []
    for number, batch in enumerate(plan.batches, 1):
        canary = " (canary)" if number <= plan.how.canary and not plan.back else ""
        for guest in batch:
            steps += _steps(plan.items[guest], f"batch {number}{canary}: ")
    if not steps and plan.unknown:
        raise next(iter(plan.unknown.values()))
    if not steps and not plan.empty:
        steps.append(ServiceStep(plan.service, f"{plan.service}: the mark of the roll goes", NOT_UNDONE, quiet=True))
    notes = [Note(guest, f"not known: {error.message}") for guest, error in plan.unknown.items()]
    harm = _harm_of(plan.items[guest] for batch in plan.batches for guest in batch)
    return ServiceProposal(
        f"service roll {plan.service}",
        ServicePlan(tuple(steps), tuple(notes), harm),
        plan.fragment,
        lambda tell, cancelled: host.services.roll(plan, rollback=rollback, on_event=tell, cancelled=cancelled),
    )


def _steps(item: GuestDeployment, when: str = "") -> Iterator[ServiceStep]:
    """Yield the steps in one guest; their sentences are those of :func:`vmhost.engine.services.carry.carry_out`."""
    head = f"{item.guest}: {item.service}"
    change = Change.REMOVE if item.wanted.gone else Change.LIVE
    for step in item.plan.steps:
        undo = "; ".join(map(_words, step.undo))
        yield ServiceStep(item.guest, f"{head}: {step.why}", undo, step.shown, when, change)
    if item.plan.empty and not item.recorded:
        what = "nothing of it is there: take it out of" if item.wanted.gone else "all is there: note it in"
        why = f"{head}: {what} the guest's metadata"
        yield ServiceStep(item.guest, why, NOT_UNDONE, (), when, change, quiet=True)


def _words(op: GuestOp) -> str:
    """Return an operation in few words."""
    names = ("path", "unit", "name", "key", "packages")
    about = next((getattr(op, name) for name in names if hasattr(op, name)), "")
    words = getattr(op, "verb", "") or op.kind.replace("-", " ")
    return f"{words} {' '.join(about) if isinstance(about, tuple) else about}".strip()
