"""Changes of services as plans that are looked at before they are carried out: acts, deployments, rolls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from vmhost.model.errors import Refused
from vmhost.model.events import Event, Notice, StepDone
from vmhost.model.plan import Note
from vmhost.model.serviceplan import ServiceOutcome, ServicePlan, ServiceStep
from vmhost.ops.serviceact import words_of
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
_HARM: Final = {"start": "", "stop": "stops", "restart": "is away for a moment"}


@dataclass(frozen=True, slots=True)
class ServiceProposal:
    """A plan together with what carries it out; that looks at each guest again under its lock."""

    operation: str
    plan: ServicePlan
    fragment: str = ""
    work: CarryOut = field(repr=False, default=lambda _tell, _cancelled: ())

    def carry_out(self, host: Host, *, on_event: Listener, cancelled: Callable[[], bool]) -> ServiceOutcome:
        """Do it, after everything that was interrupted is settled.

        :raises VmhostError: it failed or was cancelled, as :meth:`vmhost.ops.services.Services.deploy`, ``roll`` and
            ``act`` say.
        """
        if host.interrupted():
            host.recover(on_event=on_event)
        done: set[str] = set()

        def tell(event: Event) -> None:
            if isinstance(event, StepDone):
                done.add(event.why)
            on_event(event)

        results = self.work(tell, cancelled)
        for result in results:
            if result.error is not None:
                for other in results:
                    if other.text == "not tried":
                        on_event(Notice(other.guest, f"{other.service}: not tried"))
                raise result.error
        # What somebody else did meanwhile was not done again.
        for number, step in enumerate(self.plan.steps, 1):
            if step.why not in done:
                on_event(StepDone(number, len(self.plan.steps), step.subject, step.why, 0.0))
        return ServiceOutcome(
            tuple(f"{result.service} in {result.guest}: {result.text}" for result in results), self.fragment
        )


def propose_act(host: Host, name: str, verb: Verb, guests: Sequence[str] = ()) -> ServiceProposal:
    """Plan to start, stop or restart a service, in these guests or in all that have it; the guests are asked how it is.

    :raises NotFound: there is no such service or guest; :raises Refused: it has no unit.
    """
    services = host.services
    rows = {row.guest: row for row in services.list([name], guests=guests)}
    steps = []
    for item in services.find([name], guests):
        if item.state is not None and item.state.unit is None:
            hint = f"vmhost service status {name}"
            raise Refused(f"{name}: this service has no unit", subject=item.guest, hint=hint)
        shown = (*_now(rows.get(item.guest)), *(("nothing starts it again by itself",) if verb == "stop" else ()))
        steps.append(ServiceStep(item.guest, words_of(verb, item), NOT_UNDONE, shown))
    chosen = tuple(step.subject for step in steps)
    harm = f"{name} {_HARM[verb]} in {', '.join(chosen)}" if _HARM[verb] else ""
    return ServiceProposal(
        f"service {verb} {name}",
        ServicePlan(tuple(steps), harm=harm),
        work=lambda tell, cancelled: services.act([name], verb, guests=chosen, on_event=tell, cancelled=cancelled),
    )


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
    return _of_deployment(host, host.services.plan_delete(name, guests=guests), f"service delete {name}")


def _of_deployment(host: Host, deployment: Deployment, operation: str) -> ServiceProposal:
    check_possible(deployment)
    steps = tuple(step for item in deployment.items for step in _steps(item))
    notes = tuple(Note(item.guest, text) for item in deployment.items for text in item.plan.satisfied)
    return ServiceProposal(
        operation,
        ServicePlan(steps, notes if not steps else ()),
        work=lambda tell, cancelled: host.services.deploy(deployment, on_event=tell, cancelled=cancelled),
    )


def propose_roll(
    host: Host, name: str, how: Rolling, *, file: str = "", to: str = "", refresh: bool = True, rollback: bool = False
) -> ServiceProposal:
    """Plan a rolling change to what a site file says, or to another version.

    :param refresh: as for :meth:`vmhost.ops.services.Services.plan_roll`; :param rollback: take it all back when it
        fails.
    """
    from vmhost.ops.sites import load_site

    site = load_site(file) if file else None
    plan = host.services.plan_roll(name, how, site=site, to=to, refresh=refresh and bool(to))
    return _of_roll(host, plan, rollback=rollback)


def propose_back(host: Host, name: str, how: Rolling) -> ServiceProposal:
    """Plan to take the last roll of a service back.

    :raises NotFound: there is nothing to go back to; :raises Unreachable: no guest that has something answers.
    """
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
        steps.append(ServiceStep(plan.service, f"{plan.service}: the mark of the roll goes", NOT_UNDONE))
    notes = [Note(guest, f"not known: {error.message}") for guest, error in plan.unknown.items()]
    return ServiceProposal(
        f"service roll {plan.service}",
        ServicePlan(tuple(steps), tuple(notes)),
        plan.fragment,
        lambda tell, cancelled: host.services.roll(plan, rollback=rollback, on_event=tell, cancelled=cancelled),
    )


def _steps(item: GuestDeployment, when: str = "") -> Iterator[ServiceStep]:
    """Yield the steps in one guest; their sentences are those of :func:`vmhost.engine.services.carry.carry_out`."""
    head = f"{item.guest}: {item.service}"
    for step in item.plan.steps:
        yield ServiceStep(item.guest, f"{head}: {step.why}", "; ".join(map(_words, step.undo)), step.shown, when)
    if item.plan.empty and not item.recorded:
        what = "nothing of it is there: take it out of" if item.wanted.gone else "all is there: note it in"
        yield ServiceStep(item.guest, f"{head}: {what} the guest's metadata", NOT_UNDONE, (), when)


def _words(op: GuestOp) -> str:
    """Return an operation in few words."""
    names = ("path", "unit", "name", "key", "packages")
    about = next((getattr(op, name) for name in names if hasattr(op, name)), "")
    words = getattr(op, "verb", "") or op.kind.replace("-", " ")
    return f"{words} {' '.join(about) if isinstance(about, tuple) else about}".strip()
