"""The fake host at work: one lock around everything, a clock that is turned by hand, and events."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue

from vmhost.model.observed import DomainState
from vmhost.ports import DomainEvent
from vmhost.testing import guests, hook
from vmhost.testing.netsteps import restore
from vmhost.testing.world import BEGINNING, Domain, World

Listener = Callable[[DomainEvent], None]
_log = logging.getLogger(__name__)


class Machine:
    """A world with its time and its listeners; every port of a fake host works on one of these.

    Time stands still until somebody waits: then it jumps to what is waited for. Who waits for events in real time
    (after ``subscribe``) would see nothing happen, so while somebody listens, time also flows.

    :param speed: seconds of the world in a real second while somebody listens to events.
    :param keep: called with the world after every call that may have changed it.
    """

    def __init__(self, world: World, *, speed: float = 60.0, keep: Callable[[World], None] | None = None) -> None:
        self.world = world
        self.events = Events()
        self.knocks: list[Callable[[], None]] = []
        self.alive: set[str] = set()
        self._lock = threading.RLock()
        self._speed = speed
        self._keep = keep
        self._looked = time.monotonic()

    @contextmanager
    def at_work(self, *, changing: bool = False) -> Iterator[World]:
        """Give the world to one call at a time, with everything done that was due.

        :param changing: the world is kept afterwards.
        """
        with self._lock:
            self._flow()
            self._settle()
            yield self.world
            if changing and self._keep is not None:
                self._keep(self.world)

    def monotonic(self) -> float:
        """Return the seconds since a moment before the world began."""
        return self.world.now - BEGINNING + 1000.0

    def advance(self, seconds: float) -> None:
        """Let time pass, and everything happen that falls into it, in order."""
        self.advance_to(self.world.now + max(0.0, seconds))

    def advance_to(self, moment: float) -> None:
        """Let time pass until a moment of the world."""
        with self._lock:
            while (due := self.next_moment()) is not None and due <= moment:
                self.world.now = max(self.world.now, due)
                self._settle()
            self.world.now = max(self.world.now, moment)

    def next_moment(self) -> float | None:
        """Return when something will happen by itself next, or None."""
        moments = [at for one in self.world.domains.values() for at in (one.up_at, one.done_at, one.down_at) if at]
        if self.world.guarded is not None and self.world.guarded.deadline:
            moments.append(self.world.guarded.deadline)
        return min(moments, default=None)

    def emit(self, domain: Domain, kind: str, detail: str = "") -> None:
        """Tell all listeners, from another thread, that something happened."""
        self.events.put(DomainEvent(domain.uuid, domain.name, kind, detail))

    def say(self, domain: Domain, line: str) -> None:
        """Let a guest write a line to its serial console; whoever watches it is told."""
        path = guests.console_of(domain)
        if path:
            self.world.consoles.setdefault(path, []).append(line)
            self.events.note(domain.uuid, f"console: {line}")

    def stop(self, domain: Domain, detail: str) -> None:
        """End a domain's run; a transient one is gone with it."""
        hook.at_end(self.world, domain)
        was_connected = domain.up and self.world.behaviour(domain.name).agent
        domain.state, domain.live_xml, domain.frozen = DomainState.SHUTOFF, "", 0
        domain.up, domain.up_at, domain.done_at, domain.down_at, domain.reached = False, 0.0, 0.0, 0.0, []
        if was_connected:
            self.emit(domain, "agent-disconnected")
        self.emit(domain, "stopped", detail)
        if not domain.persistent:
            del self.world.domains[domain.uuid]

    def _flow(self) -> None:
        looked, self._looked = self._looked, time.monotonic()
        if self.events.heard and self._speed:
            self.advance_to(self.world.now + (self._looked - looked) * self._speed)

    def _settle(self) -> None:
        now = self.world.now
        if self.world.guarded is not None and 0 < self.world.guarded.deadline <= now:
            restore(self.world)
        for domain in tuple(self.world.domains.values()):
            if domain.up_at and domain.up_at <= now:
                domain.up_at = 0.0
                guests.come_up(self, domain)
            if domain.done_at and domain.done_at <= now:
                domain.done_at = 0.0
                guests.finish(self, domain)
            if domain.down_at and domain.down_at <= now:
                self.emit(domain, "shutdown", "by the guest")
                self.stop(domain, "shutdown")


class Events:
    """Who listens. Listeners are called in order, by a thread that lives while there are any; watchers only collect."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: dict[object, Listener] = {}
        self._watchers: dict[object, tuple[str, list[str]]] = {}
        self._queue: SimpleQueue[DomainEvent | None] | None = None

    @property
    def heard(self) -> bool:
        """Whether anybody listens."""
        return bool(self._listeners)

    def put(self, event: DomainEvent) -> None:
        """Tell an event."""
        self.note(event.uuid, event.kind)
        with self._lock:
            if self._queue is not None:
                self._queue.put(event)

    def note(self, uuid: str, sign: str) -> None:
        """Give a sign to those who watch a domain."""
        with self._lock:
            for watched, signs in self._watchers.values():
                if watched == uuid:
                    signs.append(sign)

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Tell a listener everything from now on; return the function that ends it."""
        key = object()
        with self._lock:
            self._listeners[key] = listener
            if self._queue is None:
                self._queue = SimpleQueue()
                threading.Thread(target=self._dispatch, args=(self._queue,), name="fake-events", daemon=True).start()
        return lambda: self._forget(key)

    def watch(self, uuid: str) -> tuple[list[str], Callable[[], None]]:
        """Return a list that fills with the signs of one domain, and the function that ends it."""
        key, signs = object(), list[str]()
        with self._lock:
            self._watchers[key] = (uuid, signs)
        return signs, lambda: self._forget(key)

    def close(self) -> None:
        """End all subscriptions."""
        with self._lock:
            keys = (*self._listeners, *self._watchers)
        for key in keys:
            self._forget(key)

    def _forget(self, key: object) -> None:
        with self._lock:
            self._listeners.pop(key, None)
            self._watchers.pop(key, None)
            if not self._listeners and self._queue is not None:
                self._queue.put(None)
                self._queue = None

    def _dispatch(self, queue: SimpleQueue[DomainEvent | None]) -> None:
        while (event := queue.get()) is not None:
            with self._lock:
                listeners = tuple(self._listeners.values())
            for listener in listeners:
                try:
                    listener(event)
                except Exception:  # noqa: BLE001 - logged; one listener's fault must not silence the others
                    _log.exception("a listener failed at %s of %s", event.kind, event.name)
