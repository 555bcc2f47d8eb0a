"""Subscriptions to events, which outlive the daemon."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Event, Lock, Thread
from typing import Final

from vmhost.drivers.libvirt.connection import Connection
from vmhost.drivers.libvirt.stream import MISSED, Stream
from vmhost.model.errors import DriverError
from vmhost.ports import DomainEvent

Listener = Callable[[DomainEvent], None]

_LOOK_AGAIN: Final = 0.1
_SETTLING: Final = 30.0
_LONGEST_PAUSE: Final = 1.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Broken:
    """The connection of a stream broke."""

    stream: Stream


class _Closed:
    """The hypervisor was closed."""


class Subscriptions:
    """The listeners of one hypervisor.

    libvirt's thread only queues; another one tells the listeners, so they may take their time and call libvirt.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = Lock()
        self._listeners: dict[object, Listener] = {}
        self._queue: SimpleQueue[DomainEvent | _Broken | _Closed] = SimpleQueue()
        self._known: dict[str, tuple[str, bool]] = {}
        self._settling_until = 0.0
        self._agents_due = False
        self._closing = Event()
        self._stream: Stream | None = None

    def add(self, listener: Listener) -> Callable[[], None]:
        """Tell ``listener`` every event from now on; return the function that ends it."""
        key = object()
        with self._lock:
            if self._stream is None:
                self._stream = self._open()
                Thread(target=self._dispatch, name="vmhost-events", daemon=True).start()
            self._listeners[key] = listener

        def remove() -> None:
            with self._lock:
                self._listeners.pop(key, None)

        return remove

    def close(self) -> None:
        """End all subscriptions."""
        self._closing.set()
        with self._lock:
            self._listeners.clear()
            stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()
            self._queue.put(_Closed())

    def _open(self) -> Stream:
        stream = Stream(self._connection, self._queue.put, lambda broken: self._queue.put(_Broken(broken)))
        try:
            # Asked in this order: what settles in between is in the list already.
            self._settling_until = 0.0 if stream.settled() else time.monotonic() + _SETTLING
            self._known = stream.domains()
        except DriverError:
            stream.close()
            raise
        return stream

    def _dispatch(self) -> None:
        while not isinstance(item := self._next(), _Closed):
            if isinstance(item, DomainEvent):
                self._remember(item)
                self._tell(item)
            elif item is None:
                self._look_again()
            elif item.stream is self._stream:
                self._reopen()

    def _next(self) -> DomainEvent | _Broken | _Closed | None:
        """The next item; None when it is time to look again."""
        with suppress(Empty):
            return self._queue.get(timeout=_LOOK_AGAIN if self._settling_until else None)
        return None

    def _look_again(self) -> None:
        """See what has become of guests that a starting daemon had yet to reach: for a dead one it gives no event."""
        stream = self._stream
        if stream is None:
            return
        try:
            if stream.settled() or time.monotonic() > self._settling_until:
                self._settling_until = 0.0
            now = stream.domains()
        except DriverError:
            return  # it broke again, and that is in the queue
        before, self._known = self._known, now
        self._tell(*_differences(before, now))
        self._tell_agents(stream)

    def _reopen(self) -> None:
        """Open the events again as soon as libvirt answers, and tell what was missed."""
        before, pause = self._known, _LOOK_AGAIN
        while not self._closing.wait(pause):
            try:
                stream = self._open()
            except DriverError:
                pause = min(2 * pause, _LONGEST_PAUSE)
                continue
            with self._lock:
                if self._closing.is_set():
                    stream.close()
                    return
                self._stream = stream
            self._tell(*_differences(before, self._known))
            self._agents_due = True
            self._tell_agents(stream)
            return

    def _tell_agents(self, stream: Stream) -> None:
        """After a restart tell which agents are connected; before the daemon has reached a guest, it only thinks so."""
        if self._agents_due and not self._settling_until:
            with suppress(DriverError):  # it broke again, and that is in the queue
                self._tell(*stream.agents())
            self._agents_due = False

    def _tell(self, *events: DomainEvent) -> None:
        with self._lock:
            listeners = tuple(self._listeners.values())
        for event in events:
            for listener in listeners:
                try:
                    listener(event)
                except Exception:  # noqa: BLE001 - logged; one listener's fault must not silence the others
                    _log.exception("a listener failed at %s of %s", event.kind, event.name)

    def _remember(self, event: DomainEvent) -> None:
        if event.kind in ("started", "resumed", "suspended", "agent-connected"):
            self._known[event.uuid] = (event.name, True)
        elif event.kind in ("stopped", "crashed"):
            self._known[event.uuid] = (event.name, False)
        elif event.kind == "defined":
            self._known.setdefault(event.uuid, (event.name, False))
        elif event.kind == "undefined":
            self._known.pop(event.uuid, None)


def _differences(before: dict[str, tuple[str, bool]], now: dict[str, tuple[str, bool]]) -> tuple[DomainEvent, ...]:
    """The events that lead from one state of all domains to another."""
    found: list[DomainEvent] = []
    for uuid, (name, active) in now.items():
        if uuid not in before:
            found.append(DomainEvent(uuid, name, "defined", MISSED))
        if active != before.get(uuid, ("", False))[1]:
            found.append(DomainEvent(uuid, name, "started" if active else "stopped", MISSED))
    for uuid, (name, active) in before.items():
        if uuid not in now:
            if active:
                found.append(DomainEvent(uuid, name, "stopped", MISSED))
            found.append(DomainEvent(uuid, name, "undefined", MISSED))
    return tuple(found)
