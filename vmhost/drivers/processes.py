"""Whether a process still lives: by its id, or beyond doubt by its id and birth."""

from __future__ import annotations

import os
from pathlib import Path


def process_is_alive(pid: int, *, birth: str = "") -> bool:
    """Whether a process of that id runs, whoever's it is; with ``birth``, whether it is the one that was born then.

    What only waits for its parent to read its exit status is dead. Where /proc hides the processes of others (hidepid),
    an id that exists counts as the one that was meant.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it exists, and is another user's
    fields = _stat(pid)
    if not fields:
        return True
    return fields[0] not in {"Z", "X"} and birth in {"", _birth(fields)}


def birth_of(pid: int) -> str:
    """Return what tells a process from every other that has or had its id: the boot and the tick of its start.

    Empty when there is no such process.
    """
    fields = _stat(pid)
    return _birth(fields) if fields else ""


def _stat(pid: int) -> list[str]:
    """Return /proc/PID/stat from its third field on (proc(5)); the second, the program's name, may hold anything."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _birth(fields: list[str]) -> str:
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}/{fields[19]}"
