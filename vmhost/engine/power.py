"""Stopping a guest in an orderly way: ask, then wait for its own end; and seeing that it does not run."""

from __future__ import annotations

from contextlib import suppress

from vmhost.engine.context import Context
from vmhost.model.errors import Absent, Conflict, GuestError
from vmhost.ports import Ports, Wakeups

ASK_AGAIN = 15.0
LOOK_UP = 1.0


def shut_down(uuid: str, name: str, timeout: float, context: Context) -> None:
    """Ask a guest to shut down and wait until it has, at most ``timeout`` seconds; it is never powered off.

    A guest that has just booted may not listen yet, so it is asked again every 15 s.

    :raises Absent: it does not run; :raises GuestError: it still runs after the time-out, and goes on running.
    """
    ports = context.ports
    wakeups = ports.signals.open(ports.hypervisor, uuid, "")
    try:
        deadline = ports.clock.monotonic() + timeout
        while ports.hypervisor.domain(uuid).state.active:
            remaining = deadline - ports.clock.monotonic()
            if remaining <= 0:
                hint = f"vmhost guest console {name}, or vmhost guest stop {name} --power-off"
                text = f"still running {timeout:.0f} s after it was asked to shut down"
                raise GuestError(text, subject=name, hint=hint)
            try:
                ports.hypervisor.shut_down(uuid)
            except Absent:
                return
            _await_end(wakeups, min(ASK_AGAIN, remaining), context)
    finally:
        wakeups.close()


def refuse_running(uuid: str, name: str, what: str, ports: Ports) -> None:
    """:raises Conflict: the guest runs, though it was shut off: it would write on into a file that has gone."""
    with suppress(Absent):
        if ports.hypervisor.domain(uuid).state.active:
            text = f"it was started meanwhile; its {what} were not touched"
            raise Conflict(text, subject=name, hint=f"vmhost guest stop {name}, then vmhost recover")


def _await_end(wakeups: Wakeups, seconds: float, context: Context) -> None:
    """Return at the guest's end, or after ``seconds``; look for a cancellation every second."""
    deadline = context.ports.clock.monotonic() + seconds
    while (remaining := deadline - context.ports.clock.monotonic()) > 0:
        context.check()
        if {"stopped", "crashed"} & set(wakeups.wait(min(LOOK_UP, remaining))):
            return
