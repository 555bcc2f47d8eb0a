"""Thaws a guest when the vmhost that froze it has died, or takes too long: URI UUID FILE SECONDS."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

TICK: Final = 0.1
ANSWER: Final = 5.0
PAUSE: Final = 1.0
PATIENCE: Final = 120.0
"""Seconds in which the agent is asked again: longer than one that answers late, or is started anew, needs."""

_THAW: Final = '{"execute": "guest-fsfreeze-thaw"}'


def main(arguments: Sequence[str]) -> int:
    """Watch over one freeze; 0: the guest is not frozen, 1: its agent did not thaw it."""
    uri, uuid, path, seconds = arguments
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    return watch(Path(path), float(seconds), lambda there: thaw(uri, uuid, there))


def watch(path: Path, seconds: float, act: Callable[[Callable[[], bool]], bool]) -> int:
    """Wait until the owner of a file has removed it, and return; ``act`` when it has died or the time is over.

    ``act`` gets what tells whether the file is still there.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return 0
    with file:
        mine, end = os.fstat(file.fileno()), time.monotonic() + seconds
        while _is_held(file.fileno()) and time.monotonic() < end:
            time.sleep(TICK)
        if not _is_there(path, mine):
            return 0
        done = act(lambda: _is_there(path, mine))
        if _is_there(path, mine):
            path.unlink(missing_ok=True)
        return 0 if done else 1


def thaw(uri: str, uuid: str, there: Callable[[], bool]) -> bool:
    """Let the guest's agent thaw; ask again until it has, or the guest has ended, for as long as there is patience.

    Whoever froze may have thawed it by other means meanwhile: then nothing is ``there`` to thaw, and the next freeze
    is another guard's.
    """
    from vmhost.drivers.libvirt import connect
    from vmhost.model.errors import Absent, DriverError

    end = time.monotonic() + PATIENCE
    while there():
        with suppress(DriverError, ValueError, KeyError, TypeError):
            try:
                with connect(uri) as hypervisor:
                    if isinstance(json.loads(hypervisor.agent(uuid, _THAW, ANSWER))["return"], int):
                        return True
            except Absent:
                return True
        if time.monotonic() >= end:
            sys.stderr.write(f"vmhost: guest {uuid} may still be frozen: vmhost recover\n")
            return False
        time.sleep(PAUSE)
    return True


def _is_held(file: int) -> bool:
    """Whether somebody has the lock; it is let go of at once if not."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(file, fcntl.LOCK_UN)
    return False


def _is_there(path: Path, mine: os.stat_result) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(path.stat(), mine)
    return False
