"""``vmhost watch`` for guests as a whole: looks whether they answer, and restarts those whose site allows it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from vmhost.engine.observe import observe, observe_domains, parsed
from vmhost.model.errors import ApplyError, Cancelled, Conflict, GuestError, Unreachable, VmhostError
from vmhost.model.events import Event, Notice, StepStarted
from vmhost.model.services import Look
from vmhost.model.spec.heartbeat import HeartbeatSpec
from vmhost.model.steps import ShutDown
from vmhost.ops.apply import apply_proposal
from vmhost.ops.heartask import Reply, ask
from vmhost.ops.hostfile import host_spec
from vmhost.ops.proposals import Proposal
from vmhost.plan.admission import against_start
from vmhost.plan.healing import Act, Care, Case, Pulse, beat, care_for, health_of
from vmhost.plan.heartbeat import heartbeat_of, is_protected, plan_return, plan_revival, run_of, silent_by_right
from vmhost.plan.request import raise_all
from vmhost.ports import NOT_AT_ALL, Ports
from vmhost.render.parse.domain import agent_connected

if TYPE_CHECKING:
    from vmhost.model.observed import Observed, ObservedDomain
    from vmhost.model.plan import Plan

PROBE: Final = "heartbeat"

LATE: Final = 600.0
"""Seconds in which a guest may still obey our request to shut down, and is started again."""


@dataclass(frozen=True, slots=True)
class Heart:
    """A guest whose heartbeat is watched, as its site says; it may be off."""

    domain: ObservedDomain
    spec: HeartbeatSpec


@dataclass(frozen=True, slots=True)
class Debt:
    """A run of a guest that we asked to shut down: if it ends, we owe a start. ``at`` is seconds since the epoch,
    ``until`` monotonic.
    """

    run: str
    at: float
    until: float


def hearts(ports: Ports) -> Iterator[Heart]:
    """Yield every guest that wants to be looked at while it runs."""
    for domain in observe_domains(ports.hypervisor):
        spec = heartbeat_of(domain)
        if spec is not None:
            yield Heart(domain, spec)


class HeartWatch:
    """Watches the heartbeat of one guest; :meth:`turn` does what is due and says when the next look is.

    :param alone: held while a guest is restarted, so that a host on which all fall silent restarts one at a time.
    """

    def __init__(self, ports: Ports, alone: threading.Lock, guest: str, tell: Callable[[Event], None]) -> None:
        self._ports = ports
        self._guest = guest
        self._tell = tell
        self._alone = alone
        self._over = threading.Event()
        self._rebooted = threading.Event()
        self.restarting = False
        self._heart: Heart | None = None
        self._run = ""
        self._since = self._due = self._first_bad = 0.0
        self._pulse = Pulse()
        self._care = Care()
        self._lost = False
        self._heard: set[str] = set()
        self._silent = self._lessons = 0
        self._connected = self._left = self._begun = self._answered = False
        self._debt: Debt | None = None

    def take(self, heart: Heart) -> None:
        """Watch this guest as it says now; one that was started anew has its start period again."""
        before, self._heart = self._heart, heart
        if before is None or before.domain.uuid != heart.domain.uuid:
            self._care, self._debt, self._lost = self._earlier(heart), None, False
        if before is None or before.domain.uuid != heart.domain.uuid or before.spec != heart.spec:
            self._heard, self._lessons = set(), 0
            self._starts_anew(heart.domain)
        elif run_of(heart.domain) != self._run:
            self._starts_anew(heart.domain)

    def end(self) -> None:
        """Begin nothing more; a restart that has begun is brought to its end. From any thread."""
        self._over.set()

    def reboots(self) -> None:
        """Note that the guest rebooted by itself, in the same run; from any thread."""
        self._rebooted.set()

    @property
    def parting(self) -> float:
        """Seconds that a restart under way may still take; 0: there is none."""
        return 2 * self._heart.spec.shutdown + 60 if self._heart and self.restarting else 0.0

    def turn(self) -> float:
        """Look if it is time, act, and return the seconds until the next look."""
        heart, clock = self._heart, self._ports.clock
        assert heart is not None
        self._pay(heart)
        began = clock.monotonic()
        if self._rebooted.is_set():
            self._rebooted.clear()
            self._starts_anew(heart.domain)
        if began < self._due:
            return self._due - began
        if not heart.domain.active:
            self._due = began + heart.spec.interval
            return heart.spec.interval
        late = began - self._due > heart.spec.interval  # then we, or the whole host, stood still: no guest's fault
        learn = self._lessons < heart.spec.misses
        replies = ask(heart.domain, heart.spec, self._ports, learn=learn)
        self._due = max(began + heart.spec.interval, clock.monotonic())
        if replies.answered:
            self._heard |= {way for way, reply in replies.by_way.items() if reply is Reply.ANSWERED}
            self._connected |= replies.by_way.get("agent") is Reply.ANSWERED
            self._silent, self._left, self._lessons = 0, False, self._lessons + learn
        elif late or replies.slow or self._excused(heart):
            self._silent, self._pulse = 0, replace(self._pulse, good=0, bad=0)
            return max(0.0, self._due - clock.monotonic())
        else:
            self._silent = self._silent + 1 if replies.silent(self._heard) else 0
        text = "" if replies.answered else replies.text
        look = Look(PROBE, replies.answered, text, clock.monotonic() - began, clock.now())
        if not look.good and self._pulse.bad == 0 and self._care.down_since is None:
            self._first_bad = began
        self._pulse = beat(self._pulse, heart.spec.probe, look, began - self._since)
        self._judge(heart)
        return max(0.0, self._due - clock.monotonic())

    def _excused(self, heart: Heart) -> bool:
        """Whether silence means nothing now: paused, frozen, started anew, or somebody is at work on the guest.

        When libvirt does not tell, that is no fault of the guest either. An agent that left its channel was ended:
        the guest shuts down or reboots, so it has its start period once more; one that hangs leaves nothing.
        """
        uuid = heart.domain.uuid
        try:
            with self._ports.locks.guests([uuid], NOT_AT_ALL):
                domain = parsed(self._ports.hypervisor.domain(uuid))
        except VmhostError:
            return True
        if run_of(domain) != self._run:
            self._starts_anew(domain)
            return True
        if heartbeat_of(domain) != heart.spec or silent_by_right(domain):
            return True
        if agent_connected(domain.raw.live_xml):
            self._connected, self._left = True, False
        elif self._connected:
            self._starts_anew(domain)
            self._left = True
            return True
        return False

    def _judge(self, heart: Heart) -> None:
        """Tell what changed, and do what the site allows."""
        now, pulse = self._ports.clock.monotonic(), self._pulse
        doubt = self._doubt(heart)
        if pulse.up is False and not self._lost:
            self._lost = True
            console = f"; vmhost guest console {self._guest}" if doubt or not heart.spec.restart else ""
            self._say(f"does not answer: {pulse.bad} misses: {pulse.text}{doubt}{console}")
        before, policy = self._care, heart.spec.policy
        if doubt:
            policy = policy.model_copy(update={"policy": "never"})
        case = Case(health_of({PROBE: pulse}), now, self._first_bad or now)
        self._care, act = care_for(before, policy, case)
        if act is Act.HEALED:
            self._lost = False
            seconds = now - (now if before.down_since is None else before.down_since)
            tries = f" and {before.tries} {'try' if before.tries == 1 else 'tries'}" if before.tries else ""
            self._say(f"answers again after {seconds:.1f} s{tries}")
        elif act is Act.GIVE_UP:
            self._say(f"given up after {before.tries} tries: {pulse.text}; vmhost guest console {self._guest}")
        elif act is Act.RESTART:
            self._restart(heart, before)

    def _doubt(self, heart: Heart) -> str:
        """Return why a guest that may be restarted is not, as the end of a sentence; empty: it is lost for sure."""
        if not heart.spec.restart:
            return ""
        if is_protected(heart.domain):
            return "; it is protected, so it is not restarted"
        if self._left:
            return "; its agent was ended in order, so it is not restarted"
        if not self._heard:
            return "; it has never answered, so it is not restarted"
        if self._silent < heart.spec.misses:
            return "; that is not plain silence, so it is not restarted"
        return ""

    def _restart(self, heart: Heart, before: Care) -> None:
        """Restart the guest; what was not tried is no try."""
        number, cause = self._care.tries, self._pulse.text
        untried = replace(self._care, tries=before.tries, next_at=before.next_at)
        if self._over.is_set() or not self._alone.acquire(blocking=False):
            self._care = untried
            return
        told = f"try {number} of {heart.spec.tries}"
        self.restarting, self._begun, self._answered = True, False, False
        try:
            self._check_alone()
            how = self._revive(heart, cause)
        except Conflict:
            if not self._begun:
                self._care = untried  # it was started anew, answers again, or others are at work on it
        except VmhostError as error:
            if not isinstance(error, Cancelled) and not isinstance(error.__cause__, Cancelled):
                hint = f"; {error.hint}" if error.hint else ""
                self._say(f"was not restarted ({told}): {error.message}{hint}")
            elif self._answered or (self._over.is_set() and not self._begun):
                self._care = self._care if self._begun else untried
            else:
                self._care = replace(self._care, given_up=True)
                self._say(f"given up: its restart was cancelled ({told}); vmhost guest console {self._guest}")
        else:
            self._say(f"restarted by {how} ({told}): {cause}")
        finally:
            self.restarting = False
            self._alone.release()
        self._due = self._ports.clock.monotonic() + heart.spec.interval

    def _revive(self, heart: Heart, cause: str) -> str:
        """Shut it down, or power it off when it does not hear, and start it; return how it was stopped."""
        try:
            self._stop_and_start(heart, cause, power_off=False)
            how = "shutting it down"
        except ApplyError as error:
            if not isinstance(error.__cause__, GuestError) or error.leftovers:
                raise
            self._stop_and_start(heart, cause, power_off=True)
            how = "powering it off"
        self._debt = None
        self._starts_anew(parsed(self._ports.hypervisor.domain(heart.domain.uuid)))
        return how

    def _stop_and_start(self, heart: Heart, cause: str, *, power_off: bool) -> None:
        """Restart the guest, unless it answers when it is asked once more: under its own lock, no longer the host's.

        :raises Conflict: it is not what it was; :raises Cancelled: it answers. Nothing was done.
        """
        host = host_spec(self._ports)

        def plan(seen: Observed) -> Plan:
            domain = next((one for one in seen.domains if one.uuid == heart.domain.uuid), None)
            if domain is None or run_of(domain) != self._run:
                raise Conflict("it was started anew, or ended", subject=self._guest)
            if heartbeat_of(domain) != heart.spec or silent_by_right(domain):
                raise Conflict("its silence means nothing now", subject=self._guest)
            raise_all(against_start([domain], seen, host))
            shutdown = heart.spec.shutdown
            return plan_revival(self._guest, seen, cause=cause, shutdown=shutdown, power_off=power_off)

        self._apply(plan, lambda: self._answers(heart))

    def _answers(self, heart: Heart) -> bool:
        replies = ask(heart.domain, heart.spec, self._ports)
        self._answered = replies.slow or not replies.silent(self._heard)
        return self._answered

    def _apply(self, plan: Callable[[Observed], Plan], spare: Callable[[], bool] = lambda: False) -> None:
        """Apply a plan; as soon as its first step begins, :meth:`end` does not end it any more.

        :param spare: asked once, right before the first step, when the host's lock has been given back: whether
            nothing is to be done.
        """
        ports, locked = self._ports, False

        def again(seen: Observed) -> Plan:
            nonlocal locked
            made = plan(seen)
            locked = True
            return made

        def cancelled() -> bool:
            nonlocal locked
            due, locked = locked, False
            return (due and spare()) or (self._over.is_set() and not self._begun)

        def hear(event: Event) -> None:
            if isinstance(event, StepStarted) and not self._begun:
                self._begun = True
                if isinstance(proposal.plan.steps[0].do, ShutDown):
                    until = ports.clock.monotonic() + proposal.plan.steps[0].do.timeout + LATE
                    self._debt = Debt(self._run, ports.clock.now(), until)

        proposal = Proposal(self._kind, plan(observe(ports)), again, locks_host=False)
        apply_proposal(ports, proposal, on_event=hear, cancelled=cancelled)

    def _pay(self, heart: Heart) -> None:
        """Start a guest that obeyed our request to shut down after nobody waited for it any more."""
        debt = self._debt
        if debt is None:
            return

        def plan(seen: Observed) -> Plan:
            domain = next((one for one in seen.domains if one.uuid == heart.domain.uuid), None)
            if domain is None or domain.active or self._others_since(debt):
                raise Conflict("others have been at work on it", subject=self._guest)
            raise_all(against_start([domain], seen, host_spec(self._ports)))
            return plan_return(self._guest, seen)

        try:
            domain = parsed(self._ports.hypervisor.domain(heart.domain.uuid))
            over = self._ports.clock.monotonic() >= debt.until or self._others_since(debt)
            if over or (domain.active and run_of(domain) != debt.run):
                self._debt = None
            elif not domain.active:
                self.restarting, self._begun = True, False
                self._apply(plan)
                self._debt = None
                self._say("was started again: it had heard our request to shut down late")
        except (Conflict, Unreachable):
            pass  # at the next turn
        except VmhostError as error:
            self._debt = None
            self._say(f"was not started again: {error.message}; vmhost guest start {self._guest}")
        finally:
            self.restarting = False

    def _others_since(self, debt: Debt) -> bool:
        """Whether another job has been at this guest since: then its end may be what somebody wants."""
        return any(
            job.started >= debt.at and job.kind != self._kind and self._guest in job.subject.split()
            for job in self._ports.history.jobs()
        )

    def _earlier(self, heart: Heart) -> Care:
        """Return how far healing was before this watch began: what it tried counts as long as the quiet period."""
        jobs, spec, tries = self._ports.history.jobs(), heart.spec, 0
        now, last = self._ports.clock.now(), 0.0
        for job in sorted(jobs, key=lambda job: job.started):
            if job.kind != self._kind or job.state in ("running", "cancelled") or now - job.started > spec.quiet:
                continue
            tries += job.started - last > spec.shutdown + 30  # else: the same try, which powers off what did not hear
            last = job.started
        if not tries:
            return Care()
        pause = min(spec.most, spec.backoff * 2 ** (tries - 1))
        return Care(tries=tries, next_at=self._ports.clock.monotonic() + last + pause - now)

    def _check_alone(self) -> None:
        """:raises Conflict: another watch is restarting a guest."""
        for job in self._ports.history.jobs():
            if job.state == "running" and job.kind.startswith(f"{PROBE} "):
                raise Conflict("another watch is restarting a guest", subject=job.subject)

    @property
    def _kind(self) -> str:
        return f"{PROBE} {self._guest}"

    def _say(self, text: str) -> None:
        self._tell(Notice(self._guest, text))

    def _starts_anew(self, domain: ObservedDomain) -> None:
        """Forget what was seen before a start: its start period begins."""
        self._run, self._pulse = run_of(domain), Pulse()
        self._silent, self._connected, self._left = 0, False, False
        self._since = self._due = self._ports.clock.monotonic()
