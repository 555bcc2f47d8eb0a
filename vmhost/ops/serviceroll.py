"""Rolling change: a service is changed guest by guest, each until it is ready; a failure halts it, or takes it back.

What is under way stands in the metadata of every guest of the group, and what was there before lies in each guest. So a
roll whose vmhost died is continued, or taken back, by another one.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from vmhost.drivers.ssh.fanout import map_guests
from vmhost.engine.context import Context
from vmhost.engine.execute import execute
from vmhost.engine.services.carry import do
from vmhost.engine.services.facts import Gatherer
from vmhost.model.errors import ApplyError, Cancelled, DamagedData, NotFound, PartlyDone, Refused, VmhostError
from vmhost.model.events import Event, Notice
from vmhost.model.guestops import PutFile, RefreshPackages
from vmhost.model.services import Health, Rolling
from vmhost.model.spec.service import ServiceState
from vmhost.model.steps import SetMetadata
from vmhost.ops.jobs import Job
from vmhost.ops.permission import check_may_change
from vmhost.ops.servicedeploy import Deployment, GuestDeployment, check_possible, deploy_one, lines_of, plan_guest
from vmhost.ops.services import ActionResult, Found, Services
from vmhost.plan.rolling import batches, refusal, retarget
from vmhost.render.guestfacts import ask_versions, read_versions
from vmhost.render.metadata import metadata_xml
from vmhost.render.parse.metadata import parse_metadata
from vmhost.render.service import MANIFESTS, Desired, canonical, read_state

if TYPE_CHECKING:
    from vmhost.model.spec import Site
    from vmhost.ports import Ports

Tell = Callable[[Event], None]


@dataclass(frozen=True)
class Roll:
    """What a rolling change will do: print it, and hand it to :meth:`Services.roll`.

    ``batches`` are the guests that are still to be changed, in order; ``back`` takes a change back.
    """

    service: str
    how: Rolling
    target: str
    batches: tuple[tuple[str, ...], ...]
    items: Mapping[str, GuestDeployment] = field(repr=False)
    group: tuple[Found, ...] = field(repr=False)
    fragment: str = ""
    back: bool = False

    @property
    def empty(self) -> bool:
        """Whether every guest already is where it should be, and no roll is under way."""
        return not self.batches and not any(item.deployed.roll for item in self.group)

    def lines(self) -> tuple[str, ...]:
        """Return the plan as lines."""
        found: list[str] = []
        for number, batch in enumerate(self.batches, 1):
            canary = " (canary)" if number <= self.how.canary and not self.back else ""
            found.append(f"batch {number}{canary}: {', '.join(batch)}")
            for guest in batch:
                found += [f"  {line}" for line in lines_of(self.items[guest], satisfied=False)]
        return tuple(found) if found else (f"{self.service}: nothing to do",)

    def __str__(self) -> str:
        return "\n".join(self.lines())


def plan_roll(
    ports: Ports, services: Services, name: str, how: Rolling, *, site: Site | None = None, to: str = ""
) -> Roll:
    """Return how a service gets to what the site says, or to another version of its packages."""
    group = services.find([name])
    if site is not None:
        deployment = services.plan_deploy(site, only=[name], guests=[item.guest for item in group])
        if to:
            raise Refused("either a site or a version says where to", subject=name, hint="vmhost service roll --help")
    else:
        deployment = _retargeted(services, name, group, to)
    check_possible(deployment)
    items = {item.guest: item for item in deployment.items}
    target = next((item.wanted.sha256[:12] for item in deployment.items), "")
    return _ordered(services, name, how, group, items, target, fragment=_fragment(name, deployment) if to else "")


def _ordered(
    services: Services,
    name: str,
    how: Rolling,
    group: tuple[Found, ...],
    items: Mapping[str, GuestDeployment],
    target: str,
    *,
    fragment: str,
) -> Roll:
    todo = [guest for guest, item in items.items() if not item.empty]
    down = {row.guest for row in services.check([name]) if row.error or row.health is Health.DOWN}
    why = refusal([item.guest for item in group], [item.guest for item in group if item.guest not in todo], down, how)
    if why and todo:
        raise Refused(why, subject=name, hint=f"vmhost service check {name}")
    return Roll(name, how, target, batches(todo, how, down), items, group, fragment)


def _retargeted(services: Services, name: str, group: tuple[Found, ...], to: str) -> Deployment:
    """Plan another version with the files that the guests have now."""
    offered: dict[str, Sequence[str]] | None = None

    def one(item: Found) -> GuestDeployment:
        nonlocal offered
        state = _known(item)
        if offered is None:
            offered = _offered(services, item, state)
        wanted, why = retarget(state, to, offered)
        if why:
            raise Refused(why, subject=item.guest, hint=f"vmhost guest exec {item.guest} --sudo -- apt-get update")
        return plan_guest(services.lines, item.domain, _as_found(services, item, wanted))

    return Deployment(name, tuple(one(item) for item in group))


def _offered(services: Services, item: Found, state: ServiceState) -> dict[str, Sequence[str]]:
    do(item.guest, RefreshPackages(), services.lines)
    names = [package.partition("=")[0] for package in state.packages]
    return read_versions(services.lines.run(item.guest, ask_versions(names), again=True).stdout)


def _known(item: Found) -> ServiceState:
    if item.state is None:
        raise Refused("a newer vmhost deployed this service: read-only for this one", subject=item.guest)
    return item.state


def _as_found(services: Services, item: Found, state: ServiceState) -> Desired:
    """Return a state with the files that the guest has; it must have them as they were deployed."""
    row = next(iter(services.list([item.deployed.name], guests=[item.guest])))
    changed = [drift for drift in row.drift if drift.what.startswith("file ")]
    if row.error or changed:
        text = row.error or f"{changed[0].what} was changed; deploy it from its site first"
        raise Refused(text, subject=item.guest, hint="vmhost service deploy SITE")
    gatherer = Gatherer(services.lines, item.guest)
    return Desired(state, {file.path: gatherer.text(file.path) for file in state.files})


def _fragment(name: str, deployment: Deployment) -> str:
    state = deployment.items[0].wanted.state
    packages = ", ".join(state.packages)
    return f'services:\n  {name}:\n    version: "{state.version}"\n    packages: [{packages}]\n'


def plan_back(ports: Ports, services: Services, name: str, how: Rolling) -> Roll:
    """Return how every guest that a roll has changed gets back to what it was before.

    :raises NotFound: no guest has anything from before.
    """
    group = services.find([name])
    items: dict[str, GuestDeployment] = {}
    for item in group:
        before = read_previous(services, item)
        if before is not None and before.sha256 != item.deployed.sha256:
            items[item.guest] = plan_guest(services.lines, item.domain, before.pinned)
    if not items and not any(item.deployed.roll for item in group):
        raise NotFound("nothing is there to go back to", subject=name, hint="vmhost service list")
    order = batches(list(items), Rolling(0, how.batch, how.unavailable))
    return Roll(name, how, "", order, items, group, back=True)


@dataclass(frozen=True, slots=True)
class Previous:
    """What was in a guest before a roll; ``versions`` are those of its packages."""

    wanted: Desired
    versions: Mapping[str, str]

    @property
    def sha256(self) -> str:
        """What its state is known by."""
        return self.wanted.sha256

    @property
    def pinned(self) -> Desired:
        """It with the very versions that its packages had."""
        names = (package.partition("=")[0] for package in self.wanted.state.packages)
        packages = tuple(f"{name}={self.versions[name]}" if self.versions.get(name) else name for name in names)
        return Desired(self.wanted.state.model_copy(update={"packages": packages}), self.wanted.texts)


def previous_path(name: str) -> str:
    """Return where a guest keeps what it was before a roll."""
    return f"{MANIFESTS}/{name}.previous.json"


def keep_previous(services: Services, item: Found) -> None:
    """Write into a guest what it is now, unless a roll has done so before."""
    state = _known(item)
    gatherer = Gatherer(services.lines, item.guest)
    facts = gatherer.for_drift(state)
    texts = {file.path: gatherer.text(file.path) for file in state.files if file.path in facts.paths}
    document = {
        "format": 1,
        "state": json.loads(canonical(state)),
        "versions": dict(facts.packages),
        "texts": {path: base64.b64encode(data).decode("ascii") for path, data in texts.items()},
    }
    data = json.dumps(document, sort_keys=True).encode()
    do(item.guest, PutFile(previous_path(item.deployed.name), "0600", "root:root", data), services.lines)


def read_previous(services: Services, item: Found) -> Previous | None:
    """Return what a guest was before the last roll, or None when there was none."""
    text = Gatherer(services.lines, item.guest).maybe(previous_path(item.deployed.name))
    if not text:
        return None
    try:
        data: Any = json.loads(text)
        state = read_state(json.dumps(data["state"]))
        texts = {str(path): base64.b64decode(value) for path, value in data["texts"].items()}
        versions = {str(name): str(version) for name, version in data["versions"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedData(f"what it was before cannot be read: {error}", subject=item.guest) from error
    if state is None or {file.path for file in state.files} != texts.keys():
        raise DamagedData("what it was before is not whole", subject=item.guest)
    return Previous(Desired(state, texts), versions)


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
        _mark(ports, plan.group, plan.target or "back")
        run = _Run(ports, services, plan, job.tell, job.cancelled)
        failures = run.all()
        if failures and rollback and not plan.back:
            _take_back(ports, services, plan, job.tell, failures)
        if failures:
            raise _partly(plan, run.done, failures)
        _mark(ports, plan.group, "")
    return tuple(ActionResult(plan.service, guest, "rolled back" if plan.back else "rolled") for guest in run.done)


@dataclass(slots=True)
class _Run:
    """One pass over the batches."""

    ports: Ports
    services: Services
    plan: Roll
    tell: Tell
    cancelled: Callable[[], bool]
    done: list[str] = field(default_factory=list)

    def all(self) -> dict[str, VmhostError]:
        """Change batch after batch until one fails; return the failures by guest."""
        for number, batch in enumerate(self.plan.batches, 1):
            if self.cancelled():
                return {batch[0]: Cancelled("cancelled", subject=batch[0], hint="vmhost job list")}
            words = f"batch {number} of {len(self.plan.batches)}: {', '.join(batch)}"
            self.tell(Notice(self.plan.service, words))
            answers = map_guests(self._one, {guest: guest for guest in batch}, workers=len(batch))
            failures = {guest: answer for guest, answer in answers.items() if isinstance(answer, VmhostError)}
            self.done += [guest for guest in batch if guest not in failures]
            if not failures and not self.plan.back:
                failures = self._gate()
            if failures:
                for guest, error in failures.items():
                    self.tell(Notice(guest, f"{self.plan.service}: the roll halts: {error.message}"))
                return failures
        return {}

    def _one(self, guest: str) -> None:
        item = self.plan.items[guest]
        found = next(one for one in self.plan.group if one.guest == guest)
        if self.plan.back:
            _restore(self.ports, self.services, found, self.tell)
            return
        if found.deployed.sha256 != item.wanted.sha256:
            keep_previous(self.services, found)
        lines = self.services.lines
        deploy_one(self.ports, lines, item, tell=self.tell, cancelled=self.cancelled, wait=True)

    def _gate(self) -> dict[str, VmhostError]:
        """Look once more at everything that was changed: the next batch needs all of it."""
        rows = self.services.check([self.plan.service], guests=self.done)
        bad = {row.guest: row for row in rows if row.error or row.health is Health.DOWN}
        return {
            guest: VmhostError(row.error or next(look.text for look in row.looks if not look.good), subject=guest)
            for guest, row in bad.items()
        }


def _restore(ports: Ports, services: Services, found: Found, tell: Tell) -> None:
    """Bring a guest back to what it was before: first the packages' very versions, then its own state."""
    fresh = next(iter(services.find([found.deployed.name], [found.guest])))
    before = read_previous(services, fresh)
    if before is None:
        raise NotFound("what it was before is gone", subject=found.guest)
    for wanted, wait in ((before.pinned, False), (before.wanted, True)):
        planned = plan_guest(services.lines, fresh.domain, wanted)
        deploy_one(ports, services.lines, planned, tell=tell, cancelled=lambda: False, wait=wait)


def _take_back(ports: Ports, services: Services, plan: Roll, tell: Tell, failures: Mapping[str, VmhostError]) -> None:
    """Take back everything that this roll has changed, the last first. :raises ApplyError: always, with what became."""
    before = {item.guest: item.deployed.sha256 for item in plan.group}
    now = {item.guest: item for item in services.find([plan.service])}
    changed = [guest for guest in plan.items if guest in now and now[guest].deployed.sha256 != before[guest]]
    tell(Notice(plan.service, f"taking back: {', '.join(changed) or 'nothing was changed'}"))
    leftovers, undone = [], []
    for guest in reversed(changed):
        try:
            _restore(ports, services, now[guest], tell)
            undone.append(guest)
        except VmhostError as error:
            leftovers.append(f"{guest}: {error.message}: vmhost service roll {plan.service} --back")
    if not leftovers:
        _mark(ports, plan.group, "")
    guest, first = next(iter(failures.items()))
    raise ApplyError(
        f"{plan.service}: {first.message}; the roll was taken back",
        subject=guest,
        hint=first.hint or f"vmhost service logs {plan.service}",
        undone=undone,
        leftovers=leftovers,
    ) from first


def _partly(plan: Roll, done: Iterable[str], failures: dict[str, VmhostError]) -> VmhostError:
    ready = ", ".join(done) or "none"
    open_guests = [guest for batch in plan.batches for guest in batch if guest not in done and guest not in failures]
    text = f"{plan.service}: halted; done: {ready}; not tried: {', '.join(open_guests) or 'none'}"
    return PartlyDone(text, failures=failures, hint=f"vmhost service roll {plan.service} --back")


def _mark(ports: Ports, group: Sequence[Found], text: str) -> None:
    """Note in every guest of the group that a roll is under way, or that it is over."""
    for item in group:
        with ports.locks.guests([item.domain.uuid], Context(ports).waiting(item.guest)):
            metadata = parse_metadata(ports.hypervisor.domain(item.domain.uuid).xml)
            if metadata is None:
                continue
            services = tuple(
                replace(one, roll=text) if one.name == item.deployed.name else one for one in metadata.services
            )
            if services != metadata.services:
                xml = metadata_xml(replace(metadata, services=services))
                execute(SetMetadata(item.domain.uuid, item.guest, xml), Context(ports))
