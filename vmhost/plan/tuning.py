"""Where the guests of a plan lie, and how each is held: wishes and ledger in, tunings out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from vmhost.model.observed import Observed, ObservedDomain
from vmhost.model.plan import Change, Note, Planned
from vmhost.model.spec import CpuSpec, GuestSpec, HostSpec
from vmhost.model.spec.resources import exclusive_vcpus
from vmhost.model.steps import CheckTuning, DefineDomain, SetTuning
from vmhost.model.topology import Topology
from vmhost.model.tuning import FREE, PERIOD, Tuning
from vmhost.model.units import format_cpuset, parse_cpuset
from vmhost.plan.applied import applied_spec
from vmhost.plan.books import Seat, Wish
from vmhost.plan.ledger import Claim, Ledger, claim_of_spec, ledger_of
from vmhost.plan.placement import place, wish_of
from vmhost.plan.request import NoCapacity, Refusal
from vmhost.plan.running import NOTHING, Running, live_facts, running_of
from vmhost.plan.shape import shape_of
from vmhost.render.parse.tuning import iothread_ids, parse_tuning
from vmhost.render.tuning import with_tuning

_AT_ONCE: Final = ("emulator", "shares", "limit", "vcpu_limit", "emulator_limit", "hard_limit", "swap_limit")
"""What of a tuning changes while a guest runs, beside its pins."""


@dataclass(frozen=True, slots=True)
class Placing:
    """The guests of one plan, placed. ``after`` is the ledger as it will be; ``order`` is that in which they move."""

    tunings: dict[str, Tuning]
    refusals: dict[str, Refusal]
    before: Ledger
    after: Ledger
    order: tuple[str, ...]

    def tuning(self, name: str) -> Tuning:
        """Return how a guest is to be held."""
        return self.tunings.get(name, FREE)


def place_guests(
    specs: Sequence[GuestSpec],
    observed: Observed,
    host: HostSpec | None,
    *,
    anew: frozenset[str] = frozenset(),
    restarted: frozenset[str] = frozenset(),
    gone: frozenset[str] = frozenset(),
) -> Placing:
    """Return where these guests lie, beside everything that is on the host.

    :param anew: guests that are made anew, and keep nothing of what they have.
    :param restarted: guests that the plan restarts; every other one has at least what it runs with.
    :param gone: guests that the plan removes at its end: until then they have what they have.
    """
    before = ledger_of(observed, host)
    kvm = observed.host.kvm
    ended = anew | restarted
    now = {spec.name: NOTHING if spec.name in ended else running_of(observed.domain(spec.name)) for spec in specs}
    wishes = [_wish(spec, before, observed, now[spec.name], kvm=kvm, anew=spec.name in anew) for spec in specs]
    placed = place(before, wishes)
    claims = {name: claim for name, claim in before.claims.items() if name not in gone}
    for spec in specs:
        if seat := placed.seats.get(spec.name):
            had = before.claims.get(spec.name)
            claims[spec.name] = _claim(spec, seat, had, before.topology, now[spec.name], kvm=kvm)
    after = replace(before, claims=claims)
    refusals = {name: Refusal(name, text, "vmhost host capacity", NoCapacity) for name, text in placed.refusals.items()}
    tunings = {
        spec.name: _with_threads(
            tuning_of(spec, placed.seats[spec.name], after, now[spec.name]),
            spec,
            None if spec.name in anew else observed.domain(spec.name),
        )
        for spec in specs
        if spec.name in placed.seats
    }
    return Placing(tunings, refusals, before, after, placed.order)


def _wish(spec: GuestSpec, ledger: Ledger, observed: Observed, now: Running, *, kvm: bool, anew: bool) -> Wish:
    had = None if anew else ledger.claims.get(spec.name)
    had = had if had and had.ours else None
    domain = observed.domain(spec.name)
    found = parse_tuning(domain.raw.xml) if domain and had else FREE
    chosen = parse_cpuset(found.emulator) if found.emulator else frozenset()
    wish = wish_of(spec, kvm=kvm, had=had, extra=min(chosen) if len(chosen) == 1 else -1, now=now)
    standing = had is not None and had.promised and had.ordinary >= wish.ordinary
    return replace(wish, standing=standing, keep_cells=_strictly(found))


def _strictly(tuning: Tuning) -> frozenset[int]:
    """Return the cells that memory must come from, empty for any."""
    return parse_cpuset(tuning.cells) if tuning.cells and tuning.cell_mode == "strict" else frozenset()


def _claim(spec: GuestSpec, seat: Seat, had: Claim | None, topology: Topology, now: Running, *, kvm: bool) -> Claim:
    pins = tuple((vcpu, str(cpu)) for vcpu, cpu in seat.pins)
    emulator = str(seat.extra) if seat.extra >= 0 else ""
    cells, mode = format_cpuset(seat.cells), _mode(spec, seat)
    tuning = Tuning(pins=pins, emulator=emulator, cells=cells, cell_mode=mode)
    active = bool(had and had.active)
    return claim_of_spec(spec, [tuning], topology, kvm=kvm, active=active, autostart=spec.autostart, now=now)


def _mode(spec: GuestSpec, seat: Seat) -> str:
    return "" if not seat.cells else spec.memory.numa or "strict"


def tuning_of(spec: GuestSpec, seat: Seat, ledger: Ledger, now: Running = NOTHING) -> Tuning:
    """Return how a guest is held in its place, beside everything else that the ledger knows.

    :param now: what it runs with: vCPUs that only its next boot takes away are held until then (see :func:`defined`).
    """
    cpus, memory = spec.cpus, spec.memory
    own = dict(seat.pins)
    floor = _floor(ledger, seat)
    floating = range(max(_held_vcpus(cpus), now.vcpus))
    pins = {vcpu: floor for vcpu in floating if vcpu not in own and floor}
    pins |= {vcpu: str(cpu) for vcpu, cpu in own.items()}
    emulator, iothreads = _emulator(seat, ledger, floor), cpus.iothreads or 0
    return Tuning(
        pins=tuple(sorted(pins.items())),
        emulator=emulator,
        shares=cpus.shares or 0,
        limit=quota(cpus.limit),
        vcpu_limit=quota(cpus.vcpu_limit),
        emulator_limit=quota(cpus.emulator_limit),
        hard_limit=memory.limit or 0,
        swap_limit=memory.swap_limit or 0,
        page=memory.page,
        locked=bool(memory.locked),
        cells=format_cpuset(seat.cells),
        cell_mode=_mode(spec, seat),
        iothreads=iothreads,
        shape=shape_of(spec, seat, ledger.topology),
        io=_io(range(1, iothreads + 1), emulator),
    )


def _io(threads: Iterable[int], emulator: str) -> tuple[tuple[int, str], ...]:
    """Return the pins of I/O threads: always where the rest of QEMU is."""
    return tuple((thread, emulator) for thread in threads if emulator)


def _with_threads(tuning: Tuning, spec: GuestSpec, domain: ObservedDomain | None) -> Tuning:
    """Return a tuning with the I/O threads that a definition has, if they are as many as wanted or nobody's wish.

    Those that somebody gave a guest by hand stay, and libvirt's ids need not be 1, 2, 3: only where they run is ours.
    """
    applied = applied_spec(domain) if domain else None
    if domain is None or applied is None:
        return tuning
    found = iothread_ids(domain.raw.xml)
    ours = spec.cpus.iothreads is not None or applied.cpus.iothreads is not None
    if ours and len(found) != tuning.iothreads:
        return tuning
    return replace(tuning, iothreads=len(found), io=_io(found, tuning.emulator))


def _held_vcpus(cpus: CpuSpec) -> int:
    """Return how many vCPUs a definition holds: those that may be plugged too, unless they want pCPUs of their own."""
    return cpus.count if exclusive_vcpus(cpus) else cpus.max or cpus.count


def defined(tuning: Tuning, cpus: CpuSpec) -> Tuning:
    """Return what of a tuning the definition says: nothing of vCPUs that run on until the next boot only."""
    most = _held_vcpus(cpus)
    return replace(tuning, pins=tuple((vcpu, text) for vcpu, text in tuning.pins if vcpu < most))


def quota(cpus: float | None) -> int:
    """Return a part of a pCPU as microseconds in our period, 0 for no limit."""
    return round((cpus or 0) * PERIOD)


def _floor(ledger: Ledger, seat: Seat) -> str:
    """Return the pCPUs over which threads of this guest float, empty when that is where they would float anyway."""
    pool, everywhere = ledger.pool, ledger.topology.online - ledger.topology.isolated
    if seat.cells:
        pool = pool & ledger.topology.in_cells(seat.cells) or pool
    return "" if pool == everywhere else format_cpuset(pool)


def _emulator(seat: Seat, ledger: Ledger, floor: str) -> str:
    if seat.extra >= 0:
        return str(seat.extra)
    if not seat.pins:
        return floor
    reserve = ledger.reserve_cpus & ledger.topology.online
    return format_cpuset(reserve) or floor or format_cpuset(cpu for _, cpu in seat.pins)


def normal(tuning: Tuning, online: frozenset[int]) -> Tuning:
    """Return a tuning without pins that hold nothing, since they name every pCPU that is online."""
    pins = tuple((vcpu, text) for vcpu, text in tuning.pins if not parse_cpuset(text) >= online)
    emulator = "" if tuning.emulator and parse_cpuset(tuning.emulator) >= online else tuning.emulator
    io = tuple((thread, text) for thread, text in tuning.io if not parse_cpuset(text) >= online)
    return replace(tuning, pins=pins, emulator=emulator, io=io)


def live_tuning(domain: ObservedDomain) -> Tuning:
    """Return how a running guest is held by what runs, the default for one that does not run.

    Pins of vCPUs that it does not have now, which libvirt keeps for the day that they are plugged, are left out.
    """
    if not domain.raw.live_xml:
        return FREE
    found = parse_tuning(domain.raw.live_xml)
    count = live_facts(domain.raw.live_xml).vcpus if found.pins else 0
    return replace(found, pins=tuple((vcpu, text) for vcpu, text in found.pins if vcpu < count))


def on_live(tuning: Tuning, domain: ObservedDomain, vcpus: int = 0) -> Tuning:
    """Return what of a tuning can be so while the guest runs: pins of the threads it has; pages and locks stay."""
    now, live = live_tuning(domain), domain.raw.live_xml
    count = vcpus or live_facts(live).vcpus
    return replace(
        now,
        pins=tuple((vcpu, text) for vcpu, text in tuning.pins if vcpu < count),
        io=_io(iothread_ids(live), tuning.emulator),
        **{name: getattr(tuning, name) for name in _AT_ONCE},
    )


def retune_steps(
    domain: ObservedDomain, tuning: Tuning, why: str, observed: Observed, *, vcpus: int = 0
) -> Iterator[Planned]:
    """Yield the steps that hold a running guest so at once, and look whether the kernel does; nothing if it does.

    :param vcpus: how many it will have by then; 0: as many as now.
    """
    online = observed.topology.online
    new, old = on_live(tuning, domain, vcpus), live_tuning(domain)
    if normal(new, online) == normal(old, online):
        return
    uuid, name = domain.uuid, domain.name
    yield Planned(SetTuning(uuid, name, new), SetTuning(uuid, name, old), Change.LIVE, name, f"{name}: {why}")
    if checkable(observed):
        yield Planned(CheckTuning(uuid, name, new), None, Change.LIVE, name, f"{name}: ask the kernel how it is held")


def check_start(uuid: str, name: str, tuning: Tuning, observed: Observed) -> Iterator[Planned]:
    """Yield the step that looks, after a start, whether the kernel holds a guest as it should."""
    if tuning != FREE and checkable(observed):
        yield Planned(
            CheckTuning(uuid, name, tuning), None, Change.LIVE, name, f"{name}: ask the kernel how it is held"
        )


def checkable(observed: Observed) -> bool:
    """Whether the guests of this hypervisor are processes of this machine."""
    return observed.host.local and observed.host.driver.lower() != "test"


def aside(placing: Placing, observed: Observed, *, but: frozenset[str]) -> Iterator[Planned]:
    """Yield the steps that move guests of vmhost out of the way of those that get pCPUs of their own, or back.

    :param but: guests that the plan looks after itself, and those that it removes.
    """
    for domain in observed.domains:
        spec = applied_spec(domain)
        claim = placing.after.claims.get(domain.name)
        if spec is None or claim is None or domain.name in but:
            continue
        wanted = beside(domain, spec, claim, placing.after)
        have, then = parse_tuning(domain.raw.xml), defined(wanted, spec.cpus)
        online = observed.topology.online
        if normal(then, online) == normal(have, online) and not domain.active:
            continue
        why = _float_words(wanted)
        if normal(then, online) != normal(have, online):
            old = domain.raw.xml
            do = DefineDomain(domain.uuid, domain.name, with_tuning(old, then))
            undo = DefineDomain(domain.uuid, domain.name, old)
            yield Planned(do, undo, Change.LIVE, domain.name, f"{domain.name}: {why}, from its next boot on too")
        if domain.active:
            yield from retune_steps(domain, wanted, f"{why} now", observed)


def make_room_again(going: Sequence[ObservedDomain], observed: Observed, host: HostSpec | None) -> tuple[Planned, ...]:
    """Return the steps that let guests float over what those that go had for themselves."""
    before = ledger_of(observed, host)
    names = frozenset(domain.name for domain in going)
    if not any(before.claims[name].exclusive for name in names):
        return ()
    placing = Placing({}, {}, before, before.without(names), ())
    return tuple(aside(placing, observed, but=names))


def beside(domain: ObservedDomain, spec: GuestSpec, claim: Claim, ledger: Ledger) -> Tuning:
    """Return how a guest that is not itself placed is to be held beside the others: only where it floats changes."""
    have = parse_tuning(domain.raw.xml)
    extra = -1
    if spec.cpus.emulator == "own" and have.emulator.isdecimal():
        extra = int(have.emulator)
    seat = Seat(claim.seat, extra, claim.exclusive, tuple(sorted(_strictly(have))))
    wanted = tuning_of(spec, seat, ledger, running_of(domain))
    io = _io(iothread_ids(domain.raw.xml), wanted.emulator)
    return replace(have, pins=wanted.pins, emulator=wanted.emulator, io=io)


def _float_words(tuning: Tuning) -> str:
    places = {text for _, text in tuning.pins if not text.isdecimal()} | {tuning.emulator}
    place = next((text for text in sorted(places) if text), "")
    return f"share pCPUs {place}" if place else "share all pCPUs"


def loose_notes(specs: Sequence[GuestSpec], placing: Placing) -> Iterator[Note]:
    """Yield what "of its own" does not promise while foreign guests are not pinned."""
    names = placing.before.loose
    for spec in specs:
        had = placing.before.claims.get(spec.name)
        if names and exclusive_vcpus(spec.cpus) and not (had and had.exclusive):
            text = f"foreign guests are not pinned and may run on its pCPUs too: {', '.join(names)}"
            yield Note(spec.name, text)


def in_order(specs: Sequence[GuestSpec], placing: Placing) -> list[GuestSpec]:
    """Return guests so that each moves only to where nobody is any more: those that make room first, new ones last.

    Where nobody gives up anything the order is the site's own.
    """
    claims = (*placing.after.claims.values(), *placing.before.claims.values())
    shrinks = any(_gives_memory(spec.name, placing) for spec in specs)
    if not shrinks and not any(one.exclusive for one in claims if one.ours):
        return list(specs)
    return sorted(specs, key=lambda spec: _turn(spec.name, placing))


def _turn(name: str, placing: Placing) -> tuple[int, int]:
    old, new = placing.before.claims.get(name), placing.after.claims.get(name)
    if new is None:
        return 0, 0
    if old is not None and (new.exclusive <= old.exclusive):
        return (-1 if _gives_memory(name, placing) else 0), 0
    return 1, placing.order.index(name) if name in placing.order else 0


def _gives_memory(name: str, placing: Placing) -> bool:
    old, new = placing.before.claims.get(name), placing.after.claims.get(name)
    return old is not None and new is not None and new.ordinary < old.ordinary
