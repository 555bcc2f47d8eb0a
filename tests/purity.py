"""No real world for pure tests: a guard that turns every reach outside into a failure that no code can swallow."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

OUTSIDE = frozenset(
    {
        "os.exec",
        "os.fork",
        "os.forkpty",
        "os.posix_spawn",
        "os.system",
        "socket.bind",
        "socket.connect",
        "socket.getaddrinfo",
        "sqlite3.connect",
        "subprocess.Popen",
    }
)


class RealWorldTouched(BaseException):
    """A pure test reached outside; not an Exception, so that no handler under test hides it."""


class _Guard:
    on = False


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if _Guard.on and event in OUTSIDE:
        raise RealWorldTouched(f"{event} {arguments}")


sys.addaudithook(_hook)  # cannot be taken back, hence the switch


@contextmanager
def no_real_world() -> Iterator[None]:
    """Forbid networks, databases and other programs inside the block."""
    _Guard.on = True
    try:
        yield
    finally:
        _Guard.on = False
