"""``vmhost watch`` for services: looks by their probes, restarts by their policy; one thread for each guest.

A guest that does not answer delays its own services only.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from vmhost.engine.services.carry import do
from vmhost.model.errors import Conflict, Unreachable, VmhostError
from vmhost.model.events import Event, Notice
from vmhost.model.guestops import ActOnUnit, GuestCommand
from vmhost.model.services import Health, KeptLook, Look, UnitFact
from vmhost.model.text import sanitize
from vmhost.ops.apply import recover_host
from vmhost.ops.heartbeat import HeartWatch, hearts
from vmhost.ops.jobs import Job
from vmhost.ops.services import Found, Services
from vmhost.plan.healing import Act, Care, Case, Pulse, beat, care_for, health_of
from vmhost.ports import NOT_AT_ALL, DomainEvent, Ports
from vmhost.render.guestfacts import ask_units, read_units
from vmhost.render.parse.metadata import parse_metadata

if TYPE_CHECKING:
    from vmhost.model.spec.service import ServiceState

Listener = Callable[[Event], None]


class Watching(Protocol):
    """Something that is looked after in a thread of its own: turned again and again, until it is ended."""

    def turn(self) -> float: ...

    def end(self) -> None: ...


W = TypeVar("W", bound=Watching)

REFRESH: Final = 60.0
"""Seconds after which services are looked for anew although nobody told of a change."""

PARTING: Final = 5.0
"""Seconds that looks under way may take at the end, all together; their threads do not keep the program alive."""

_MATTERS: Final = frozenset({"started", "stopped", "crashed", "defined", "undefined", "resumed"})


@dataclass(slots=True)
class Ward:
    """A service in a guest under watch. Times are monotonic."""

    item: Found
    state: ServiceState
    since: float
    due: dict[str, float] = field(default_factory=dict)
    pulses: dict[str, Pulse] = field(default_factory=dict)
    care: Care = field(default_factory=Care)
    first_bad: float = 0.0
    told: Health = Health.UNKNOWN
    unreached: bool = False

    def starts_anew(self, now: float) -> None:
        """Forget what was seen before a start: its start period begins."""
        self.since, self.pulses = now, {name: Pulse() for name in self.state.probes}
        self.due = dict.fromkeys(self.state.probes, now)


class GuestWatch:
    """Watches the services of one guest; :meth:`turn` does what is due and says when the next look is."""

    def __init__(self, ports: Ports, services: Services, guest: str, tell: Listener) -> None:
        self._ports = ports
        self._services = services
        self._guest = guest
        self._tell = tell
        self.wards: dict[str, Ward] = {}

    def take(self, found: tuple[Found, ...]) -> None:
        """Watch exactly these services; what is as it was goes on."""
        now = self._ports.clock.monotonic()
        wards = {}
        for item in found:
            if item.state is None or not item.state.probes:
                continue
            old = self.wards.get(item.deployed.name)
            if old is not None and old.item.deployed.sha256 == item.deployed.sha256:
                old.item = item
                wards[item.deployed.name] = old
                continue
            ward = Ward(item, item.state, now)
            ward.starts_anew(now)
            wards[item.deployed.name] = ward
        self.wards = wards

    def end(self) -> None:
        """Nothing is under way that could not end by itself."""

    def turn(self) -> float:
        """Look by every probe that is due, act, and return the seconds until the next look."""
        kept: list[KeptLook] = []
        for ward in tuple(self.wards.values()):
            now = self._ports.clock.monotonic()
            due = [name for name, at in ward.due.items() if at <= now]
            for name in due:
                look = self._look(ward, name)
                text = "" if look.good else look.text
                key = (ward.item.domain.uuid, ward.item.deployed.name, name)
                kept.append(KeptLook(*key, look.at, look.good, look.seconds, text))
            if due:
                self._judge(ward)
        if kept:
            self._ports.history.looked(kept)
        times = [at for ward in self.wards.values() for at in ward.due.values()]
        return max(0.0, min(times, default=self._ports.clock.monotonic() + REFRESH) - self._ports.clock.monotonic())

    def _look(self, ward: Ward, name: str) -> Look:
        probe = ward.state.probes[name]
        began = self._ports.clock.monotonic()
        look = self._services.looker(ward.item).look(name, probe, ward.state)
        before = ward.pulses[name]
        ward.pulses[name] = beat(before, probe, look, began - ward.since)
        if ward.pulses[name].bad == 1 and ward.care.down_since is None:
            ward.first_bad = began
        ward.due[name] = began + probe.interval
        return look

    def _judge(self, ward: Ward) -> None:
        """Tell what changed, and do what the policy says."""
        health = health_of(ward.pulses)
        living = frozenset(name for name, probe in ward.state.probes.items() if probe.role == "liveness")
        liveness = health_of(ward.pulses, only=living) if living else Health.UP
        if health is not ward.told and health in (Health.UP, Health.DOWN):
            self._say(ward, f"{health}: {self._cause(ward, health)}", quiet=ward.told is Health.UNKNOWN)
            ward.told = health
        now = self._ports.clock.monotonic()
        case = Case(liveness, now, ward.first_bad or now, wished=ward.item.deployed.stopped)
        if liveness is Health.DOWN and ward.state.restart.policy == "on-failure":
            case = replace(case, by_hand=self._stopped_by_hand(ward))
        before = ward.care
        ward.care, act = care_for(before, ward.state.restart, case)
        if act is Act.HEALED:
            ward.unreached = False
            seconds = now - (before.down_since if before.down_since is not None else now)
            tries = f" and {before.tries} {'try' if before.tries == 1 else 'tries'}" if before.tries else ""
            self._say(ward, f"is well again after {seconds:.1f} s{tries}")
        elif act is Act.GIVE_UP:
            text = f"given up after {before.tries} tries: {self._cause(ward, Health.DOWN)}"
            self._say(ward, f"{text}; vmhost service status {ward.item.deployed.name}")
        elif act is Act.RESTART:
            self._restart(ward, before)

    def _cause(self, ward: Ward, health: Health) -> str:
        wanted = health is Health.UP
        return "; ".join(f"{name}: {pulse.text}" for name, pulse in ward.pulses.items() if pulse.up is wanted)

    def _say(self, ward: Ward, text: str, *, quiet: bool = False) -> None:
        if not quiet:
            self._tell(Notice(self._guest, f"{ward.item.deployed.name} {text}"))

    def _stopped_by_hand(self, ward: Ward) -> bool:
        """Whether somebody stopped the unit inside the guest: then it ended well, and nobody has to mend it."""
        if ward.state.unit is None:
            return False
        name = ward.state.unit.name
        try:
            command = GuestCommand(ask_units([name]).argv, timeout=10.0, sudo=False)
            output = self._services.lines.run(self._guest, command, again=True).stdout
        except VmhostError:
            return False
        fact = read_units(output, [name]).get(name, UnitFact(name))
        return fact.active == "inactive" and fact.result == "success"

    def _restart(self, ward: Ward, before: Care) -> None:
        """Restart the unit under the guest's lock; who holds it is at work on the guest, so it is tried again later."""
        unit, policy = ward.state.unit, ward.state.restart
        if unit is None:
            return
        number, cause = ward.care.tries, self._cause(ward, Health.DOWN)
        uuid, name = ward.item.domain.uuid, ward.item.deployed.name
        try:
            with self._ports.locks.guests([uuid], NOT_AT_ALL):
                if self._wished_down(ward):
                    ward.care = before
                    return
                self._services.lines.session(self._guest)
                with Job(self._ports, "service heal", f"{name} {self._guest}", None, None) as job:
                    job.tell(Notice(self._guest, f"{name}: restart, try {number} of {policy.tries}: {cause}"))
                    do(self._guest, ActOnUnit(unit.name, "restart"), self._services.lines)
        except Conflict:
            ward.care = before
            return
        except Unreachable as error:
            # Nobody tried anything: that is no try. The next one comes after the same pause.
            ward.care = replace(ward.care, tries=before.tries)
            if not ward.unreached:
                self._say(ward, f"was not restarted, since its guest is not reached: {error.message}")
            ward.unreached = True
            return
        except VmhostError as error:
            self._say(ward, f"was not restarted (try {number} of {policy.tries}): {error.message}")
            return
        ward.unreached = False
        self._say(ward, f"restarted (try {number} of {policy.tries}): {cause}")
        ward.starts_anew(self._ports.clock.monotonic())

    def _wished_down(self, ward: Ward) -> bool:
        """Whether a person stopped the service, or changed it, since it was read."""
        metadata = parse_metadata(self._ports.hypervisor.domain(ward.item.domain.uuid).xml)
        now = next((s for s in metadata.services if s.name == ward.item.deployed.name), None) if metadata else None
        return now is None or now.stopped or now.sha256 != ward.item.deployed.sha256


class Healer:
    """Watches all services and heartbeats of a host; :meth:`run` ends after :meth:`stop`."""

    def __init__(self, ports: Ports, services: Services, tell: Listener) -> None:
        self._ports = ports
        self._services = services
        self._tell = tell
        self._ended = threading.Event()
        self._news = threading.Event()
        self._watches: dict[str, _Thread[GuestWatch]] = {}
        self._hearts: dict[str, _Thread[HeartWatch]] = {}
        self._alone = threading.Lock()

    def stop(self) -> None:
        """Let :meth:`run` end; from any thread."""
        self._ended.set()
        self._news.set()

    def run(self) -> None:
        """Watch until :meth:`stop`."""
        self._settle()
        unsubscribe = self._ports.hypervisor.subscribe(self._on_domain)
        try:
            while not self._ended.is_set():
                self._news.clear()
                try:
                    self._refresh()
                except VmhostError as error:
                    self._tell(Notice("libvirt", f"{error}; looking again"))
                self._news.wait(REFRESH)
        finally:
            unsubscribe()
            threads: tuple[_Thread[Any], ...] = (*self._watches.values(), *self._hearts.values())
            for thread in threads:
                thread.end()
            for thread in threads:
                thread.join(PARTING / len(threads))
            for beats in self._hearts.values():  # a guest that is down for its restart is brought back first
                beats.join(beats.watch.parting)

    def _settle(self) -> None:
        """Settle what a watch that was killed left behind: a guest that it was restarting may be off."""
        try:
            for settled in recover_host(self._ports):
                self._tell(Notice(settled.operation, f"interrupted earlier: {settled}"))
        except VmhostError as error:
            self._tell(Notice("recover", f"{error}; vmhost recover"))

    def _on_domain(self, event: DomainEvent) -> None:
        if event.kind in _MATTERS:
            self._news.set()
        beats = self._hearts.get(event.name) if event.kind == "rebooted" else None
        if beats is not None:
            beats.watch.reboots()

    def _refresh(self) -> None:
        """Have a watch for every guest that runs and has services, and for every one that has a heartbeat.

        What is known of a heart outlives a stop of its guest: the watch itself may be the one that stops it.
        """
        found: dict[str, list[Found]] = {}
        for item in self._services.find():
            if item.domain.active:
                found.setdefault(item.guest, []).append(item)
        for guest in self._watches.keys() - found.keys():
            self._watches.pop(guest).end()
            self._services.lines.drop(guest)
        for guest, items in found.items():
            watch = self._thread(self._watches, guest, partial(GuestWatch, self._ports, self._services))
            watch.give(partial(watch.watch.take, tuple(items)))
        beating = {heart.domain.name: heart for heart in hearts(self._ports)}
        for guest in self._hearts.keys() - beating.keys():
            if not self._hearts[guest].watch.restarting:
                self._hearts.pop(guest).end()
        for guest, heart in beating.items():
            beats = self._thread(self._hearts, guest, partial(HeartWatch, self._ports, self._alone))
            beats.give(partial(beats.watch.take, heart))

    def _thread(self, threads: dict[str, _Thread[W]], guest: str, make: Callable[[str, Listener], W]) -> _Thread[W]:
        """Return a guest's thread, which is alive or about to be; one that died has left its watch behind."""
        thread = threads.get(guest)
        if thread is None or thread.died:
            watch = thread.watch if thread else make(guest, self._tell)
            threads[guest] = thread = _Thread(watch, guest, self._tell)
        return thread


class _Thread(threading.Thread, Generic[W]):
    """Turns a guest's watch. What nobody foresaw in one guest is told, and ends neither its watch nor the others'."""

    def __init__(self, watch: W, guest: str, tell: Listener) -> None:
        super().__init__(name=f"watch-{guest}", daemon=True)
        self.watch = watch
        self._guest = guest
        self._tell = tell
        self._woken = threading.Event()
        self._ended = False
        self._given: Callable[[], None] | None = None

    @property
    def died(self) -> bool:
        """Whether it was started and is no longer alive."""
        return self.ident is not None and not self.is_alive()

    def give(self, take: Callable[[], None]) -> None:
        """Let the watch take what it is to watch from now on, before its next turn."""
        self._given = take
        self._woken.set()
        if not self.is_alive():
            self.start()

    def end(self) -> None:
        self._ended = True
        self.watch.end()
        self._woken.set()

    def run(self) -> None:
        while not self._ended:
            self._woken.clear()
            self._woken.wait(self._turn())

    def _turn(self) -> float:
        given, self._given = self._given, None
        try:
            if given is not None:
                given()
            return self.watch.turn()
        except Exception as error:  # noqa: BLE001 - what a guest says may surprise us; the watch goes on
            text = f"unforeseen {type(error).__name__}: {sanitize(str(error))[:200]}; looking again in {REFRESH:.0f} s"
            self._tell(Notice(self._guest, text))
            return REFRESH
