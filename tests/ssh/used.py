"""What this process has in use, for a look before something and one after it."""

from __future__ import annotations

import threading
from pathlib import Path

from tests.contract.backends import eventually


def used() -> tuple[int, int]:
    """How many threads and how many open files there are."""
    return threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))


def no_more_than(before: tuple[int, int]) -> bool:
    """Whether there are no more than before, once what is ending has ended."""
    return eventually(lambda: all(now <= then for now, then in zip(used(), before, strict=True)), seconds=20)


def processes_with(word: str) -> list[str]:
    """The numbers of the processes that have this word among their arguments."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if word.encode() in path.read_bytes().split(b"\0"):
                found.append(path.parent.name)
        except OSError:
            continue
    return found
