"""What wakes the night's work: files for systemd and cron, and the steps that put them in place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

MARK: Final = "# vmhost: wakes the night's work; written by vmhost nightly install, removed by vmhost nightly remove"
"""The first line of each file of ours; without it a file of that name is another's."""

UNITS: Final = "/etc/systemd/system"
SERVICE: Final = "vmhost-nightly.service"
TIMER: Final = "vmhost-nightly.timer"
FAILED: Final = "vmhost-nightly-failed.service"
CRON: Final = "/etc/cron.d/vmhost-nightly"
FILES: Final = (f"{UNITS}/{SERVICE}", f"{UNITS}/{FAILED}", f"{UNITS}/{TIMER}", CRON)
"""All files that may be ours, in the order in which they are written."""


@dataclass(frozen=True, slots=True)
class TimerFile:
    """A file and its whole text."""

    path: str
    text: str


@dataclass(frozen=True, slots=True)
class ObservedTimers:
    """What is there: whether systemd and cron are, our files, and files of these names that are another's.

    ``boot``: our timer is started at every boot, or a link says so whose file is gone; ``now``: it waits at present.
    """

    systemd: bool = False
    cron: bool = False
    files: tuple[TimerFile, ...] = ()
    foreign: tuple[str, ...] = ()
    boot: bool = False
    now: bool = False


@dataclass(frozen=True, slots=True)
class PutTimerFile:
    """Write a file that wakes the night's work, or write it anew."""

    file: TimerFile
    kind: Literal["put-timer-file"] = "put-timer-file"


@dataclass(frozen=True, slots=True)
class DropTimerFile:
    """Delete such a file."""

    path: str
    kind: Literal["drop-timer-file"] = "drop-timer-file"


@dataclass(frozen=True, slots=True)
class StartTimer:
    """Let systemd start the timer, now, at every boot, or both."""

    name: str
    boot: bool = True
    now: bool = True
    kind: Literal["start-timer"] = "start-timer"


@dataclass(frozen=True, slots=True)
class StopTimer:
    """Let systemd stop the timer, no more start it at boot, or both."""

    name: str
    boot: bool = True
    now: bool = True
    kind: Literal["stop-timer"] = "stop-timer"


NightStep = PutTimerFile | DropTimerFile | StartTimer | StopTimer
