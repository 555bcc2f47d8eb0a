"""Services inside guests: list, deploy, check, start, stop, restart, logs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from vmhost.engine.observe import observe_domains
from vmhost.engine.services.facts import Gatherer
from vmhost.engine.services.line import Lines, LineState
from vmhost.engine.services.probing import Looker, Patient
from vmhost.model.errors import NotFound, Refused, Unreachable, UsageError, VmhostError
from vmhost.model.services import DeployedService, Health, Look, ServiceDrift, ServiceRow, UnitFact
from vmhost.model.spec.service import ServiceState
from vmhost.ops.shell import session_to, ssh_target_of
from vmhost.plan.servicedrift import service_drift
from vmhost.render.service import state_of

if TYPE_CHECKING:
    from vmhost.engine.services.hooks import Hook
    from vmhost.model.events import Event
    from vmhost.model.observed import ObservedDomain
    from vmhost.model.services import ProbeHistory, Rolling
    from vmhost.model.spec import Site
    from vmhost.ops.heal import Healer
    from vmhost.ops.host import Host
    from vmhost.ops.servicedeploy import Deployment
    from vmhost.ops.servicelogs import LogLine
    from vmhost.ops.serviceroll import Roll
    from vmhost.ports import Ports

Listener = Callable[["Event"], None]
Verb = Literal["start", "stop", "restart"]


@dataclass(frozen=True, slots=True)
class Found:
    """A service in a guest: the guest's domain, what was deployed, and that as a value."""

    domain: ObservedDomain
    deployed: DeployedService
    state: ServiceState | None

    @property
    def guest(self) -> str:
        """The guest's name."""
        return self.domain.name


@dataclass(frozen=True, slots=True)
class ActionResult:
    """What became of an action on a service in one guest; ``error`` None: it was done."""

    service: str
    guest: str
    text: str
    error: VmhostError | None = None


class Services:
    """The services of one host's guests. Connections to guests are kept until :meth:`close` or the host's end."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._lock = threading.Lock()
        self._lines: Lines | None = None

    @property
    def lines(self) -> Lines:
        """The lines to guests; opened as they are needed."""
        ports = self._host.ports
        with self._lock:
            if self._lines is None:
                self._lines = Lines(lambda guest, deadline: session_to(ports, guest, deadline), ports.clock)
            return self._lines

    def close(self) -> None:
        """End the connections to guests."""
        with self._lock:
            lines, self._lines = self._lines, None
        if lines is not None:
            lines.close()

    def list(
        self, names: Sequence[str] = (), *, guests: Sequence[str] = (), look: bool = True
    ) -> tuple[ServiceRow, ...]:
        """Return services with how they are, eight guests at a time; a guest that does not answer delays nobody.

        :param names: of services; empty: all. :param guests: only in these.
        :param look: False: what was deployed only, no guest is asked.
        :raises NotFound: there is no service of such a name.
        """
        found = self.find(names, guests)
        if not look:
            return tuple(_plain_row(item) for item in found)
        return self._over(found, self._row)

    def check(self, names: Sequence[str] = (), *, guests: Sequence[str] = (), count: int = 1) -> tuple[ServiceRow, ...]:
        """Look at services by their probes; :param count: how many times each, for their latency."""

        def rows(item: Found) -> ServiceRow:
            if item.state is None or not item.domain.active:
                return _unasked(item)
            looker = self.looker(item)
            looks = tuple(look for _ in range(count) for look in looker.look_at_all(item.state))
            return _row_of(item, looks=looks, health=_health(looks))

        return self._over(self.find(names, guests), rows)

    def history(self, names: Sequence[str] = (), *, guests: Sequence[str] = ()) -> tuple[ProbeHistory, ...]:
        """Return what the looks of ``vmhost watch`` come to that are kept, probe by probe; no guest is asked.

        :param names: of services; empty: all. :param guests: only in these.
        :raises NotFound: there is no service of such a name; :raises DriverError: the history cannot be read.
        """
        from vmhost.plan.latency import histories

        there = {(item.guest, item.deployed.name): item.domain.uuid for item in self.find(names, guests)}
        called = {uuid: guest for (guest, _), uuid in there.items()}
        found = histories(self._host.ports.history.looks(), called)
        return tuple(one for one in found if (one.guest, one.service) in there)

    def past(self, service: str, guest: str, uuid: str) -> tuple[ProbeHistory, ...]:
        """Return the same of one service in one guest; that costs little, however many there are.

        :raises DriverError: the history cannot be read.
        """
        from vmhost.plan.latency import histories

        return tuple(histories(self._host.ports.history.looks(uuid, service), {uuid: guest}))

    def act(
        self,
        names: Sequence[str],
        verb: Verb,
        *,
        guests: Sequence[str] = (),
        on_event: Listener | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> tuple[ActionResult, ...]:
        """Start, stop or restart services, one guest after the other; the first that fails ends it.

        :param cancelled: asked between guests and while one is awaited; what was done stays.
        :raises NotFound: there is no service of such a name, or a guest has none of them; :raises Refused: one has no
            unit; :raises Unreachable: a guest does not run. Nothing is changed then.
        """
        if not names:
            raise UsageError("which service?", hint="vmhost service list")
        return self.act_on(self.to_act_on(names, guests), verb, on_event=on_event, cancelled=cancelled)

    def act_on(
        self,
        found: Sequence[Found],
        verb: Verb,
        *,
        on_event: Listener | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> tuple[ActionResult, ...]:
        """Do as :meth:`act` to exactly these, which somebody has looked at.

        A guest that has the service no more, or another one under its name, fails with a ``Conflict``.
        """
        from vmhost.ops.serviceact import act

        return act(self._host.ports, self.lines, found, verb, on_event, cancelled)

    def to_act_on(self, names: Sequence[str], guests: Sequence[str] = ()) -> tuple[Found, ...]:
        """Return what :meth:`act` means by these names. :raises NotFound: as :meth:`act`."""
        found = self.find(names, guests)
        for guest in guests:
            if all(item.guest != guest for item in found):
                text = f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} not in this guest"
                raise NotFound(text, subject=guest, hint="vmhost service list")
        return found

    def plan_deploy(self, site: Site, *, only: Sequence[str] = (), guests: Sequence[str] = ()) -> Deployment:
        """Return what would be done to bring a site's services to its guests; nothing is changed.

        :param only: names of services; empty: all.
        :raises NotFound: the site has no such service, or a guest is not there yet.
        :raises UsageError: a template is wrong; :raises Absent: a secret is missing.
        """
        from vmhost.ops.servicedeploy import plan_deploy

        return plan_deploy(self._host.ports, self.lines, site, only=only, guests=guests)

    def plan_delete(self, name: str, *, guests: Sequence[str] = ()) -> Deployment:
        """Return what would be done to take a service out of its guests; hand it to :meth:`deploy`.

        Its unit is stopped and no longer starts with the guest, its files go. Packages, accounts, directories and
        parameters of the kernel stay, since others may use them by now.

        :raises NotFound: there is no such service; :raises Refused: a roll of it is under way.
        """
        from vmhost.ops.servicedeploy import plan_delete

        return plan_delete(self.lines, name, self.find([name], guests))

    def deploy(
        self,
        deployment: Deployment,
        *,
        on_event: Listener | None = None,
        cancelled: Callable[[], bool] | None = None,
        wait: bool = True,
    ) -> tuple[ActionResult, ...]:
        """Do what a deployment says, one guest after the other, each until it is ready; the first that fails ends it.

        :raises Refused: a guest cannot hold its service, with every reason; nothing is changed.
        :raises Conflict: a guest changed since; :raises ApplyError: an operation failed, that guest is as it was;
            :raises GuestError: all was done, but a service does not become ready.
        """
        from vmhost.ops.servicedeploy import deploy

        return deploy(self._host.ports, self.lines, deployment, on_event=on_event, cancelled=cancelled, wait=wait)

    def logs(
        self,
        names: Sequence[str],
        *,
        guests: Sequence[str] = (),
        since: float = 600.0,
        lines: int = 1000,
        follow: bool = False,
        cancelled: Callable[[], bool] | None = None,
    ) -> Iterator[LogLine]:
        """Yield what services wrote to their guests' journals, merged by time.

        :param since: seconds back; :param lines: at most that many from each guest; :param follow: go on for ever.
        :param cancelled: asked before the guests are read once more; True ends it, also where nobody writes anything.
        """
        from vmhost.ops.servicelogs import logs

        found = self.find(names, guests)
        return logs(self, found, since=since, lines=lines, follow=follow, cancelled=cancelled or (lambda: False))

    def plan_roll(
        self, name: str, how: Rolling, *, site: Site | None = None, to: str = "", refresh: bool = False
    ) -> Roll:
        """Return how a service gets to what a site says, or to another version, guest by guest; nothing is changed.

        :param to: a version that those of its packages begin with; :param refresh: for that, have a guest fetch its
            lists of packages before it is asked which there are.
        :raises NotFound: there is no such service; :raises Refused: too many of its guests are down, there is no such
            version, what a guest has could not be brought back, or a roll to something else is under way.
        """
        from vmhost.ops.serviceroll import plan_roll

        return plan_roll(self._host.ports, self, name, how, site=site, to=to, refresh=refresh)

    def plan_back(self, name: str, how: Rolling) -> Roll:
        """Return how the last roll is taken back, also where it was interrupted; a guest that does not answer is named.

        :raises NotFound: there is nothing to go back to.
        """
        from vmhost.ops.serviceroll import plan_back

        return plan_back(self, name, how)

    def roll(
        self,
        plan: Roll,
        *,
        rollback: bool = False,
        on_event: Listener | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> tuple[ActionResult, ...]:
        """Change batch after batch, each until it is ready; the first that fails halts it.

        :param rollback: take everything back that was changed, when it fails.
        :raises PartlyDone: it halted, with the failures; :raises ApplyError: it halted and was taken back, or was not
            where ``leftovers`` say so.
        """
        from vmhost.ops.serviceroll import roll

        return roll(self._host.ports, self, plan, rollback=rollback, on_event=on_event, cancelled=cancelled)

    def watch(self, on_event: Listener) -> Healer:
        """Return what looks at all services and restarts them by their policies; ``run`` ends after ``stop``."""
        from vmhost.ops.heal import Healer

        return Healer(self._host.ports, self, on_event)

    def hooks(self, guest: str, when: Hook) -> tuple[ActionResult, ...]:
        """Run the hooks of a guest's services, by name before a freeze, the other way round after the thaw; snapshots
        and backups do so by themselves.

        One that fails does not keep the others from running: after a thaw everything has to go on.

        :param when: ``pre_freeze`` or ``post_thaw``.
        """
        from vmhost.ops.serviceact import run_hooks

        found = self.find(guests=[guest])
        return run_hooks(self.lines, found if when == "pre_freeze" else found[::-1], when)

    def circuits(self) -> tuple[LineState, ...]:
        """Return how the lines to guests are."""
        return self.lines.states()

    def find(self, names: Sequence[str] = (), guests: Sequence[str] = ()) -> tuple[Found, ...]:
        """Return deployed services by name and guest. :raises NotFound: a name is unknown."""
        domains = observe_domains(self._host.ports.hypervisor)
        found = [
            Found(domain, deployed, state_of(deployed))
            for domain in domains
            for deployed in (domain.metadata.services if domain.metadata else ())
        ]
        _require(names, {item.deployed.name for item in found}, "service", "vmhost service list")
        _require(guests, {domain.name for domain in domains}, "guest", "vmhost guest list")
        wanted = (item for item in found if not names or item.deployed.name in names)
        chosen = (item for item in wanted if not guests or item.guest in guests)
        return tuple(sorted(chosen, key=lambda item: (item.deployed.name, item.guest)))

    def looker(self, item: Found) -> Looker:
        """Return what looks at a guest's services."""
        return looker(self._host.ports, self.lines, item.domain)

    def _over(self, found: Sequence[Found], one: Callable[[Found], ServiceRow]) -> tuple[ServiceRow, ...]:
        from vmhost.drivers.ssh.fanout import map_guests

        items = {f"{item.deployed.name}\0{item.guest}": item for item in found}
        answers = map_guests(one, items)
        return tuple(
            answer if isinstance(answer, ServiceRow) else _row_of(items[key], error=str(answer.message))
            for key, answer in answers.items()
        )

    def _row(self, item: Found) -> ServiceRow:
        if item.state is None or not item.domain.active:
            return _unasked(item)
        facts = Gatherer(self.lines, item.guest).for_drift(item.state)
        looks = self.looker(item).look_at_all(item.state)
        drift = service_drift(item.guest, item.deployed, facts)
        unit = facts.units.get(item.state.unit.name) if item.state.unit else None
        return _row_of(item, unit=unit, looks=looks, health=_health(looks), drift=drift)


def looker(ports: Ports, lines: Lines, domain: ObservedDomain) -> Looker:
    """Return what looks at a guest's services."""
    return Looker(ports, lines, Patient(domain.name, domain.uuid, lambda: ssh_target_of(ports, domain.name)))


def _require(names: Sequence[str], known: set[str], what: str, hint: str) -> None:
    from difflib import get_close_matches

    for name in names:
        if name not in known:
            near = get_close_matches(name, sorted(known), 1)
            text = f"there is no such {what}" + (f"; did you mean {near[0]}?" if near else "")
            raise NotFound(text, subject=name, hint=hint)


def _unasked(item: Found) -> ServiceRow:
    if item.state is None:
        raise Refused("a newer vmhost deployed this service: read-only for this one", subject=item.guest)
    raise Unreachable("the guest does not run", subject=item.guest, hint=f"vmhost guest start {item.guest}")


def _plain_row(item: Found) -> ServiceRow:
    return _row_of(item)


def _row_of(
    item: Found,
    *,
    unit: UnitFact | None = None,
    looks: tuple[Look, ...] = (),
    health: Health = Health.UNKNOWN,
    drift: tuple[ServiceDrift, ...] = (),
    error: str = "",
) -> ServiceRow:
    name = item.state.unit.name if item.state and item.state.unit else ""
    state = "" if unit is None else f"{unit.active} ({unit.sub})"
    since = unit.since if unit else ""
    deployed = item.deployed
    return ServiceRow(
        service=deployed.name,
        guest=item.guest,
        version=deployed.version,
        env=deployed.env,
        unit=name,
        state=state,
        since=since,
        health=health,
        looks=looks,
        drift=drift,
        roll=deployed.roll,
        error=error,
    )


def _health(looks: Sequence[Look]) -> Health:
    """Return how a service is by single looks at it; thresholds are the watch's, which looks again and again."""
    if not looks:
        return Health.UNKNOWN
    return Health.UP if all(look.good for look in looks) else Health.DOWN
