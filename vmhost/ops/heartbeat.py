"""``vmhost watch`` for guests as a whole: looks whether they answer, and restarts those whose site allows it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from vmhost.engine.observe import observe, observe_domains, parsed
from vmhost.engine.services.probing import PING
from vmhost.engine.session import ssh_target
from vmhost.model.errors import (
    ApplyError,
    Cancelled,
    Conflict,
    GuestError,
    HostKeyMismatch,
    PermissionDenied,
    VmhostError,
)
from vmhost.model.events import Event, Notice
from vmhost.model.services import Look
from vmhost.model.spec.heartbeat import HeartbeatSpec
from vmhost.ops.apply import apply_proposal
from vmhost.ops.hostfile import host_spec
from vmhost.ops.proposals import Proposal
from vmhost.plan.admission import against_start
from vmhost.plan.healing import Act, Care, Case, Pulse, beat, care_for, health_of
from vmhost.plan.heartbeat import heartbeat_of, plan_revival, run_of, silent_by_right
from vmhost.plan.request import raise_all
from vmhost.ports import NOT_AT_ALL, Ports

if TYPE_CHECKING:
    from vmhost.model.observed import Observed, ObservedDomain
    from vmhost.model.plan import Plan

PROBE: Final = "heartbeat"


@dataclass(frozen=True, slots=True)
class Heart:
    """A guest whose heartbeat is watched, as its site says."""

    domain: ObservedDomain
    spec: HeartbeatSpec


def hearts(ports: Ports) -> Iterator[Heart]:
    """Yield every guest that runs and wants to be looked at."""
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
        self.restarting = False
        self._heart: Heart | None = None
        self._run = ""
        self._since = self._due = self._first_bad = 0.0
        self._pulse = Pulse()
        self._care = Care()
        self._lost = False

    def take(self, heart: Heart) -> None:
        """Watch this guest as it says now; one that was started anew has its start period again."""
        before, self._heart = self._heart, heart
        if before is None or before.spec != heart.spec or run_of(heart.domain) != self._run:
            self._starts_anew(heart.domain)

    def end(self) -> None:
        """Begin nothing more, and end a restart that is under way; from any thread."""
        self._over.set()

    def turn(self) -> float:
        """Look if it is time, act, and return the seconds until the next look."""
        heart, clock = self._heart, self._ports.clock
        assert heart is not None
        began = clock.monotonic()
        if began < self._due:
            return self._due - began
        late = began - self._due > heart.spec.interval  # then we, or the whole host, stood still: no guest's fault
        silence = self._silence(heart)
        self._due = max(began + heart.spec.interval, clock.monotonic())
        if not silence or not (late or self._excused(heart)):
            look = Look(PROBE, not silence, silence, clock.monotonic() - began, clock.now())
            if silence and self._pulse.bad == 0 and self._care.down_since is None:
                self._first_bad = began
            self._pulse = beat(self._pulse, heart.spec.probe, look, began - self._since)
            self._judge(heart)
        else:
            self._pulse = replace(self._pulse, good=0, bad=0)
        return max(0.0, self._due - clock.monotonic())

    def _silence(self, heart: Heart) -> str:
        """Return why nothing of the guest answers; empty: something does."""
        said = []
        for way, ask in (("agent", self._ask_agent), ("ssh", self._ask_ssh)):
            if heart.spec.by in ("any", way):
                try:
                    ask(heart)
                except (PermissionDenied, HostKeyMismatch):
                    return ""  # it does not let us in, yet somebody answers: no restart would mend that
                except VmhostError as error:
                    said.append(f"{way}: {error.message}")
                else:
                    return ""
        return "; ".join(said)

    def _ask_agent(self, heart: Heart) -> None:
        self._ports.hypervisor.agent(heart.domain.uuid, PING, heart.spec.timeout)

    def _ask_ssh(self, heart: Heart) -> None:
        """Sign in anew and run a command: a connection that is still open proves nothing."""
        timeout = heart.spec.timeout
        target = ssh_target(heart.domain, self._ports)
        session = self._ports.shell.connect(target, deadline=self._ports.clock.monotonic() + timeout)
        try:
            session.run(("true",), timeout=timeout)
        finally:
            session.close()

    def _excused(self, heart: Heart) -> bool:
        """Whether silence means nothing now: paused, frozen, started anew, or somebody is at work on the guest.

        When libvirt does not tell, that is no fault of the guest either.
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
        return heartbeat_of(domain) != heart.spec or silent_by_right(domain)

    def _judge(self, heart: Heart) -> None:
        """Tell what changed, and do what the site allows."""
        now, pulse = self._ports.clock.monotonic(), self._pulse
        if pulse.up is False and not self._lost:
            self._lost = True
            restarts = "" if heart.spec.restart else f"; vmhost guest console {self._guest}"
            self._say(f"does not answer: {pulse.bad} misses: {pulse.text}{restarts}")
        before = self._care
        case = Case(health_of({PROBE: pulse}), now, self._first_bad or now)
        self._care, act = care_for(before, heart.spec.policy, case)
        if act is Act.HEALED:
            self._lost = False
            seconds = now - (now if before.down_since is None else before.down_since)
            tries = f" and {before.tries} {'try' if before.tries == 1 else 'tries'}" if before.tries else ""
            self._say(f"answers again after {seconds:.1f} s{tries}")
        elif act is Act.GIVE_UP:
            self._say(f"given up after {before.tries} tries: {pulse.text}; vmhost guest console {self._guest}")
        elif act is Act.RESTART:
            self._restart(heart, before)

    def _restart(self, heart: Heart, before: Care) -> None:
        """Restart the guest; what was not tried is no try."""
        number, cause = self._care.tries, self._pulse.text
        untried = replace(self._care, tries=before.tries, next_at=before.next_at)
        if self._over.is_set() or not self._alone.acquire(blocking=False):
            self._care = untried
            return
        told = f"try {number} of {heart.spec.tries}"
        self.restarting = True
        try:
            how = self._revive(heart, cause)
        except (Conflict, Cancelled):
            self._care = untried  # it was started anew, answers again, or others are at work on it
        except VmhostError as error:
            self._say(f"was not restarted ({told}): {error.message}")
        else:
            self._say(f"restarted by {how} ({told}): {cause}")
        finally:
            self.restarting = False
            self._alone.release()
        self._due = self._ports.clock.monotonic() + heart.spec.interval

    def _revive(self, heart: Heart, cause: str) -> str:
        """Shut it down, or power it off when it does not hear, and start it; return how it was stopped."""
        try:
            self._apply(heart, cause, power_off=False)
            how = "shutting it down"
        except ApplyError as error:
            if not isinstance(error.__cause__, GuestError) or error.leftovers:
                raise
            self._apply(heart, cause, power_off=True)
            how = "powering it off"
        self._starts_anew(parsed(self._ports.hypervisor.domain(heart.domain.uuid)))
        return how

    def _apply(self, heart: Heart, cause: str, *, power_off: bool) -> None:
        ports, host = self._ports, host_spec(self._ports)

        def plan(seen: Observed) -> Plan:
            domain = next((one for one in seen.domains if one.uuid == heart.domain.uuid), None)
            if domain is None or run_of(domain) != self._run:
                raise Conflict("it was started anew, or ended", subject=self._guest)
            raise_all(against_start([domain], seen, host))
            shutdown = heart.spec.shutdown
            return plan_revival(self._guest, seen, cause=cause, shutdown=shutdown, power_off=power_off)

        def again(fresh: Observed) -> Plan:
            if not self._silence(heart):
                raise Conflict("it answers again", subject=self._guest)
            return plan(fresh)

        proposal = Proposal(f"heartbeat {self._guest}", plan(observe(ports)), again, locks_host=False)
        apply_proposal(ports, proposal, cancelled=self._over.is_set)

    def _say(self, text: str) -> None:
        self._tell(Notice(self._guest, text))

    def _starts_anew(self, domain: ObservedDomain) -> None:
        """Forget what was seen before a start: its start period begins."""
        self._run, self._pulse = run_of(domain), Pulse()
        self._since = self._due = self._ports.clock.monotonic()
