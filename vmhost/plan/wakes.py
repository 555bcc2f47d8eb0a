"""What wakes the night's work: when, and the steps that put it in place or take it away."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import unified_diff
from math import inf
from typing import Final

from vmhost.model.errors import Conflict
from vmhost.model.nightsteps import (
    CRON,
    FILES,
    TIMER,
    UNITS,
    DropTimerFile,
    NightStep,
    ObservedTimers,
    PutTimerFile,
    StartTimer,
    StopTimer,
    TimerFile,
)
from vmhost.model.plan import Change, Note, Plan, Planned
from vmhost.model.spec.protection import BackupSpec

SUBJECT: Final = "nightly"
_HOUR: Final = 3600.0
_MINUTES: Final = (30, 20, 15, 12, 10, 6, 5, 4, 3, 2, 1)


def wakes(at: str, wishes: Iterable[BackupSpec]) -> tuple[str, ...]:
    """Return the calendar events at which the night's work has to be woken.

    That is at ``at``, at every moment that a guest's site names, and as often as the guest that is most often due by
    the age of its last one.
    """
    moments, often = set[str](), inf
    for wish in wishes:
        moments |= {text for text in (wish.schedule.points, wish.schedule.full, wish.schedule.drill) if text}
        often = min(often, *(age for age in (wish.every, wish.full, wish.drill.every, inf) if age))
    if often < _HOUR:
        moments.add(f"*:0/{next(minutes for minutes in _MINUTES if minutes * 60 <= often)}")
    elif often < 24 * _HOUR:
        moments.add("hourly")
    return (at, *sorted(moments - {at}))


def plan_wakes(wanted: Iterable[TimerFile], seen: ObservedTimers) -> Plan:
    """Return the plan that leaves exactly these files, and the timer started if it is among them.

    :param wanted: units, or the file for cron; none: everything goes.
    :raises Conflict: a file of such a name is another's.
    """
    want, have = {file.path: file for file in wanted}, {file.path: file for file in seen.files}
    if seen.foreign and want:
        text = f"not vmhost's, so nothing is touched: {', '.join(seen.foreign)}"
        raise Conflict(text, subject=SUBJECT, hint=f"mv {seen.foreign[0]} {seen.foreign[0]}.old")
    timer = f"{UNITS}/{TIMER}"
    steps, notes = list[Planned](), [Note(path, "is not vmhost's, and stays") for path in seen.foreign]
    if seen.started and timer not in want:
        steps.append(_planned(StopTimer(TIMER), StartTimer(TIMER), f"stop {TIMER}"))
    for path in FILES:
        new, old = want.get(path), have.get(path)
        if new == old:
            continue
        back = PutTimerFile(old) if old else DropTimerFile(path)
        if new is None:
            steps.append(_planned(DropTimerFile(path), back, f"delete {path}"))
        else:
            notes += (Note(path, line) for line in _difference(old, new))
            steps.append(_planned(PutTimerFile(new), back, f"write {path}{' anew' if old else ''}"))
    if timer in want and not seen.started:
        steps.append(_planned(StartTimer(TIMER), StopTimer(TIMER), f"start {TIMER}, now and at every boot"))
    return Plan("", tuple(steps), notes=tuple(notes))


def check_means(seen: ObservedTimers, *, cron: bool) -> None:
    """Return when this machine has what is to wake the night's work. :raises Conflict: it has not."""
    if cron and not seen.cron:
        text = "there is neither systemd nor cron to wake anything" if not seen.systemd else "there is no cron"
        raise Conflict(text, subject=CRON, hint="vmhost nightly run")


def _planned(do: NightStep, undo: NightStep, why: str) -> Planned:
    return Planned(do, undo, Change.LIVE, SUBJECT, f"{SUBJECT}: {why}")


def _difference(old: TimerFile | None, new: TimerFile) -> Iterator[str]:
    """Yield the lines that go and come, without headings, comments and hunks."""
    before = old.text.splitlines() if old else []
    lines = list(unified_diff(before, new.text.splitlines(), n=0, lineterm=""))[2:]
    return (line for line in lines if line[1:] and line[1] not in "[#@")
