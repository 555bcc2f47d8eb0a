"""``vmhost watch``: ports of guests stay in their VLANs, whoever changes them; woken by the kernel and by libvirt."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import Final, Literal

from vmhost.engine.context import Context
from vmhost.engine.execute import execute
from vmhost.engine.observe import observe_domains, observe_host
from vmhost.model.errors import Conflict, DriverError, VmhostError
from vmhost.model.events import Event, Notice
from vmhost.model.netsteps import SetPortVlans
from vmhost.model.observed import Observed
from vmhost.model.plan import Planned
from vmhost.ops.permission import check_may_change
from vmhost.plan.keep import keep_ports
from vmhost.ports import NOT_AT_ALL, DomainEvent, Ports

Sign = Literal["links", "domains", "end"]
Listener = Callable[[Event], None]

AGAIN: Final = 1.0
"""Seconds until a guest that another vmhost is at work on, or a libvirt that does not answer, is looked at again."""

_MATTERS: Final = frozenset({"started", "stopped", "crashed", "defined", "undefined", "resumed"})


class PortKeeper:
    """Keeps the ports of running guests as their metadata says; :meth:`run` ends after :meth:`stop`.

    Between changes it does nothing at all. A repair takes the guest's lock, so it never meets another vmhost in the
    middle of its steps; it needs no journal, since it sets what the metadata says and is done anew by the next look.
    """

    def __init__(self, ports: Ports, on_event: Listener) -> None:
        self._ports = ports
        self._tell = on_event
        self._signs: SimpleQueue[Sign] = SimpleQueue()
        self._told: frozenset[tuple[str, str]] = frozenset()
        self._observed: Observed | None = None
        self._later = False

    def stop(self) -> None:
        """Let :meth:`run` end; from any thread, and from a signal's handler."""
        self._signs.put("end")

    def run(self) -> int:
        """Watch until :meth:`stop`; return how many ports were put back.

        :raises Unreachable: libvirt does not answer at first; later it is waited for.
        :raises PermissionDenied: this takes the rights to change the host.
        """
        check_may_change(self._ports.hypervisor)
        with ExitStack() as ends:
            ends.callback(self._ports.links.watch(lambda: self._signs.put("links")))
            ends.callback(self._ports.hypervisor.subscribe(self._on_domain))
            return self._watch()

    def _on_domain(self, event: DomainEvent) -> None:
        if event.kind in _MATTERS:
            self._signs.put("domains")

    def _watch(self) -> int:
        signs, repaired = {"domains"}, 0
        while "end" not in signs:
            try:
                repaired += self._look(fresh="domains" in signs)
            except DriverError as error:
                self._report((("libvirt", f"{error}; looking again"),))
                self._observed, self._later = None, True
            signs = self._next()
        return repaired

    def _next(self) -> set[str]:
        """Wait for signs and return all that are there; what comes meanwhile is the next look's."""
        signs: set[str] = set()
        try:
            signs.add(self._signs.get(timeout=AGAIN if self._later else None))
            while True:
                signs.add(self._signs.get_nowait())
        except Empty:
            return signs or {"links"}

    def _look(self, *, fresh: bool) -> int:
        """Look at the ports, and put back what is not as it should be; return how many."""
        self._later = False
        observed = self._see(fresh=fresh)
        steps, notes = keep_ports(observed)
        if steps and not fresh:
            # The wish may have changed: an apply writes it down before it changes the port.
            steps, notes = keep_ports(self._see(fresh=True))
        failed: list[tuple[str, str]] = []
        done = sum(self._mend(step, failed) for step in steps)
        self._report((*((note.subject, note.text) for note in notes), *failed))
        return done

    def _see(self, *, fresh: bool) -> Observed:
        before, hypervisor = self._observed, self._ports.hypervisor
        links = self._ports.links.links()
        if before is None:
            before = Observed(host=observe_host(hypervisor), domains=observe_domains(hypervisor), links=links)
        elif fresh:
            before = replace(before, domains=observe_domains(hypervisor, before))
        self._observed = replace(before, links=links, namespaces=self._ports.links.namespaces())
        return self._observed

    def _mend(self, item: Planned, failed: list[tuple[str, str]]) -> int:
        """Put one port back, under the lock of its guest, if it still has to be."""
        try:
            with self._lock(item):
                again, _ = keep_ports(self._see(fresh=True))
                if item.do not in [step.do for step in again]:
                    return 0
                execute(item.do, Context(self._ports))
        except Conflict as error:
            self._later = True
            if isinstance(item.do, SetPortVlans) and error.subject == item.do.port:
                failed.append((item.subject, f"not put back: {error.message}"))
            return 0
        except VmhostError as error:
            failed.append((item.subject, f"not put back: {error.message}"))
            return 0
        self._tell(Notice(item.subject, f"put back: {item.why.removeprefix(f'{item.subject}: ')}"))
        return 1

    def _lock(self, item: Planned) -> AbstractContextManager[None]:
        """Return the lock of what a step is about: the host's for its own links, else the guest's."""
        assert self._observed is not None
        locks = self._ports.locks
        if not isinstance(item.do, SetPortVlans):
            return locks.host(NOT_AT_ALL)
        return locks.guests([d.uuid for d in self._observed.domains if d.name == item.subject], NOT_AT_ALL)

    def _report(self, notes: tuple[tuple[str, str], ...]) -> None:
        """Tell what is new; what was told and still holds is not told again."""
        for subject, text in notes:
            if (subject, text) not in self._told:
                self._tell(Notice(subject, text))
        self._told = frozenset(notes)
