"""Deploying services: facts, a plan for each guest, the plan again under the guest's lock, its steps, readiness."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from vmhost.engine.context import Context
from vmhost.engine.execute import execute
from vmhost.engine.observe import observe_domains
from vmhost.engine.services.carry import carry_out
from vmhost.engine.services.facts import Gatherer
from vmhost.engine.services.line import Lines
from vmhost.engine.services.ready import await_ready
from vmhost.model.errors import Conflict, NotFound, Refused, Unreachable, VmhostError
from vmhost.model.events import Event
from vmhost.model.guestops import GuestOp, GuestPlan
from vmhost.model.reservations import iso
from vmhost.model.services import DeployedService, GuestFacts
from vmhost.model.spec.service import ServiceState
from vmhost.model.steps import SetMetadata
from vmhost.ops.build import user_name
from vmhost.ops.jobs import Job
from vmhost.ops.permission import check_may_change
from vmhost.ops.services import ActionResult, Found, looker
from vmhost.plan.services import plan_service
from vmhost.plan.settling import settling
from vmhost.render.metadata import metadata_xml
from vmhost.render.parse.metadata import parse_metadata
from vmhost.render.service import Desired, Place, canonical, desired, service_secrets

if TYPE_CHECKING:
    from vmhost.model.observed import ObservedDomain
    from vmhost.model.spec import ServiceSpec, Site
    from vmhost.ports import Ports


@dataclass(frozen=True)
class GuestDeployment:
    """What a deployment does in one guest; ``error`` says why nothing is known of it."""

    guest: str
    service: str
    domain: ObservedDomain = field(repr=False)
    wanted: Desired = field(repr=False)
    plan: GuestPlan
    facts: GuestFacts = field(repr=False)
    error: VmhostError | None = None

    @property
    def recorded(self) -> bool:
        """Whether the guest's metadata already says so."""
        deployed = self.domain.metadata.services if self.domain.metadata else ()
        if self.wanted.gone:
            return all(item.name != self.service for item in deployed)
        return any(item.name == self.service and item.sha256 == self.wanted.sha256 for item in deployed)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return self.error is None and not self.plan.refused and self.plan.empty and self.recorded


@dataclass(frozen=True)
class Deployment:
    """What :meth:`Services.plan_deploy` returns: print it, look at ``items``, hand it to :meth:`Services.deploy`."""

    site: str
    items: tuple[GuestDeployment, ...]

    @property
    def empty(self) -> bool:
        """Whether every guest already is as it should be."""
        return all(item.empty for item in self.items)

    def lines(self, *, satisfied: bool = False) -> tuple[str, ...]:
        """Return the plan as lines; with ``satisfied`` also what is right already, and why."""
        lines: list[str] = []
        for item in self.items:
            lines += lines_of(item, satisfied=satisfied)
        return tuple(lines) if lines else (f"{self.site}: nothing to do",)

    def __str__(self) -> str:
        return "\n".join(self.lines())


def lines_of(item: GuestDeployment, *, satisfied: bool) -> list[str]:
    """Return what is done in one guest as lines; none when there is nothing to say."""
    head = f"{item.guest}: {item.service} {item.wanted.state.version} ({item.wanted.state.env})"
    if item.error is not None:
        return [f"{head}: not known: {item.error.message}"]
    if item.plan.refused:
        return [f"{head}: refused: {item.plan.refused}"]
    lines = []
    for number, step in enumerate(item.plan.steps, 1):
        lines.append(f"{number:3}  {step.why}")
        lines += [f"       {line}" for line in step.shown]
    if item.plan.empty and not item.recorded:
        what = "nothing of it is there: take it out of" if item.wanted.gone else "all is there: note it in"
        lines.append(f"     {what} the guest's metadata")
    if satisfied:
        lines += [f"  -  {text}" for text in item.plan.satisfied]
    return [head, *lines] if lines else []


def plan_delete(lines: Lines, name: str, found: Sequence[Found]) -> Deployment:
    """Return how a service is taken out of guests. :raises Refused: it is being rolled, or a newer vmhost's."""
    from vmhost.drivers.ssh.fanout import map_guests

    wanted: dict[str, tuple[ObservedDomain, Desired]] = {}
    for item in found:
        if item.state is None:
            raise Refused("a newer vmhost deployed this service: read-only for this one", subject=item.guest)
        if item.deployed.roll:
            hint = f"vmhost service roll {name} --back"
            raise Refused(f"{name}: a roll is under way there", subject=item.guest, hint=hint)
        bare = ServiceState(name=name, version=item.deployed.version, env=item.deployed.env)
        wanted[item.guest] = (item.domain, Desired(bare, {}, former=item.state, gone=True))
    answers = map_guests(lambda pair: plan_guest(lines, *pair), wanted)
    items = [
        answer if isinstance(answer, GuestDeployment) else _unknown(*wanted[guest], answer)
        for guest, answer in answers.items()
    ]
    return Deployment(name, tuple(items))


def plan_deploy(
    ports: Ports, lines: Lines, site: Site, *, only: Sequence[str] = (), guests: Sequence[str] = ()
) -> Deployment:
    """Plan as :func:`plan_among`. :raises NotFound: a guest is named that none of these services goes to."""
    meant = {guest for name, spec in site.services.items() if not only or name in only for guest in spec.guests}
    for guest in guests:
        if guest not in meant:
            text = f"no service of site {site.name} that is meant goes to this guest"
            raise NotFound(text, subject=guest, hint="vmhost guest list")
    return plan_among(ports, lines, site, only=only, guests=guests)


def plan_among(ports: Ports, lines: Lines, site: Site, *, only: Sequence[str], guests: Sequence[str]) -> Deployment:
    """Ask those of these guests that the site means, eight at a time, and plan; one that does not answer is told with
    its error.
    """
    from vmhost.drivers.ssh.fanout import map_guests

    for name in only:
        if name not in site.services:
            known = ", ".join(site.services) or "none"
            raise NotFound(f"site {site.name} has no such service; it has {known}", subject=name, hint="vmhost schema")
    chosen = {name: spec for name, spec in site.services.items() if not only or name in only}
    domains = {domain.name: domain for domain in observe_domains(ports.hypervisor)}
    wanted: dict[str, tuple[ObservedDomain, Desired]] = {}
    for name, spec in chosen.items():
        secrets = _secrets(spec)
        for guest in spec.guests:
            if not guests or guest in guests:
                domain = _ours(domains.get(guest), guest, site)
                place = _place(site, domain)
                wanted[f"{name}\0{guest}"] = (domain, desired(name, spec, place, secrets))
    answers = map_guests(lambda item: plan_guest(lines, *item), wanted)
    items = [
        answer if isinstance(answer, GuestDeployment) else _unknown(*wanted[key], answer)
        for key, answer in answers.items()
    ]
    return Deployment(site.name, tuple(items))


def _ours(domain: ObservedDomain | None, guest: str, site: Site) -> ObservedDomain:
    hint = f"vmhost apply {site.path or 'SITE'}"
    if domain is None:
        raise NotFound("this guest is not there yet", subject=guest, hint=hint)
    if domain.metadata is None or domain.metadata.site != site.name:
        owner = domain.metadata.site if domain.metadata else ""
        text = f"this guest belongs to site {owner}" if owner else "this guest is foreign"
        raise Refused(f"{text}, not to {site.name}", subject=guest, hint="vmhost guest list")
    if not domain.metadata.readable:
        raise Refused("a newer vmhost wrote its metadata: read-only for this one", subject=guest)
    return domain


def _place(site: Site, domain: ObservedDomain) -> Place:
    nics = domain.metadata.identity.nics if domain.metadata else ()
    address = next((nic.address.partition("/")[0] for nic in nics if nic.address), "")
    spec = site.guest(domain.name)
    return Place(domain.name, address, spec.labels if spec else {})


def _secrets(spec: ServiceSpec) -> dict[str, str]:
    from vmhost.drivers.secrets import SecretReader

    reader = SecretReader()
    return {reference.key(): reader.read(reference) for reference in service_secrets(spec)}


def plan_guest(lines: Lines, domain: ObservedDomain, wanted: Desired) -> GuestDeployment:
    """Ask a guest for facts and plan. :raises Unreachable: it does not run, or does not answer."""
    if not domain.active:
        raise Unreachable("the guest does not run", subject=domain.name, hint=f"vmhost guest start {domain.name}")
    facts = Gatherer(lines, domain.name).for_plan(wanted)
    plan = plan_service(domain.name, wanted, facts)
    return GuestDeployment(domain.name, wanted.state.name, domain, wanted, plan, facts)


def _unknown(domain: ObservedDomain, wanted: Desired, error: VmhostError) -> GuestDeployment:
    name = wanted.state.name
    return GuestDeployment(domain.name, name, domain, wanted, GuestPlan(domain.name, name), GuestFacts(), error)


def deploy(
    ports: Ports,
    lines: Lines,
    deployment: Deployment,
    *,
    on_event: Callable[[Event], None] | None,
    cancelled: Callable[[], bool] | None,
    wait: bool,
) -> tuple[ActionResult, ...]:
    """Carry out a deployment, one guest after the other."""
    check_may_change(ports.hypervisor)
    check_possible(deployment)
    todo = [item for item in deployment.items if not item.empty]
    if not todo:
        return ()
    subject = " ".join(dict.fromkeys(item.service for item in todo))
    done = []
    kind = "service delete" if all(item.wanted.gone for item in todo) else "service deploy"
    with Job(ports, kind, subject, on_event, cancelled) as job:
        for item in todo:
            text = deploy_one(ports, lines, item, tell=job.tell, cancelled=job.cancelled, wait=wait)
            done.append(ActionResult(item.service, item.guest, text))
    return tuple(done)


def check_possible(deployment: Deployment) -> None:
    """Return when every guest is known and can hold its service.

    :raises Refused: with every reason; :raises VmhostError: the error of the first guest that nothing is known of.
    """
    refused = [f"{item.guest}: {item.service}: {item.plan.refused}" for item in deployment.items if item.plan.refused]
    if refused:
        raise Refused("; ".join(refused), subject=deployment.site, hint="vmhost service deploy SITE --dry-run")
    for item in deployment.items:
        if item.error is not None:
            raise item.error


def deploy_one(
    ports: Ports,
    lines: Lines,
    item: GuestDeployment,
    *,
    tell: Callable[[Event], None],
    cancelled: Callable[[], bool],
    wait: bool,
    first: Callable[[GuestDeployment], None] | None = None,
) -> str:
    """Carry out what a deployment does in one guest, under its lock, and wait until the service is ready.

    :param first: what is done before all else, when the guest is known to be as it was shown; it gets the plan of now.
    """
    context = Context(ports, on_event=tell, cancelled=cancelled)
    with ports.locks.guests([item.domain.uuid], context.waiting(item.guest)):
        fresh = plan_guest(lines, item.domain, item.wanted)
        # Less than was shown is fine: another service of this deployment may have made a directory of both.
        if any(step not in item.plan.steps for step in fresh.plan.steps):
            text = "the guest changed since the plan was shown; nothing was done"
            raise Conflict(text, subject=item.guest, hint="vmhost service deploy SITE")
        if fresh.plan.refused:
            raise Refused(fresh.plan.refused, subject=item.guest, hint="vmhost service deploy SITE --dry-run")
        if first is not None:
            first(fresh)

        def settle(begun: Sequence[GuestOp]) -> Sequence[GuestOp]:
            return settling(begun, item.wanted, fresh.facts)

        carry_out(fresh.plan, lines, ports.clock, settle=settle, on_event=tell, cancelled=cancelled)
        record(ports, item.domain, item.wanted)
    if wait:
        await_ready(ports, looker(ports, lines, item.domain), item.domain, item.wanted.state, context)
    count = len(fresh.plan.steps)
    return f"{count} step{'' if count == 1 else 's'} done"


def record(ports: Ports, domain: ObservedDomain, wanted: Desired) -> None:
    """Note in a guest's metadata what was deployed into it, or is gone from it; the guest's lock is held."""
    metadata = parse_metadata(ports.hypervisor.domain(domain.uuid).xml)
    if metadata is None:
        raise NotFound("the guest's metadata is gone", subject=domain.name, hint="vmhost guest list")
    state = wanted.state
    before = next((item for item in metadata.services if item.name == state.name), None)
    service = DeployedService(
        name=state.name,
        version=state.version,
        env=state.env,
        sha256=wanted.sha256,
        state=canonical(state),
        deployed=iso(ports.clock.now()),
        user=user_name(),
        roll=before.roll if before else "",
    )
    others = tuple(item for item in metadata.services if item.name != state.name)
    services = others if wanted.gone else tuple(sorted((*others, service), key=lambda item: item.name))
    step = SetMetadata(domain.uuid, domain.name, metadata_xml(replace(metadata, services=services)))
    execute(step, Context(ports))
