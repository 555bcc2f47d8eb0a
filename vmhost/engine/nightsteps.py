"""The effect of steps about what wakes the night's work, in one ``match``."""

from __future__ import annotations

from typing import assert_never

from vmhost.model.nightsteps import DropTimerFile, NightStep, PutTimerFile, StartTimer, StopTimer
from vmhost.ports import Timers


def execute_for_night(step: NightStep, timers: Timers) -> None:
    """Do one step. :raises DriverError: it failed."""
    match step:
        case PutTimerFile(file):
            timers.put(file)
        case DropTimerFile(path):
            timers.drop(path)
        case StartTimer(name, boot, now):
            timers.start(name, boot=boot, now=now)
        case StopTimer(name, boot, now):
            timers.stop(name, boot=boot, now=now)
        case _:
            assert_never(step)
