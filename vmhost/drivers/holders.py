"""Who holds a lock, as its file tells others. The lock itself is the kernel's."""

from __future__ import annotations

import json
import shlex
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vmhost.drivers.processes import process_is_alive


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lock, since when (seconds since the epoch)."""

    pid: int
    command: str
    since: float

    def __str__(self) -> str:
        seconds = max(0, round(time.time() - self.since))
        return f"{self.command}, pid {self.pid}, for {seconds} s"


def write_holder(path: Path, holder: Holder | None) -> None:
    """Write into a lock file who holds it; None: nobody any more."""
    text = ""
    if holder is not None:
        text = json.dumps({"pid": holder.pid, "command": holder.command, "since": holder.since})
    # The lock is the kernel's; this is only what others are told about its holder, so it may be missing.
    with suppress(OSError):
        path.write_text(text)


def read_holder(path: Path) -> Holder | None:
    """Return who wrote itself into a lock file, or None when nobody did or the writer is dead."""
    try:
        entry = json.loads(path.read_text())
        holder = Holder(pid=int(entry["pid"]), command=str(entry["command"]), since=float(entry["since"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return holder if process_is_alive(holder.pid) else None


def holder_words(path: Path) -> str:
    """Return the words for who holds a lock file."""
    holder = read_holder(path)
    return str(holder) if holder else "another vmhost"


def look_at(path: Path) -> str:
    """Return what to type to see who holds a lock file."""
    holder = read_holder(path)
    return f"ps -fp {holder.pid}" if holder else f"fuser -v {shlex.quote(str(path))}"
