"""Rolling change: a service is changed guest by guest, each until it is ready; a failure halts it, or takes it back.

What is under way stands in the metadata of every guest of the group, and what was there before lies in each guest. So a
roll whose vmhost died is continued, or taken back, by another one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from vmhost.drivers.ssh.fanout import map_guests
from vmhost.engine.context import Context
from vmhost.engine.execute import execute
from vmhost.engine.services.carry import do
from vmhost.engine.services.facts import Gatherer
from vmhost.engine.services.ready import await_ready
from vmhost.model.errors import ApplyError, Cancelled, NotFound, PartlyDone, Refused, VmhostError
from vmhost.model.events import Event, Notice, StepDone, StepFailed, StepStarted, Undone
from vmhost.model.guestops import RefreshPackages
from vmhost.model.services import Health, Rolling
from vmhost.model.spec.service import ServiceState
from vmhost.model.steps import SetMetadata
from vmhost.ops.jobs import Job
from vmhost.ops.permission import check_may_change
from vmhost.ops.serviceback import BACK, check_whole, keep_previous, known_state, read_previous
from vmhost.ops.servicedeploy import (
    Deployment,
    GuestDeployment,
    check_possible,
    deploy_one,
    lines_of,
    plan_among,
    plan_guest,
)
from vmhost.ops.services import ActionResult, Found, Services
from vmhost.plan.rolling import batches, refusal, retarget
from vmhost.render.guestfacts import ask_versions, read_versions
from vmhost.render.metadata import metadata_xml
from vmhost.render.parse.metadata import parse_metadata
from vmhost.render.service import Desired, digest

if TYPE_CHECKING:
    from vmhost.model.spec import Site
    from vmhost.ports import Ports

Tell = Callable[[Event], None]


@dataclass(frozen=True)
class Roll:
    """What a rolling change will do: print it, and hand it to :meth:`Services.roll`.

    ``batches`` are the guests that are still to be changed, in order; ``back`` takes a change back. ``marks`` is what
    the metadata of each guest say while it is under way: where it goes, and which roll it is. ``unknown`` are guests of
    which nothing is known, and why: the others are taken back without them.
    """

    service: str
    how: Rolling
    batches: tuple[tuple[str, ...], ...]
    items: Mapping[str, GuestDeployment] = field(repr=False)
    group: tuple[Found, ...] = field(repr=False)
    marks: Mapping[str, str] = field(repr=False)
    unknown: Mapping[str, VmhostError] = field(default_factory=dict)
    fragment: str = ""
    back: bool = False

    @property
    def empty(self) -> bool:
        """Whether every guest already is where it should be, and no roll is under way."""
        return not self.batches and not self.unknown and not any(item.deployed.roll for item in self.marked)

    @property
    def marked(self) -> tuple[Found, ...]:
        """The guests whose marks are this roll's."""
        return tuple(item for item in self.group if item.guest in self.marks)

    def lines(self) -> tuple[str, ...]:
        """Return the plan as lines."""
        found: list[str] = []
        for number, batch in enumerate(self.batches, 1):
            canary = " (canary)" if number <= self.how.canary and not self.back else ""
            found.append(f"batch {number}{canary}: {', '.join(batch)}")
            for guest in batch:
                found += [f"  {line}" for line in lines_of(self.items[guest], satisfied=False)]
        found += [f"not known: {guest}: {error.message}" for guest, error in self.unknown.items()]
        if not found and any(item.deployed.roll for item in self.marked):
            return (f"{self.service}: all is done; the mark of the roll goes",)
        return tuple(found) if found else (f"{self.service}: nothing to do",)

    def __str__(self) -> str:
        return "\n".join(self.lines())


def plan_roll(
    ports: Ports,
    services: Services,
    name: str,
    how: Rolling,
    *,
    site: Site | None = None,
    to: str = "",
    refresh: bool = False,
) -> Roll:
    """Return how a service gets to what the site says, or to another version of its packages."""
    group = services.find([name])
    if site is not None:
        if to:
            raise Refused("either a site or a version says where to", subject=name, hint="vmhost service roll --help")
        among = [item.guest for item in group]
        deployment = plan_among(ports, services.lines, site, only=[name], guests=among)
    else:
        deployment = _retargeted(services, name, group, to, refresh=refresh)
    check_possible(deployment)
    items = {item.guest: item for item in deployment.items}
    marks = _marks(ports, group, items)
    todo = [guest for guest, item in items.items() if not item.empty]
    for item in group:
        if item.guest in todo and not item.deployed.roll:
            check_whole(item.guest, known_state(item), items[item.guest].facts)
    down = _down(services, name)
    staying = [guest for guest in down if guest not in todo]
    why = refusal(staying, how)
    if why and todo:
        raise Refused(why, subject=name, hint=f"vmhost service check {name}")
    order = batches(todo, how, down, staying)
    return Roll(name, how, order, items, group, marks, fragment=_fragment(name, deployment) if to else "")


def _down(services: Services, name: str) -> list[str]:
    return [row.guest for row in services.check([name]) if row.error or row.health is Health.DOWN]


def _marks(ports: Ports, group: Sequence[Found], items: Mapping[str, GuestDeployment]) -> dict[str, str]:
    """Return each guest's mark; that of a roll that goes on stays. :raises Refused: one to elsewhere is under way."""
    under_way = [item for item in group if item.deployed.roll]
    for item in under_way:
        _check_target(item, items[item.guest].wanted.sha256 if item.guest in items else "")
    stamp = under_way[0].deployed.roll.partition("-")[2] if under_way else ports.entropy.uuid()[:8]
    return {guest: f"{item.wanted.sha256[:12]}-{stamp}" for guest, item in items.items()}


def _check_target(item: Found, target: str) -> None:
    if item.deployed.roll and item.deployed.roll.partition("-")[0] != target[:12]:
        text = "a roll is under way there, to something else: take it back, or go on to where it went"
        raise Refused(text, subject=item.guest, hint=f"vmhost service roll {item.deployed.name} --back")


def _retargeted(services: Services, name: str, group: tuple[Found, ...], to: str, *, refresh: bool) -> Deployment:
    """Plan another version with the files that the guests have now."""
    offered: dict[str, Sequence[str]] | None = None

    def one(item: Found) -> GuestDeployment:
        nonlocal offered
        state = known_state(item)
        if offered is None:
            offered = _offered(services, item, state, refresh=refresh)
        wanted, why = retarget(state, to, offered)
        if why:
            raise Refused(why, subject=item.guest, hint=f"vmhost guest exec {item.guest} --sudo -- apt-get update")
        _check_target(item, digest(wanted))
        return plan_guest(services.lines, item.domain, _as_found(services, item, wanted))

    return Deployment(name, tuple(one(item) for item in group))


def _offered(services: Services, item: Found, state: ServiceState, *, refresh: bool) -> dict[str, Sequence[str]]:
    if refresh:
        do(item.guest, RefreshPackages(), services.lines)
    names = [package.partition("=")[0] for package in state.packages]
    return read_versions(services.lines.run(item.guest, ask_versions(names), again=True).stdout)


def _as_found(services: Services, item: Found, state: ServiceState) -> Desired:
    """Return a state with the files that the guest has; it must have them as they were deployed."""
    gatherer = Gatherer(services.lines, item.guest)
    check_whole(item.guest, state, gatherer.for_drift(state))
    return Desired(state, {file.path: gatherer.text(file.path) for file in state.files})


def _fragment(name: str, deployment: Deployment) -> str:
    state = deployment.items[0].wanted.state
    packages = ", ".join(state.packages)
    return f'services:\n  {name}:\n    version: "{state.version}"\n    packages: [{packages}]\n'


def plan_back(services: Services, name: str, how: Rolling) -> Roll:
    """Return how every guest that the last roll has changed, or begun to change, gets back to what it was before.

    :raises NotFound: no guest has anything from before.
    """
    group = services.find([name])
    answers = map_guests(lambda item: _way_back(services, item), {item.guest: item for item in group})
    items = {guest: answer for guest, answer in answers.items() if isinstance(answer, GuestDeployment)}
    unknown = {guest: answer for guest, answer in answers.items() if isinstance(answer, VmhostError)}
    if not items and not unknown and not any(item.deployed.roll for item in group):
        raise NotFound("nothing is there to go back to", subject=name, hint="vmhost service list")
    down = _down(services, name)
    order = batches(list(items), replace(how, canary=0), down, [guest for guest in down if guest not in items])
    marks = {item.guest: item.deployed.roll or BACK for item in group if item.deployed.roll or item.guest in items}
    return Roll(name, how, order, items, group, marks, unknown, back=True)


def _way_back(services: Services, item: Found) -> GuestDeployment | None:
    """Return what brings a guest back to what it was before the last roll; None when that has not changed it."""
    before = read_previous(services.lines, item.guest, item.deployed.name)
    if before is None or not before.is_way_back_of(item.deployed):
        return None
    planned = plan_guest(services.lines, item.domain, before.wanted)
    if planned.plan.refused:
        raise Refused(planned.plan.refused, subject=item.guest, hint=f"vmhost service status {item.deployed.name}")
    return None if planned.empty else planned


def roll(
    ports: Ports,
    services: Services,
    plan: Roll,
    *,
    rollback: bool,
    on_event: Tell | None,
    cancelled: Callable[[], bool] | None,
) -> tuple[ActionResult, ...]:
    """Carry a roll out; see :meth:`Services.roll`."""
    check_may_change(ports.hypervisor)
    kind = "service roll back" if plan.back else "service roll"
    with Job(ports, kind, plan.service, on_event, cancelled) as job:
        _mark(ports, plan.marked, plan.marks)
        run = _Run(ports, services, plan, job.tell, job.cancelled)
        failures = {**plan.unknown, **run.all()}
        if failures and rollback and not plan.back:
            raise _taken_back(run, failures)
        if failures:
            raise _partly(plan, run.done, failures)
        _mark(ports, plan.marked, {})
    return tuple(ActionResult(plan.service, guest, "rolled back" if plan.back else "rolled") for guest in run.done)


@dataclass(slots=True)
class _Run:
    """One pass over the batches."""

    ports: Ports
    services: Services
    plan: Roll
    tell: Tell
    cancelled: Callable[[], bool]
    tried: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)

    def all(self) -> dict[str, VmhostError]:
        """Change batch after batch until one fails; return the failures by guest. A way back goes on to its end."""
        failures: dict[str, VmhostError] = {}
        for number, batch in enumerate(self.plan.batches, 1):
            if self.cancelled():
                return {**failures, batch[0]: Cancelled("cancelled", subject=batch[0], hint="vmhost job list")}
            words = f"batch {number} of {len(self.plan.batches)}: {', '.join(batch)}"
            self.tell(Notice(self.plan.service, words))
            self.tried += batch
            found = self._over(self.restore if self.plan.back else self._one, batch)
            self.done += [guest for guest in batch if guest not in found]
            if not found and not self.plan.back:
                found = self._over(self._gate, self.done)
            what = "was not taken back" if self.plan.back else "the roll halts"
            for guest, error in found.items():
                self.tell(Notice(guest, f"{self.plan.service}: {what}: {error.message}"))
            failures.update(found)
            if failures and not self.plan.back:
                break
        return failures

    def _over(self, one: Callable[[str], object], guests: Sequence[str]) -> dict[str, VmhostError]:
        answers = map_guests(one, {guest: guest for guest in guests}, workers=len(guests))
        return {guest: answer for guest, answer in answers.items() if isinstance(answer, VmhostError)}

    def _planned(self, guest: str) -> tuple[Found, GuestDeployment]:
        return next(one for one in self.plan.group if one.guest == guest), self.plan.items[guest]

    def _one(self, guest: str) -> None:
        found, item = self._planned(guest)
        mark, lines = self.plan.marks[guest], self.services.lines

        def first(fresh: GuestDeployment) -> None:
            keep_previous(lines, found, fresh, mark)

        deploy_one(self.ports, lines, item, tell=self.tell, cancelled=self.cancelled, wait=True, first=first)

    def _gate(self, guest: str) -> None:
        """Wait once more for what was changed: the next batch needs all of it."""
        context = Context(self.ports, on_event=self.tell, cancelled=self.cancelled)
        found, item = self._planned(guest)
        await_ready(self.ports, self.services.looker(found), item.domain, item.wanted.state, context)

    def restore(self, guest: str) -> bool:
        """Bring a guest back to what it was before; return whether anything had been changed in it."""
        found = self.services.find([self.plan.service], [guest])
        planned = _way_back(self.services, found[0]) if found else None
        if planned is None:
            return False
        lines = self.services.lines
        deploy_one(self.ports, lines, planned, tell=self.tell, cancelled=lambda: False, wait=True)
        return True


def _taken_back(run: _Run, failures: Mapping[str, VmhostError]) -> ApplyError:
    """Take back everything that a roll has changed, the last first; return what became of it."""
    name = run.plan.service
    run.tell(Notice(name, f"taking back: {', '.join(run.tried) or 'nothing was changed'}"))
    leftovers = [
        f"{guest}: {text}"
        for guest, error in failures.items()
        if isinstance(error, ApplyError)
        for text in error.leftovers
    ]
    undone = []
    back = replace(run, tell=_as_taken_back(run.tell))
    for guest in reversed(run.tried):
        try:
            if back.restore(guest):
                undone.append(guest)
                _tell_undone(run, guest)
        except VmhostError as error:
            leftovers.append(f"{guest}: {error.message}: vmhost service roll {name} --back")
            _tell_undone(run, guest, error.message)
    if not leftovers:
        _mark(run.ports, run.plan.marked, {})
    guest, first = next(iter(failures.items()))
    became = "not all of it was taken back" if leftovers else "the roll was taken back"
    made = ApplyError(
        f"{name}: {first.message}; {became}",
        subject=guest,
        hint=first.hint or f"vmhost service logs {name}",
        undone=undone,
        leftovers=leftovers,
    )
    made.__cause__ = first
    return made


def _as_taken_back(tell: Tell) -> Tell:
    """Return what tells the steps of a way back in words of their own: they may be those of the way there."""

    def told(event: Event) -> None:
        if isinstance(event, StepStarted | StepDone | StepFailed | Undone):
            event = replace(event, why=f"taken back: {event.why}")
        tell(event)

    return told


def _tell_undone(run: _Run, guest: str, error: str = "") -> None:
    """Tell of every step of the way there that it was undone, or why not."""
    item = run.plan.items[guest]
    for step in reversed(item.plan.steps):
        run.tell(Undone(guest, f"{item.service}: {step.why}", error))


def _partly(plan: Roll, done: Iterable[str], failures: dict[str, VmhostError]) -> VmhostError:
    ready = ", ".join(done) or "none"
    open_guests = [guest for batch in plan.batches for guest in batch if guest not in done and guest not in failures]
    text = f"{plan.service}: halted; done: {ready}; not tried: {', '.join(open_guests) or 'none'}"
    return PartlyDone(text, failures=failures, hint=f"vmhost service roll {plan.service} --back")


def _mark(ports: Ports, group: Sequence[Found], marks: Mapping[str, str]) -> None:
    """Note in guests that a roll is under way, and which; in those without a mark that it is over."""
    for item in group:
        with ports.locks.guests([item.domain.uuid], Context(ports).waiting(item.guest)):
            metadata = parse_metadata(ports.hypervisor.domain(item.domain.uuid).xml)
            if metadata is None:
                continue
            mark = marks.get(item.guest, "")
            services = tuple(
                replace(one, roll=mark) if one.name == item.deployed.name else one for one in metadata.services
            )
            if services != metadata.services:
                xml = metadata_xml(replace(metadata, services=services))
                execute(SetMetadata(item.domain.uuid, item.guest, xml), Context(ports))
