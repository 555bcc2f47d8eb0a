"""Where guests are placed: never two on one pCPU that is somebody's own, and no refusal while there is a way."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.placer.hosts import GIB, any_way, is_right, ledger, spec, topology
from vmhost.model.spec import GuestSpec
from vmhost.model.tuning import Tuning
from vmhost.model.units import parse_cpuset
from vmhost.plan.books import Seat, Wish
from vmhost.plan.ledger import Claim, Ledger, claim_of_spec
from vmhost.plan.placement import Placed, place, wish_of
from vmhost.plan.running import NOTHING, Running
from vmhost.plan.tuning import Placing, in_order, tuning_of
from vmhost.testing.topologies import Shape

FULL = os.environ.get("VMHOST_TEST_FULL") == "1"
RUNS = settings(max_examples=3000 if FULL else 60, deadline=None)
pytestmark = pytest.mark.timeout(1200 if FULL else 60)

shapes = st.builds(
    Shape,
    cells=st.integers(1, 2),
    cores=st.integers(1, 4),
    threads=st.integers(1, 2),
    memory=st.just(GIB),
)


@st.composite
def small_hosts(draw: st.DrawFn) -> Ledger:
    """A host of up to eight cores, with CPUs that are offline, isolated or kept back."""
    shape = draw(shapes)
    cpus = st.sets(st.integers(0, shape.cpus - 1), max_size=2)
    offline = frozenset(draw(cpus)) if shape.cpus > 2 else frozenset[int]()
    isolated = frozenset(draw(cpus)) - offline
    made = replace(shape, offline=offline, isolated=isolated)
    return ledger(made, reserve_cpus=frozenset(draw(st.sets(st.integers(0, shape.cpus - 1), max_size=1))))


@st.composite
def wishes(draw: st.DrawFn) -> list[Wish]:
    found = []
    for number in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(("dedicated", "isolated", "require", "mixed", "shared")))
        count = draw(st.integers(1, 5))
        cpus: dict[str, object] = {"count": count, "policy": kind}
        if kind == "require":
            cpus |= {"policy": "dedicated", "threads": "require"}
        if kind == "mixed" and count > 1:
            cpus |= {"dedicated": f"0-{count - 2}"}
        if kind == "mixed" and count == 1:
            cpus |= {"policy": "shared"}
        if cpus["policy"] != "shared" and draw(st.booleans()):
            cpus |= {"emulator": "own"}
        found.append(wish_of(spec(f"g{number}", **cpus), kvm=True))
    return found


def check(host: Ledger, asked: list[Wish], placed: Placed, held: frozenset[int] = frozenset()) -> None:
    taken = held
    for name in placed.order:
        if name in placed.seats:
            wish = next(one for one in asked if one.name == name)
            assert is_right(wish, placed.seats[name], host, taken), (wish, placed.seats[name])
            taken |= placed.seats[name].exclusive


@RUNS
@given(host=small_hosts(), asked=wishes())
def test_on_a_small_host_it_refuses_only_what_nobody_could_place(host: Ledger, asked: list[Wish]) -> None:
    placed = place(host, asked)
    check(host, asked, placed)
    own = [wish for wish in asked if wish.own]
    sharing = sum(wish.shared for wish in asked)
    possible = any_way(own, host, sharing=sharing)
    memory = sum(wish.memory for wish in asked) <= host.budget
    if memory:
        assert (not placed.refusals) == (possible and bool(not sharing or host.pool)), (asked, placed)
    assert place(host, list(reversed(asked))).seats == placed.seats, "the order of the site does not matter"


events = st.lists(
    st.tuples(
        st.sampled_from(("create", "resize", "boot", "delete", "foreign")),
        st.integers(0, 5),
        st.sampled_from(("shared", "dedicated", "isolated", "require", "mixed")),
        st.integers(2, 6),
        st.integers(64, 700),
    ),
    min_size=1,
    max_size=12,
)
hosts = st.builds(
    Shape,
    cells=st.integers(1, 4),
    cores=st.integers(1, 8),
    threads=st.integers(1, 2),
    caches=st.sampled_from((0, 2, 4)),
    memory=st.just(GIB),
)


@RUNS
@given(shape=hosts, happened=events, reserve=st.integers(0, 1))
def test_no_pcpu_is_ever_in_two_hands_and_memory_never_promised_twice(
    shape: Shape, happened: list[tuple[str, int, str, int, int]], reserve: int
) -> None:
    host = ledger(shape, reserve_memory=reserve * 256 << 20, reserve_cpus=frozenset(range(reserve)))
    defined_: dict[str, GuestSpec] = {}
    runs: dict[str, Running] = {}
    for what, number, kind, count, memory in happened:
        name = f"g{number}"
        if what == "delete":
            host = host.without([name])
            runs.pop(name, None)
            continue
        if what == "boot" and name in runs:
            runs[name] = _all_of(defined_[name])
            host = _claimed(host, defined_[name], host.claims[name].seat, NOTHING)
            _agrees(host)
            _runs_apart(host, defined_, runs)
            continue
        if what == "foreign":
            host = _foreign(host, f"f{number}", count)
            continue
        if what == "create" and name in host.claims:
            continue
        if what in ("resize", "boot") and (name not in host.claims or not host.claims[name].ours):
            continue
        wanted = _wanted(name, kind, count, memory)
        put = _put(host, name, kind, count, memory, runs.get(name, NOTHING))
        if put is not host:
            defined_[name] = wanted
            runs.setdefault(name, _all_of(wanted))  # what runs already has the rest at its next boot
        host = put
        _agrees(host)
        _runs_apart(host, defined_, runs)


def _all_of(one: GuestSpec) -> Running:
    return Running(one.cpus.count, one.memory.size)


def _runs_apart(host: Ledger, specs: dict[str, GuestSpec], runs: dict[str, Running]) -> None:
    """What really runs, whatever definitions say, fits into the host's memory, and runs on nobody else's pCPUs."""
    assert sum(now.memory for now in runs.values()) + host.reserve_memory <= host.memory
    for name, now in runs.items():
        claim = host.claims[name]
        held = dict(tuning_of(specs[name], Seat(claim.seat, -1, claim.exclusive), host, now).pins)
        others = frozenset(cpu for other in host.claims.values() if other.name != name for cpu in other.exclusive)
        everywhere = host.topology.online - host.topology.isolated
        for vcpu in range(now.vcpus):
            assert not (parse_cpuset(held[vcpu]) if vcpu in held else everywhere) & others, (name, vcpu, held)


kinds = st.sampled_from(("shared", "dedicated", "isolated", "require", "mixed", "pinned"))


@RUNS
@given(
    shape=hosts,
    first=st.lists(st.tuples(kinds, st.integers(1, 5)), max_size=5),
    then=st.lists(
        st.tuples(st.integers(0, 6), kinds, st.integers(1, 5)), min_size=1, max_size=5, unique_by=lambda one: one[0]
    ),
)
def test_guests_that_change_at_once_never_meet_on_their_way(
    shape: Shape, first: list[tuple[str, int]], then: list[tuple[int, str, int]]
) -> None:
    before = ledger(shape)
    for number, (kind, count) in enumerate(first):
        before = _put(before, f"g{number}", "dedicated" if kind == "pinned" else kind, max(2, count), 64)
    specs = [_spec(f"g{number}", kind, count) for number, kind, count in then]
    placed = place(before, [wish_of(one, kvm=True, had=before.claims.get(one.name)) for one in specs])
    claims = dict(before.claims)
    for one in specs:
        if seat := placed.seats.get(one.name):
            held = Tuning(pins=tuple((vcpu, str(cpu)) for vcpu, cpu in seat.pins))
            claims[one.name] = claim_of_spec(one, [held], before.topology, kvm=True, active=True, autostart=False)
    after = replace(before, claims=claims)
    now = {name: claim.exclusive for name, claim in before.claims.items()}
    for one in in_order(specs, Placing({}, {}, before, after, placed.order)):
        now[one.name] = after.claims[one.name].exclusive if one.name in after.claims else frozenset()
        taken = [cpu for cpus in now.values() for cpu in cpus]
        assert len(taken) == len(set(taken)), (one.name, now, placed)


def _spec(name: str, kind: str, count: int) -> GuestSpec:
    cpus: dict[str, object] = {"count": count, "policy": kind}
    if kind == "require":
        cpus |= {"policy": "dedicated", "threads": "require"}
    if kind == "mixed":
        cpus |= {"count": count + 1, "dedicated": "0"}
    if kind == "pinned":
        cpus |= {"policy": "dedicated", "pins": {0: 1}}
    return spec(name, **cpus)


def _wanted(name: str, kind: str, count: int, memory: int) -> GuestSpec:
    cpus: dict[str, object] = {"count": count, "policy": kind}
    if kind == "require":
        cpus |= {"policy": "dedicated", "threads": "require"}
    if kind == "mixed":
        cpus |= {"dedicated": "0"}
    return spec(name, memory=f"{memory}M", **cpus)


def _put(host: Ledger, name: str, kind: str, count: int, memory: int, now: Running = NOTHING) -> Ledger:
    wanted = _wanted(name, kind, count, memory)
    had = host.claims.get(name)
    wish = wish_of(wanted, kvm=True, had=had, now=now)
    others = frozenset(cpu for claim in host.claims.values() if claim.name != name for cpu in claim.exclusive)
    placed = place(host, [wish])
    if name not in placed.seats:
        return host
    seat = placed.seats[name]
    assert is_right(wish, seat, host.without([name]), others)
    if had and had.seat and set(had.exclusive) == set(seat.exclusive) and len(had.seat) == len(seat.pins):
        assert seat.pins == had.seat, "what is right where it is does not move"
    return _claimed(host, wanted, seat.pins, now)


def _claimed(host: Ledger, one: GuestSpec, pins: tuple[tuple[int, int], ...], now: Running) -> Ledger:
    held = [Tuning(pins=tuple((vcpu, str(cpu)) for vcpu, cpu in pins))]
    return host.having(claim_of_spec(one, held, host.topology, kvm=True, active=True, autostart=False, now=now))


def _foreign(host: Ledger, name: str, count: int) -> Ledger:
    """Somebody else pins a guest to what nobody has, as one does who looks at the map first."""
    free = sorted(host.pool)[1 : count + 1]
    if name in host.claims or not free:
        return host
    return host.having(Claim(name, "foreign", exclusive=frozenset(free), memory=0))


def _agrees(host: Ledger) -> None:
    claims = list(host.claims.values())
    for number, one in enumerate(claims):
        assert not one.exclusive & host.reserve_cpus
        for other in claims[number + 1 :]:
            assert not one.exclusive & other.exclusive, (one, other)
    assert host.promised + host.reserve_memory <= host.memory
    if any(claim.ours and claim.shared for claim in claims):
        assert host.pool


def test_a_smaller_guest_keeps_what_it_has() -> None:
    host = ledger(Shape(cores=8))
    host = _put(host, "g1", "dedicated", 4, 64)
    before = host.claims["g1"].seat
    host = _put(host, "g1", "dedicated", 2, 64)
    assert host.claims["g1"].seat == before[:2]
    host = _put(host, "g1", "dedicated", 5, 64)
    assert host.claims["g1"].seat[:2] == before[:2]


def test_a_guest_lies_in_one_cache_and_cell_where_it_can() -> None:
    host = ledger(Shape(cells=2, cores=8, caches=4))
    host = _put(host, "g1", "dedicated", 3, 64)
    host = _put(host, "g2", "dedicated", 4, 64)
    caches = {cpu.id: cpu.cache for cpu in host.topology.cpus}
    assert [len({caches[cpu] for cpu in host.claims[name].exclusive}) for name in ("g1", "g2")] == [1, 1]


def test_dense_fills_a_cache_and_spread_leaves_room() -> None:
    shape = Shape(cells=2, cores=4, caches=2)
    places = {}
    for spread in (False, True):
        host = ledger(shape, spread=spread)
        for name in ("g1", "g2"):
            host = _put(host, name, "dedicated", 2, 64)
        cells = {cpu.id: cpu.cell for cpu in host.topology.cpus}
        places[spread] = {cells[cpu] for claim in host.claims.values() for cpu in claim.exclusive}
    assert places == {False: {0}, True: {0, 1}}


def test_replicas_lie_apart() -> None:
    host = ledger(Shape(cells=2, cores=4))
    wishes_ = [replace(wish_of(spec(n, count=2, policy="dedicated"), kvm=True), group="web") for n in ("a", "b")]
    seats = place(host, wishes_).seats
    cells = {cpu.id: cpu.cell for cpu in host.topology.cpus}
    assert {cells[cpu] for seat in seats.values() for cpu in seat.exclusive} == {0, 1}


def test_isolated_pcpus_of_the_kernel_are_taken_first_and_never_shared() -> None:
    host = ledger(Shape(cores=4, isolated=frozenset({2, 3})))
    host = _put(host, "g1", "dedicated", 2, 64)
    assert host.claims["g1"].exclusive == {2, 3}
    assert host.pool == {0, 1}


def test_it_says_who_has_what_and_what_would_do() -> None:
    host = ledger(Shape(cells=2, cores=4, pages=((2 << 20, 100),)))
    host = _put(host, "db", "isolated", 3, 64)
    held = host.claims["db"].exclusive
    told = spec("x", count=4, policy="isolated").model_copy()
    wanted = builders_memory(told, cells="0", hugepages="2M", size="64M")
    text = place(host, [wish_of(wanted, kvm=True)]).refusals["x"]
    assert held == {0, 1, 2}
    assert text == (
        "needs 4 isolated cores in cell 0: pCPUs 0-2 are held by db; free whole cores: 1; would fit in cell 1"
    )


def builders_memory(wanted, **memory):
    from vmhost.testing import builders

    return builders.guest(wanted.name, cpus=wanted.cpus.model_dump(exclude_none=True), memory=memory)


@pytest.mark.parametrize(
    ("pins", "reason"),
    [
        ({0: 9}, "the host has 0-7"),
        ({0: 3}, "it is offline"),
        ({0: 0}, "in the host's reserve"),
        ({0: 1}, "it is held by db"),
        ({0: 5}, "a foreign guest is pinned to it"),
    ],
)
def test_pins_of_ones_own_choice_are_checked(pins: dict[int, int], reason: str) -> None:
    host = ledger(Shape(cores=8, offline=frozenset({3})), reserve_cpus=frozenset({0}))
    host = host.having(Claim("db", "dedicated", exclusive=frozenset({1})))
    host = host.having(Claim("theirs", "foreign", floating=frozenset({5, 6})))
    refused = place(host, [wish_of(spec("x", policy="dedicated", pins=pins), kvm=True)]).refusals
    assert reason in refused["x"]


def test_memory_is_promised_once() -> None:
    host = ledger(Shape(memory=2 * GIB), reserve_memory=GIB)
    text = place(host, [wish_of(spec("x", memory="1G"), kvm=True)]).refusals["x"]
    assert "1G are kept in reserve" in text
    assert not place(host, [wish_of(spec("x", memory="512M"), kvm=True)]).refusals


def test_hugepages_that_are_not_there_and_cells_that_do_not_exist() -> None:
    host = ledger(Shape(cells=2, pages=((2 << 20, 10),)))
    many = builders_memory(spec("x"), size="64M", hugepages="2M")
    assert "10 free hugepages of 2M, 32 are needed" in place(host, [wish_of(many, kvm=True)]).refusals["x"]
    nowhere = builders_memory(spec("x"), size="64M", cells="7")
    assert "there is no cell 7, the host has 0-1" in place(host, [wish_of(nowhere, kvm=True)]).refusals["x"]
    assert topology(Shape(cells=2)).cell(1) is not None


def test_pages_are_counted_in_the_cell_that_has_them() -> None:
    host = ledger(Shape(cells=2, pages=((2 << 20, 40),)))
    one = builders_memory(spec("a"), size="64M", hugepages="2M")
    two = builders_memory(spec("b"), size="64M", hugepages="2M")
    seats = place(host, [wish_of(one, kvm=True), wish_of(two, kvm=True)]).seats
    assert {seat.cells for seat in seats.values()} == {(0,), (1,)}


def test_vcpus_that_share_have_their_limits() -> None:
    host = ledger(Shape(cores=4), overcommit_cpus=2.0)
    refused = place(host, [wish_of(spec(f"g{n}", count=3), kvm=True) for n in range(3)]).refusals
    assert "9 vCPUs would share 4, more than 2 each" in " ".join(refused.values())
    asked = [wish_of(spec(f"g{n}", count=2, request=1.5), kvm=True) for n in range(3)]
    assert "4.5 are requested" in " ".join(place(ledger(Shape(cores=4)), asked).refusals.values())
