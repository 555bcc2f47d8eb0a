"""Faults on demand: every call of every port is counted, and one of them fails, or is the last one of the process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, Literal

from vmhost.model.errors import DriverError
from vmhost.ports import OpenJournal, Ports

COUNTED: Final = frozenset(
    {
        *("hypervisor", "links", "hook", "keeper", "kernel", "shell", "session", "signals", "wakeups"),
        *("packet", "files", "seeds", "images", "keys", "locks", "journals", "journal", "reservations", "repositories"),
        *("timers", "thawing", "guard"),
    }
)
"""What fails by itself now and then. Clocks and chance do not; history is never in the way; the layout is a value."""

_INNER: Final[Mapping[tuple[str, str], str]] = {
    ("shell", "connect"): "session",
    ("signals", "open"): "wakeups",
    ("journals", "begin"): "journal",
    ("thawing", "arm"): "guard",
}
"""Calls that return a further thing with calls of its own, and what that is named."""

Place = Literal["before", "after"]


class SimulatedKill(BaseException):
    """The process is dead from here: nothing that it still calls has any effect."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a port; ``number`` counts from 0. Texts are cut and bytes only measured: they may be secrets."""

    number: int
    port: str
    method: str
    arguments: str

    def __str__(self) -> str:
        return f"{self.number}: {self.port}.{self.method}({self.arguments})"


@dataclass(frozen=True, slots=True)
class FaultPlan:
    """Which call goes wrong, and how.

    ``at`` is the call's number, -1 for none; ``place`` is ``before`` it does anything or ``after`` it has done all.
    ``error`` makes the error that is raised. Without it the process ends: by ``kill``, in reality
    ``os.kill(os.getpid(), SIGKILL)``, or by :class:`SimulatedKill`. ``lasting`` lets every later call to the same port
    fail as well. ``only`` chooses the calls that are counted.
    """

    at: int = -1
    place: Place = "before"
    error: Callable[[Call], BaseException] | None = None
    kill: Callable[[], None] | None = None
    lasting: bool = False
    only: Callable[[str, str], bool] = field(default=lambda port, _method: port in COUNTED)


class FaultyPorts:
    """Ports around other ports, fake or real: they count the calls, keep a record of them, and let one go wrong.

    Calls are numbered in the order in which they are made, so a sweep needs an operation that makes them in one order.

    :param ports: what does the work.
    :param plan: what goes wrong; by default nothing, which tells how many calls an operation makes.
    """

    def __init__(self, ports: Ports, plan: FaultPlan | None = None) -> None:
        self.plan = plan or FaultPlan()
        self.calls: list[Call] = []
        self.dead = False
        self._lock = threading.Lock()
        self._broken = ""
        proxies: dict[str, Any] = {name: _Proxy(self, name, port) for name, port in _ports(ports)}
        self.ports: Ports = replace(ports, **proxies)

    def struck(self) -> Call | None:
        """Return the call that went wrong, or None."""
        return self.calls[self.plan.at] if 0 <= self.plan.at < len(self.calls) else None

    def call(
        self, port: str, method: str, act: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any]
    ) -> Any:
        """Do one call of a port, or what the plan has for it."""
        if self.dead:
            raise SimulatedKill
        call = self._count(port, method, args, named)
        if call is None:
            return self._wrap(port, method, act(*args, **named))
        strikes = call.number == self.plan.at or self._broken == port
        if strikes and self.plan.place == "before":
            self._strike(call)
        result = act(*args, **named)
        if strikes and self.plan.place == "after":
            self._strike(call)
        return self._wrap(port, method, result)

    def _count(self, port: str, method: str, args: tuple[Any, ...], named: dict[str, Any]) -> Call | None:
        if not self.plan.only(port, method):
            return None
        shown = ", ".join((*map(_shown, args), *(f"{name}={_shown(value)}" for name, value in named.items())))
        with self._lock:
            call = Call(len(self.calls), port, method, shown)
            self.calls.append(call)
        return call

    def _strike(self, call: Call) -> None:
        if self.plan.lasting:
            self._broken = call.port
        if self.plan.error is not None:
            raise self.plan.error(call)
        self.dead = True
        if self.plan.kill is not None:
            self.plan.kill()
        raise SimulatedKill(str(call))

    def _wrap(self, port: str, method: str, result: Any) -> Any:
        inner = _INNER.get((port, method))
        if inner:
            return _Proxy(self, inner, result)
        if isinstance(result, tuple) and result and isinstance(result[0], OpenJournal):
            return tuple(replace(journal, writer=_Proxy(self, "journal", journal.writer)) for journal in result)
        return result


class _Proxy:
    """Stands for a port or for what one returned; its methods go through :meth:`FaultyPorts.call`."""

    def __init__(self, faulty: FaultyPorts, name: str, target: Any) -> None:
        self._faulty = faulty
        self._name = name
        self._target = target

    def __getattr__(self, method: str) -> Any:
        act = getattr(self._target, method)
        if not callable(act):
            return act

        def through(*args: Any, **named: Any) -> Any:
            return self._faulty.call(self._name, method, act, args, named)

        return through


def driver_error(call: Call) -> DriverError:
    """Return an error such as any driver may raise."""
    return DriverError(f"injected fault at {call.port}.{call.method}", subject=call.port, hint="vmhost host doctor")


def sweep(calls: int, places: tuple[Place, ...] = ("before", "after")) -> Iterator[tuple[int, Place]]:
    """Yield every place at which an operation of so many calls can go wrong."""
    for number in range(calls):
        for place in places:
            yield number, place


def _ports(ports: Ports) -> Iterator[tuple[str, Any]]:
    for item in fields(ports):
        if item.name != "layout":
            yield item.name, getattr(ports, item.name)


def _shown(value: Any) -> str:
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    text = repr(value) if isinstance(value, (str, int, float, bool, type(None))) else f"<{type(value).__name__}>"
    return text if len(text) <= 48 else f"{text[:44]}...{text[0]}"
