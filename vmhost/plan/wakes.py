"""What wakes the night's work: when, and the steps that put it in place or take it away."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import unified_diff
from math import ceil
from typing import Final

from vmhost.model.calendar import parse_calendar
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
from vmhost.plan.due import NEARLY

SUBJECT: Final = "nightly"
_DAY: Final = 24 * 60
_STEPS: Final = (60, 30, 20, 15, 12, 10, 6, 5, 4, 3, 2, 1)
"""Minutes from one waking to the next that an hour is a multiple of."""


def wakes(at: str, wishes: Iterable[BackupSpec]) -> tuple[str, ...]:
    """Return the calendar events at which the night's work has to be woken.

    That is at ``at``, at every moment that a guest's site names, and as seldom as no guest whose last one has to be of
    some age then waits for longer than that age.
    """
    moments, ages = set[str](), set[float]()
    for wish in wishes:
        moments |= {text for text in (wish.schedule.points, wish.schedule.full, wish.schedule.drill) if text}
        ages |= {age for age in (wish.every, wish.full, wish.drill.every) if age}
    if ages and not (parse_calendar(at).every_day and _enough(_DAY, ages)):
        step = next((step for step in _STEPS if _enough(step, ages)), _STEPS[-1])
        moments.add("hourly" if step == _STEPS[0] else f"*:0/{step}")
    return (at, *sorted(moments - {at}))


def _enough(step: int, ages: Iterable[float]) -> bool:
    """Whether each is due, and that for a minute by which timers may be late, at a waking within its age.

    :param step: minutes from one waking to the next.
    """
    return all(ceil((NEARLY * age / 60 + 1) / step) * step <= age / 60 for age in ages)


def plan_wakes(wanted: Iterable[TimerFile], seen: ObservedTimers) -> Plan:
    """Return the plan that leaves exactly these files, and the timer started if it is among them.

    :param wanted: units, or the file for cron; none: everything goes.
    :raises Conflict: a file of such a name is another's.
    """
    want, have = {file.path: file for file in wanted}, {file.path: file for file in seen.files}
    timer = f"{UNITS}/{TIMER}"
    if seen.foreign and want:
        text = f"not vmhost's, so nothing is touched: {', '.join(seen.foreign)}"
        first = [f"systemctl disable --now {TIMER}"] if timer in seen.foreign else []
        raise Conflict(
            text, subject=SUBJECT, hint=" && ".join([*first, *(f"mv {path} {path}.old" for path in seen.foreign)])
        )
    steps, notes = list[Planned](), [Note(path, "is not vmhost's, and stays") for path in seen.foreign]
    if (seen.boot or seen.now) and timer not in want:
        off = StopTimer(TIMER, boot=seen.boot, now=seen.now)
        steps.append(_planned(off, StartTimer(TIMER, boot=seen.boot, now=seen.now), f"stop {TIMER}"))
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
    if timer in want and not (seen.boot and seen.now):
        on = StartTimer(TIMER, boot=not seen.boot, now=not seen.now)
        text = " and ".join(words for words, is_on in (("now", seen.now), ("at every boot", seen.boot)) if not is_on)
        steps.append(_planned(on, StopTimer(TIMER, boot=on.boot, now=on.now), f"start {TIMER}, {text}"))
    if timer in want and steps:
        notes.append(Note(TIMER, "what is due begins within a minute if one of its moments passed since it last woke"))
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
