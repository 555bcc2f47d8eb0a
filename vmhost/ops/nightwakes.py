"""Installing what wakes the night's work, and taking it away, each by a plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vmhost.engine.observe import observe_domains
from vmhost.model.calendar import parse_calendar
from vmhost.model.errors import Refused, UsageError
from vmhost.model.nightsteps import CRON, UNITS, ObservedTimers, TimerFile
from vmhost.model.plan import Difference, Plan
from vmhost.ops.proposals import Proposal
from vmhost.plan.applied import backup_wish
from vmhost.plan.wakes import SUBJECT, check_means, plan_wakes, wakes
from vmhost.render.nightunits import cron_text, units

if TYPE_CHECKING:
    from vmhost.ops.host import Host


@dataclass(frozen=True, slots=True)
class Waking:
    """What wakes the night's work, as a person wishes it.

    ``program``: the words that start vmhost; ``options``: further words for ``nightly run``; ``at``: when guests have
    their turn whose sites say nothing; ``on_failure``: for the shell, when something failed; ``cron``: a line for cron
    even where systemd is.
    """

    program: Sequence[str]
    at: str
    options: Sequence[str] = ()
    on_failure: str = ""
    cron: bool = False


def propose_install(host: Host, waking: Waking) -> Proposal:
    """Return what would be written and started; nothing is changed. Done twice, the second plan is empty.

    :raises UsageError: ``at`` is no calendar event, or systemd does not take the units; :raises Conflict: files of
        these names are another's, or nothing here could wake anything; :raises Refused: it is a user's own hypervisor.
    """
    check_calendar(waking.at)
    _check_system(host)
    wishes = [backup_wish(domain) for domain in observe_domains(host.ports.hypervisor) if domain.metadata]
    events = wakes(waking.at, wishes)

    def wanted(seen: ObservedTimers) -> tuple[TimerFile, ...]:
        cron = waking.cron or not seen.systemd
        check_means(seen, cron=cron)
        argv = [*waking.program, "nightly", "run", "--at", waking.at, *waking.options]
        texts = timer_texts(argv, events, waking.on_failure, cron=cron)
        files = tuple(TimerFile(path, text) for path, text in texts.items())
        if not cron:
            host.ports.timers.check(files)
        return files

    return _propose(host, f"{SUBJECT} install", wanted)


def propose_remove(host: Host) -> Proposal:
    """Return what would be stopped and deleted; files of these names that are another's stay.

    :raises Refused: it is a user's own hypervisor.
    """
    _check_system(host)
    return _propose(host, f"{SUBJECT} remove", lambda _: ())


def _check_system(host: Host) -> None:
    if not host.ports.hypervisor.daemon().privileged:
        text = "only the system's hypervisor is woken for; print the units, and put them where your own timers are"
        raise Refused(text, subject=SUBJECT, hint="vmhost nightly units")


def _propose(host: Host, operation: str, wanted: Callable[[ObservedTimers], tuple[TimerFile, ...]]) -> Proposal:
    timers = host.ports.timers

    def again(_: object) -> Plan:
        seen = timers.state()
        return plan_wakes(wanted(seen), seen)

    def left(_: object) -> tuple[Difference, ...]:
        return tuple(Difference(SUBJECT, "timer", item.why, "not done") for item in again(None).steps)

    return Proposal(operation, again(None), again, drift=left)


def check_calendar(at: str) -> None:
    """Return when systemd would understand this time. :raises UsageError: it would not."""
    try:
        parse_calendar(at)
    except ValueError as error:
        raise UsageError(str(error), subject="--at", hint="--at 22:00") from error


def timer_texts(
    argv: Sequence[str], at: Sequence[str], on_failure: str = "", *, cron: bool = False
) -> Mapping[str, str]:
    """Return what starts the night's work, by the names of the files that it belongs into.

    :param at: when; cron knows the first one only, which has to be a time of the day.
    :raises UsageError: it is no time that systemd, or cron, understands.
    """
    if cron and on_failure:
        raise UsageError("cron mails what a command says; it has no command for failures", hint="leave it out")
    for one in at:
        check_calendar(one)
    if cron:
        return {CRON: cron_text(argv, at[0])}
    return {f"{UNITS}/{name}": text for name, text in units(argv, at, on_failure).items()}
