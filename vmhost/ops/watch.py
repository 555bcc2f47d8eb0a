"""Watching a host: one picture after another, woken by libvirt's events, and again after libvirt was away.

A picture costs one bulk call. The definitions are read again only when something happened, now and then all the same
(not every change has an event), and what did not change is not parsed again.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from threading import Condition
from typing import TYPE_CHECKING, Final, NamedTuple

from vmhost.model.domains import DomainState
from vmhost.model.errors import Unreachable, VmhostError
from vmhost.model.stats import IDLE, DomainStats, Load, load_between

if TYPE_CHECKING:
    from vmhost.model.observed import Observed, ObservedDomain
    from vmhost.model.plan import Difference
    from vmhost.ops.host import Host
    from vmhost.ports import DomainEvent

INTERVAL: Final = 2.0
SHARE: Final = 20
"""The pause between two pictures is at least this many times what a picture costs: 5 per cent of a CPU at most."""

WHOLE_EVERY: Final = 30.0
SAMPLES: Final = 32
COUNTERS: Final = 40_000
"""Counters that are kept at most: a host with thousands of guests has a shorter past."""

_EVENTS: Final = 500
_INACTIVE: Final = frozenset(state for state in DomainState if not state.active)
_RETRY: Final = (1.0, 2.0, 5.0)


class Sample(NamedTuple):
    """The counters of all domains at one moment, by UUID; ``at`` in seconds of a monotonic clock."""

    at: float
    stats: Mapping[str, DomainStats]

    def knows(self, uuid: str) -> bool:
        """Whether memory and disks of a domain are known."""
        found = self.stats.get(uuid)
        return found is not None and found.whole


class Happening(NamedTuple):
    """An event of a domain, as libvirt told it; ``at`` in seconds since the epoch."""

    at: float
    uuid: str
    name: str
    kind: str
    detail: str


@dataclass(frozen=True)
class Picture:
    """A host at one moment, whole and unchangeable.

    ``samples`` are the latest counters, the newest last, ``whole`` the latest for which everybody was asked for all.
    ``edited`` says of the guests, by UUID, that somebody changed past vmhost in what. ``running`` counts active
    domains, ``busy`` the CPUs that they keep busy, ``held`` the bytes of memory that they have. ``stale`` is why this
    is an old picture, or None. ``cost`` is how many seconds it took to take.
    """

    observed: Observed
    samples: tuple[Sample, ...] = ()
    whole: Sample | None = None
    happenings: tuple[Happening, ...] = ()
    edited: Mapping[str, tuple[Difference, ...]] = field(default_factory=dict)
    running: int = 0
    busy: float = 0.0
    held: int = 0
    interrupted: bool = False
    taken: float = 0.0
    cost: float = 0.0
    stale: VmhostError | None = None

    def stats(self, uuid: str) -> DomainStats | None:
        """Return the latest counters of a domain, or None; memory and disks as they were when they were known last."""
        found = self.samples[-1].stats.get(uuid) if self.samples else None
        if found is None or found.whole:
            return found
        known = self._known(uuid, len(self.samples))
        return found.with_dear_of(known.stats[uuid]) if known and found.state.active else found

    def resident(self) -> int | None:
        """Return how many bytes QEMU holds for all domains; None: it is not known of one of them."""
        latest = self.samples[-1].stats if self.samples else {}
        found = [stats for uuid in latest if (stats := self.stats(uuid)) is not None]
        return sum(stats.resident for stats in found) if all(stats.whole for stats in found) else None

    def load(self, uuid: str) -> Load:
        """Return what a domain does now; nothing as long as there is one sample only."""
        return self._load(uuid, len(self.samples) - 1)

    def loads(self, uuid: str) -> tuple[Load, ...]:
        """Return what a domain did between all samples that are kept, the newest last."""
        return tuple(self._load(uuid, number) for number in range(1, len(self.samples)))

    def _load(self, uuid: str, number: int) -> Load:
        """Return what a domain did before a sample; its disks on average between two moments at which they were known,
        so that neither rest nor a rush is seen where nobody looked.
        """
        if number < 1:
            return IDLE
        before, after = self.samples[number - 1], self.samples[number]
        old, new = before.stats.get(uuid), after.stats.get(uuid)
        if old is None or new is None:
            return IDLE
        load = load_between(old, new, after.at - before.at)
        if before.knows(uuid) and after.knows(uuid):
            return load
        first = self._known(uuid, number)
        last = next((sample for sample in self.samples[number:] if sample.knows(uuid)), None)
        if first is None or last is None:
            return load._replace(read=None, written=None)
        disks = load_between(first.stats[uuid], last.stats[uuid], last.at - first.at)
        return load._replace(read=disks.read, written=disks.written)

    def _known(self, uuid: str, number: int) -> Sample | None:
        """Return the latest sample before one that knows a domain's memory and disks."""
        found = next((sample for sample in reversed(self.samples[:number]) if sample.knows(uuid)), None)
        if found is None and self.whole and self.whole.knows(uuid) and self.whole.at < self.samples[number - 1].at:
            return self.whole
        return found


@dataclass(slots=True)
class _Wish:
    """What a watch was asked for since it last looked."""

    whole: bool = True
    soon: bool = True
    end: bool = False
    happenings: deque[Happening] = field(default_factory=lambda: deque(maxlen=_EVENTS))


class Watch:
    """Takes pictures of a host until it is stopped; :meth:`run` belongs into a thread of its own.

    :param interval: seconds between two pictures at least.
    """

    def __init__(self, host: Host, *, interval: float = INTERVAL) -> None:
        self._host = host
        self._interval = interval
        self.clock: Callable[[], float] = time.monotonic
        self._changed = Condition()
        self._wish = _Wish()
        self._picture: Picture | None = None
        self._whole_at = 0.0
        self._looked_at: frozenset[str] | None = None
        self._unsubscribe: Callable[[], None] | None = None
        self._judged: dict[str, tuple[ObservedDomain, tuple[Difference, ...]]] = {}

    def run(self, show: Callable[[Picture], None], fail: Callable[[VmhostError], None]) -> None:
        """Call ``show`` with every picture, ``fail`` with every error as long as there is none, until :meth:`stop`."""
        failures = 0
        try:
            while not self._wish.end:
                picture: Picture | None
                try:
                    picture = self.look()
                except VmhostError as error:
                    picture = self._old_picture(error)
                    pause = _RETRY[min(failures, len(_RETRY) - 1)]
                    failures += 1
                    if picture is None:
                        fail(error)
                else:
                    failures = 0
                    pause = max(self._interval, SHARE * picture.cost)
                if picture is not None:
                    show(picture)
                self._wait(pause, patient=failures > 0)
        finally:
            self._end_listening()

    def look(self) -> Picture:
        """Take a picture now.

        :raises Unreachable: libvirt does not answer; :raises PermissionDenied: it does not let us read.
        """
        began = time.perf_counter()
        self._listen()
        with self._changed:
            whole, self._wish.whole = self._wish.whole, False
            happenings = tuple(self._wish.happenings)
        try:
            picture = self._look(whole=whole)
        except VmhostError:
            self._wish.whole = True
            self._end_listening()
            raise
        self._picture = replace(
            picture, happenings=happenings, taken=time.time(), cost=time.perf_counter() - began, stale=None
        )
        return self._picture

    def wake(self, *, whole: bool = True) -> None:
        """Let the next picture be taken at once; ``whole`` reads all definitions again. From any thread."""
        with self._changed:
            self._wish.soon = True
            self._wish.whole |= whole
            self._changed.notify_all()

    def show_only(self, uuids: frozenset[str] | None, *, soon: bool = False) -> None:
        """Say of which guests somebody sees memory and disks, None: of all; from any thread.

        Between two whole pictures only they are asked for these, which cost QEMU an answer each.

        :param soon: take the next picture at once if the latest does not know these of one that was not seen before.
        """
        before, self._looked_at = self._looked_at, uuids
        if soon and before is not None and self._picture is not None:
            latest = self._picture.samples[-1]
            new = (latest.stats.keys() if uuids is None else uuids & latest.stats.keys()) - before
            if not all(latest.knows(uuid) for uuid in new):
                self.wake(whole=False)

    def stop(self) -> None:
        """End :meth:`run` soon; from any thread."""
        with self._changed:
            self._wish.end = True
            self._changed.notify_all()

    def _look(self, *, whole: bool) -> Picture:
        from vmhost.engine.observe import observe  # here: a face paints its first screen without it

        before, at = self._picture, self.clock()
        edited: Mapping[str, tuple[Difference, ...]]
        if before is None or at - self._whole_at >= WHOLE_EVERY:
            whole, self._whole_at = True, at
        dear = self._looked_at
        if dear is not None and (whole or before is None or _all_seen(before.samples[-1], dear)):
            dear = None  # one call for all costs less than two
        sample = Sample(at, {item.uuid: item for item in self._host.hypervisor.stats(dear)})
        if before is None or whole or not _same_states(before.observed, sample):
            observed = observe(self._host.ports, before.observed if before else None)
            # Not for the very first picture: it would wait for the library that reads specs.
            interrupted, edited = self._host.interrupted(), self._judge(observed) if before else {}
            self._wish.whole |= before is None
        else:
            observed, interrupted, edited = before.observed, before.interrupted, before.edited
        kept = max(4, min(SAMPLES, COUNTERS // (len(sample.stats) or 1)))
        samples = (*(before.samples if before else ()), sample)[-kept:]
        active = [stats for stats in sample.stats.values() if stats.state not in _INACTIVE]
        return Picture(
            observed,
            samples,
            sample if dear is None or before is None else before.whole,
            edited=edited,
            running=len(active),
            busy=_busy(samples),
            held=sum(stats.memory for stats in active) if dear is None or before is None else before.held,
            interrupted=interrupted,
        )

    def _judge(self, observed: Observed) -> dict[str, tuple[Difference, ...]]:
        """Find out who was changed past vmhost; a guest that is as it was is not judged again."""
        from vmhost.plan.outside import edited, volumes_by_path

        volumes, disks = volumes_by_path(observed), str(self._host.ports.layout.disks)
        before, self._judged = self._judged, {}
        for domain in observed.domains:
            known = before.get(domain.uuid)
            found = known[1] if known and known[0] is domain else edited(domain, observed, volumes, disks=disks)
            self._judged[domain.uuid] = (domain, found)
        return {uuid: found for uuid, (_, found) in self._judged.items() if found}

    def _old_picture(self, error: VmhostError) -> Picture | None:
        return replace(self._picture, stale=error) if self._picture else None

    def _listen(self) -> None:
        if self._unsubscribe is None:
            self._unsubscribe = self._host.hypervisor.subscribe(self._hear)

    def _end_listening(self) -> None:
        if self._unsubscribe is not None:
            with suppress(Unreachable):
                self._unsubscribe()
            self._unsubscribe = None

    def _hear(self, event: DomainEvent) -> None:
        with self._changed:
            self._wish.happenings.append(Happening(time.time(), event.uuid, event.name, event.kind, event.detail))
            self._wish.soon = self._wish.whole = True
            self._changed.notify_all()

    def _wait(self, seconds: float, *, patient: bool) -> None:
        """Wait for the next picture's time, or until something happens; ``patient``: libvirt is away, so only time
        counts.
        """
        with self._changed:
            if patient:
                self._changed.wait_for(lambda: self._wish.end, seconds)
            else:
                self._changed.wait_for(lambda: self._wish.end or self._wish.soon, seconds)
                self._wish.soon = False
        if not patient:
            time.sleep(0.05)  # several events come together: one picture for all of them


def _all_seen(sample: Sample, seen: frozenset[str]) -> bool:
    return all(uuid in seen for uuid, stats in sample.stats.items() if stats.state not in _INACTIVE)


def _busy(samples: tuple[Sample, ...]) -> float:
    """Return how many CPUs all domains together kept busy between the last two samples."""
    if len(samples) < 2:
        return 0.0
    old, new = samples[-2], samples[-1]
    spent = 0
    for uuid, stats in new.stats.items():
        before = old.stats.get(uuid)
        if before is not None and stats.cpu_time > before.cpu_time:
            spent += stats.cpu_time - before.cpu_time
    return spent / max(new.at - old.at, 1e-6) / 1e9


def _same_states(observed: Observed, sample: Sample) -> bool:
    if len(observed.domains) != len(sample.stats):
        return False
    stats = sample.stats
    try:
        return all(stats[domain.raw.uuid].state is domain.raw.state for domain in observed.domains)
    except KeyError:
        return False
