"""The watch: what a picture costs, what wakes it, and how it comes back when libvirt was away."""

from __future__ import annotations

import gc
import queue
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.contract.backends import eventually
from vmhost.model.errors import Unreachable, VmhostError
from vmhost.model.observed import DomainState
from vmhost.model.stats import IDLE, DomainStats, Load, load_between
from vmhost.ops.host import Host
from vmhost.ops.watch import SAMPLES, WHOLE_EVERY, Picture, Sample, Watch
from vmhost.ports import DomainEvent, Ports
from vmhost.testing import FakeHost
from vmhost.testing.demo import demo_host
from vmhost.testing.faults import FaultPlan, FaultyPorts
from vmhost.tui.rows.cells import ASCII, size, spark
from vmhost.tui.rows.guests import COLUMNS, guest_cells
from vmhost.tui.rows.host import host_lines

pytestmark = pytest.mark.tui


class Counted:
    """A watch on a fake host whose calls are counted."""

    def __init__(self, fake: FakeHost, error: Callable[[Any], BaseException] | None = None, at: int = -1) -> None:
        self.fake = fake
        self.faulty = FaultyPorts(fake.ports, FaultPlan(at=at, error=error))
        self.watch = Watch(Host(ports=self.faulty.ports), interval=0.05)

    def calls(self) -> list[str]:
        found = [call.method for call in self.faulty.calls if call.port == "hypervisor" and call.method != "subscribe"]
        self.faulty.calls.clear()
        return found


@pytest.fixture
def counted() -> Iterator[Counted]:
    made = Counted(demo_host(speed=0))
    yield made
    made.watch.stop()


def test_between_two_events_a_picture_is_one_call(counted: Counted) -> None:
    counted.watch.look()
    counted.watch.look()  # the first one left out who was changed past vmhost
    counted.calls()
    for _ in range(5):
        counted.watch.look()
    assert counted.calls() == ["stats"] * 5


def test_after_an_event_definitions_are_read_again_and_only_changed_ones_parsed(counted: Counted) -> None:
    before = counted.watch.look()
    told = threading.Event()
    counted.fake.hypervisor.subscribe(
        lambda event: event.kind == "stopped" and told.set()
    )  # the watch, which came first, hears it first
    counted.fake.hypervisor.power_off(counted.fake.domain("web-01").uuid)
    assert told.wait(20)
    after = counted.watch.look()
    assert "look" in counted.calls()
    old = {domain.uuid: domain for domain in before.observed.domains}
    same = [domain.name for domain in after.observed.domains if old[domain.uuid] is domain]
    assert len(same) == len(old) - 1
    assert "web-01" not in same
    assert [(item.name, item.kind) for item in after.happenings][-1] == ("web-01", "stopped")


def test_a_state_without_an_event_is_noticed_by_the_counters(counted: Counted) -> None:
    counted.watch.look()
    uuid = counted.fake.domain("web-01").uuid
    counted.fake.world.domains[uuid].state = DomainState.PAUSED
    picture = counted.watch.look()
    assert next(domain for domain in picture.observed.domains if domain.uuid == uuid).raw.state is DomainState.PAUSED


def test_rates_follow_from_neighbouring_counters() -> None:
    before = DomainStats("u", DomainState.RUNNING, cpu_time=10**9, read=1000, sent=50)
    after = before._replace(cpu_time=3 * 10**9, read=3000, sent=50)
    assert load_between(before, after, 2.0) == Load(cpu=1.0, read=1000.0)
    assert load_between(after, before, 2.0) == IDLE, "it was started anew in between"
    assert load_between(before, after, 0.0) == IDLE
    assert load_between(before, after._replace(state=DomainState.SHUTOFF), 2.0) == IDLE


def test_samples_and_events_do_not_pile_up(counted: Counted) -> None:
    for number in range(SAMPLES * 4):
        picture = counted.watch.look()
        if number % 8 == 0:
            counted.fake.edit("web-03", lambda xml: xml)
    assert len(picture.samples) == SAMPLES
    told: list[DomainEvent] = []
    counted.fake.hypervisor.subscribe(told.append)  # the watch, which came first, hears it first
    for _ in range(600):
        counted.fake.edit("web-03", lambda xml: xml)
    assert eventually(lambda: len(told) >= 600, seconds=20)
    assert len(counted.watch.look().happenings) == 500


@pytest.mark.timeout(240)  # thousands of pictures
def test_a_long_day_needs_no_more_memory() -> None:
    fake = demo_host(speed=0)
    watch = Watch(Host(ports=fake.ports))

    def hours(count: int) -> None:
        for number in range(count):
            fake.advance(2)
            if number % 50 == 0:
                watch.wake()
            watch.look()

    hours(600)
    tracemalloc.start()
    hours(300)
    gc.collect()  # what waits to be collected, and what the interpreter keeps for the next tuple, is no growth
    before = tracemalloc.get_traced_memory()[0]
    hours(1500)
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    watch.stop()
    assert grown < 200_000, f"{grown} bytes in 1,500 pictures"


class Theatre:
    """Runs a watch in a thread and collects what it shows."""

    def __init__(self, ports: Ports) -> None:
        self.pictures: list[Picture] = []
        self.errors: list[VmhostError] = []
        self.watch = Watch(Host(ports=ports), interval=0.05)
        self.thread = threading.Thread(
            target=self.watch.run, args=(self.pictures.append, self.errors.append), daemon=True
        )
        self.thread.start()

    def until(self, condition: Callable[[], bool], seconds: float = 25.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def end(self) -> None:
        self.watch.stop()
        self.thread.join(25)
        assert not self.thread.is_alive()


class Away:
    """A hypervisor that can be away."""

    def __init__(self, fake: FakeHost) -> None:
        self.away = False
        self.subscriptions = 0
        self._real = fake.hypervisor

    def __getattr__(self, name: str) -> Any:
        if self.away:
            raise Unreachable("the daemon is away", subject="qemu:///system")
        self.subscriptions += name == "subscribe"
        return getattr(self._real, name)


def test_it_comes_back_and_listens_again() -> None:
    fake = demo_host(speed=0)
    hypervisor = Away(fake)
    hypervisor.away = True
    theatre = Theatre(replace(fake.ports, hypervisor=hypervisor))  # type: ignore[arg-type]
    theatre.until(lambda: bool(theatre.errors))
    assert theatre.pictures == []
    hypervisor.away = False
    theatre.until(lambda: bool(theatre.pictures))
    hypervisor.away = True
    theatre.until(lambda: theatre.pictures[-1].stale is not None)
    assert len(theatre.pictures[-1].observed.domains) == 15, "the last picture stays"
    fake.hypervisor.undefine(fake.domain("legacy-nas").uuid)
    hypervisor.away = False
    theatre.until(lambda: theatre.pictures[-1].stale is None)
    assert len(theatre.pictures[-1].observed.domains) == 14
    assert hypervisor.subscriptions == 2
    fake.hypervisor.power_off(fake.domain("web-01").uuid)
    theatre.until(lambda: any(item.kind == "stopped" for item in theatre.pictures[-1].happenings))
    theatre.end()


def test_a_fault_in_the_middle_of_a_look_is_an_old_picture_and_the_next_look_reads_everything() -> None:
    fake = demo_host(speed=0)
    theatre = Theatre(fake.ports)
    theatre.until(lambda: bool(theatre.pictures))
    theatre.end()
    counted = Counted(fake, error=lambda _: Unreachable("gone"), at=4)
    with pytest.raises(Unreachable):
        counted.watch.look()
    assert len(counted.watch.look().observed.domains) == 15


def test_a_dear_picture_is_taken_more_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = demo_host(speed=0)
    real = fake.hypervisor.stats

    def slowly(dear: Any = None) -> Any:
        time.sleep(0.05)
        return real(dear)

    monkeypatch.setattr(fake.hypervisor, "stats", slowly)
    theatre = Theatre(fake.ports)
    theatre.until(lambda: bool(theatre.pictures))
    time.sleep(1.5)
    assert len(theatre.pictures) <= 3, "20 times 50 ms lie between them"
    theatre.end()


def test_only_guests_that_somebody_sees_are_asked_for_what_is_dear() -> None:
    fake = demo_host(speed=0)
    watch = Watch(Host(ports=fake.ports))
    watch.clock = lambda: fake.world.now
    seen, hidden = fake.domain("web-01").uuid, fake.domain("db-01").uuid

    def look(uuids: frozenset[str] | None, seconds: float = 2.0) -> Picture:
        watch.show_only(uuids)
        fake.advance(seconds)
        return watch.look()

    watch.look()
    first = look(None)  # the first two are whole
    second = look(frozenset({seen}))
    for uuid, rate in ((seen, True), (hidden, False)):
        before, after = first.stats(uuid), second.stats(uuid)
        assert before is not None
        assert after is not None
        assert after.cpu_time > before.cpu_time, "what is cheap is known of all"
        assert (after.read > before.read) is rate
        assert bool(second.load(uuid).read) is rate
        assert second.load(uuid).sent > 0
        assert after.memory == before.memory > 0
    assert second.load(hidden).read is None, "nobody looked, which is no rest"
    assert second.held == first.held
    held = [stats.resident for stats in first.samples[-1].stats.values()]
    change = second.samples[-1].stats[seen].resident - first.samples[-1].stats[seen].resident
    assert second.resident() == sum(held) + change
    assert look(frozenset({seen})).load(seen).read
    for _ in range(3):
        away = look(frozenset({seen}))
    assert [load.read for load in away.loads(hidden)[1:]] == [None] * 5
    back = look(frozenset({hidden}))
    rates = {load.read for load in back.loads(hidden)[1:]}
    assert len(rates) == 1, "nobody sees a rush, nor a rest, because somebody came to look: it is the average"
    assert 0 < (rates.pop() or 0) < 2 * (first.load(hidden).read or 0)
    assert back.loads(seen)[-1].read is None

    def known(picture: Picture) -> set[str]:
        return {uuid for uuid in everybody if picture.samples[-1].knows(uuid)}

    everybody = frozenset(uuid for uuid, stats in back.samples[-1].stats.items() if stats.state.active)
    assert known(first) == everybody
    assert known(back) == {hidden}
    assert known(look(everybody)) == everybody, "one call for all costs less than two"
    assert known(look(everybody - {seen})) == everybody - {seen}
    assert known(look(frozenset(), WHOLE_EVERY)) == everybody, "now and then all are asked"


def test_what_is_older_than_all_samples_that_are_kept_is_known_all_the_same() -> None:
    uuid = "a"
    whole = Sample(0.0, {uuid: DomainStats(uuid, DomainState.RUNNING, 1, 64, 32, 32, 100, 100)})
    later = [Sample(float(at), {uuid: DomainStats(uuid, DomainState.RUNNING, at, whole=False)}) for at in (4, 6)]
    seen = Sample(8.0, {uuid: DomainStats(uuid, DomainState.RUNNING, 9, 64, 32, 32, 900, 100)})
    hidden = Picture(None, tuple(later), whole)  # type: ignore[arg-type]
    assert hidden.stats(uuid) == DomainStats(uuid, DomainState.RUNNING, 6, 64, 32, 32, 100, 100)
    assert hidden.load(uuid).read is None
    assert hidden.resident() == 32
    assert replace(hidden, whole=None).resident() is None, "no sum of a part"
    assert replace(hidden, samples=(*later, seen)).load(uuid).read == 100


def test_somebody_who_comes_into_view_is_asked_at_once() -> None:
    fake = demo_host(speed=0)
    watch = Watch(Host(ports=fake.ports), interval=3600)
    seen, hidden = (frozenset({fake.domain(name).uuid}) for name in ("web-01", "db-01"))
    watch.show_only(seen)
    for _ in range(2):
        watch.look()  # they are whole
    pictures: queue.SimpleQueue[Picture] = queue.SimpleQueue()
    thread = threading.Thread(target=watch.run, args=(pictures.put, pytest.fail), daemon=True)
    thread.start()
    for _ in range(2):
        assert not pictures.get(timeout=20).samples[-1].knows(*hidden)
    watch.show_only(seen, soon=True)
    watch.show_only(hidden, soon=True)
    assert pictures.get(timeout=20).samples[-1].knows(*hidden), "nothing else wakes it for an hour"
    watch.show_only(hidden | seen, soon=True)
    assert pictures.get(timeout=20).samples[-1].knows(*seen)
    watch.stop()
    thread.join(20)
    assert pictures.empty()


def test_what_is_not_known_is_drawn_as_such() -> None:
    fake = demo_host(speed=0)
    watch = Watch(Host(ports=fake.ports))
    watch.clock = lambda: fake.world.now
    watch.show_only(frozenset())
    for _ in range(4):  # two whole ones, then two that know nobody's
        fake.advance(2)
        picture = watch.look()
    uuid = fake.domain("db-01").uuid
    (domain,) = (domain for domain in picture.observed.domains if domain.uuid == uuid)
    columns = [column for column in COLUMNS if column.id in ("disk", "disk-spark")]
    assert [cell.text.lstrip() for cell in guest_cells(picture, domain, columns, ASCII)] == ["?", "@  "]
    assert spark([None, 0.0, None, 8.0], 5, ASCII) == "  _ @"
    unknown = replace(picture, samples=picture.samples[-2:], whole=None)
    for shown, words in ((picture, f" {size(picture.resident() or 0)} "), (unknown, " not known")):
        (line,) = (line.text for line in host_lines(shown, None, ASCII) if line.text.startswith("used "))
        assert words in line
