"""The fake host as a whole: time, events, chance, locks, records, its state as one value, and its file."""

from __future__ import annotations

import json
import subprocess
import threading
from pathlib import Path

import pytest

from vmhost.model.errors import Absent, AlreadyThere, Conflict, DamagedData, DriverError, VmhostError
from vmhost.model.outcome import JobRecord
from vmhost.model.units import parse_mac
from vmhost.ports import DomainEvent, Ports
from vmhost.testing import Behaviour, FakeHost, builders, savefile
from vmhost.testing.demo import demo_host
from vmhost.testing.world import Link, Volume


def with_guest(host: FakeHost, name: str = "web-01") -> str:
    """Give the host a guest that boots nothing; return its UUID."""
    if builders.POOL not in host.world.pools:
        host.hypervisor.create_pool(builders.POOL, builders.POOL_PATH)
        host.links.create_bridge("br0", alias="vmhost:shop", mtu=1500, address="10.20.0.1/24")
    spec = builders.guest(name)
    who = builders.identity(spec)
    for file in builders.metadata(spec, who).volumes:
        host.add_volume(builders.POOL, Volume(file.partition("/")[2], 1 << 30, "qcow2"))
    host.hypervisor.define(builders.domain_xml(spec, who, builders.metadata(spec, who)))
    return who.uuid


class TestTime:
    def test_it_stands_still_and_is_moved(self) -> None:
        host = FakeHost()
        clock = host.ports.clock
        assert clock.now() == clock.now()
        before = clock.monotonic()
        host.advance(12.5)
        assert clock.monotonic() - before == pytest.approx(12.5)
        assert clock.now() == pytest.approx(host.world.now)

    def test_who_waits_jumps_to_what_happens(self) -> None:
        host = FakeHost()
        uuid = with_guest(host)
        host.hypervisor.start(uuid)
        wakeups = host.ports.signals.open(host.hypervisor, uuid, "")
        before = host.ports.clock.monotonic()
        assert wakeups.wait(5) == ()
        assert host.ports.clock.monotonic() - before == pytest.approx(5)
        assert wakeups.wait(60) == ("console: No bootable device.",)
        assert host.ports.clock.monotonic() - before == pytest.approx(20)
        host.hypervisor.power_off(uuid)
        assert wakeups.wait(0) == ("shutdown", "stopped")
        wakeups.close()
        host.hypervisor.start(uuid)
        assert wakeups.wait(0) == ()

    @pytest.mark.timeout(20)
    def test_it_flows_for_those_who_listen(self) -> None:
        host = FakeHost(speed=1000)
        host.behave("web-01", boot_seconds=100)
        uuid = with_guest(host)
        seen = threading.Event()
        host.hypervisor.subscribe(lambda event: seen.set() if event.kind == "agent-connected" else None)
        host.world.pools[builders.POOL].volumes[f"{uuid}-root.qcow2"].backing = "base"
        before = host.ports.clock.monotonic()
        host.hypervisor.start(uuid)
        while not seen.wait(0.01):
            host.ports.clock.monotonic()
        assert host.ports.clock.monotonic() - before >= 100


def threads_of_events() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "fake-events" and thread.is_alive()}


class TestEvents:
    def test_libvirts_own_order_and_words(self) -> None:
        host = FakeHost()
        told: list[DomainEvent] = []
        ended = threading.Event()

        def listen(event: DomainEvent) -> None:
            told.append(event)
            if event.kind == "undefined":
                ended.set()

        host.hypervisor.subscribe(listen)
        uuid = with_guest(host)
        host.hypervisor.define(host.domain("web-01").xml)
        host.hypervisor.start(uuid)
        host.hypervisor.power_off(uuid)
        host.hypervisor.undefine(uuid)
        assert ended.wait(30)
        assert {(event.uuid, event.name) for event in told} == {(uuid, "web-01")}
        assert [(event.kind, event.detail) for event in told] == [
            ("defined", "added"),
            ("defined", "updated"),
            ("resumed", "unpaused"),
            ("started", "booted"),
            ("shutdown", "by the host"),
            ("stopped", "destroyed"),
            ("undefined", "removed"),
        ]

    def test_a_listener_may_call_the_host_and_may_fail(self) -> None:
        host = FakeHost()
        seen: list[str] = []
        done = threading.Event()

        def fails(_: DomainEvent) -> None:
            raise RuntimeError("no")

        def looks(event: DomainEvent) -> None:
            seen.append(host.hypervisor.domain(event.uuid).name)
            done.set()

        host.hypervisor.subscribe(fails)
        host.hypervisor.subscribe(looks)
        with_guest(host)
        assert done.wait(30)
        assert seen == ["web-01"]

    def test_the_end_of_a_subscription_and_of_all(self) -> None:
        host = FakeHost()
        others = threads_of_events()
        told: list[DomainEvent] = []
        unsubscribe = host.hypervisor.subscribe(told.append)
        unsubscribe()
        with_guest(host)
        host.hypervisor.subscribe(told.append)
        host.hypervisor.close()
        with_guest(host, "web-02")
        for mine in threads_of_events() - others:
            mine.join(5)
            assert not mine.is_alive()
        assert told == []


class TestChance:
    def test_equal_hosts_draw_the_same(self) -> None:
        def draw(seed: int) -> tuple[str, ...]:
            chance = FakeHost(seed=seed).entropy
            pair = chance.keypair("x")
            return (chance.uuid(), chance.uuid(), chance.mac(), pair.public, pair.private)

        assert draw(1) == draw(1)
        assert len(set(draw(1)) | set(draw(2))) == 10
        assert parse_mac(draw(1)[2]) == draw(1)[2]

    def test_keys_are_real_ones(self, tmp_path: Path) -> None:
        pair = FakeHost().entropy.keypair("web-01 host key")
        path = tmp_path / "key"
        path.write_text(pair.private)
        path.chmod(0o600)
        done = subprocess.run(["ssh-keygen", "-y", "-f", str(path)], check=True, capture_output=True, text=True)
        assert done.stdout.strip() == pair.public

    def test_ports_are_not_given_twice(self) -> None:
        chance = FakeHost().entropy
        first = chance.port(frozenset())
        assert chance.port(frozenset({first})) == first + 1


class TestLocks:
    def test_they_exclude_and_say_so(self) -> None:
        host = FakeHost()
        host.locks.timeout = 0.1
        entered, leave = threading.Event(), threading.Event()

        def hold() -> None:
            with host.locks.host():
                entered.set()
                leave.wait(40)

        thread = threading.Thread(target=hold)
        thread.start()
        assert entered.wait(30)
        assert host.locks.held() == ("host",)
        with pytest.raises(Conflict, match="held by another thread"), host.locks.host():
            pass
        host.locks.timeout = 5
        leave.set()
        with host.locks.host(), host.locks.guests(["b", "a"]):
            assert host.locks.held() == ("host", "a", "b")
        thread.join()
        assert host.locks.held() == ()

    @pytest.mark.parametrize(("first", "second"), [("b", "a"), ("a", "a")])
    def test_their_order_is_kept(self, first: str, second: str) -> None:
        locks = FakeHost().locks
        with locks.guests([first]):
            with pytest.raises(VmhostError, match="out of order"), locks.guests([second]):
                pass
            with pytest.raises(VmhostError, match="out of order"), locks.host():
                pass
        assert locks.held() == ()

    def test_a_call_that_fails_keeps_nothing(self) -> None:
        locks = FakeHost().locks
        locks.timeout = 0.05
        thread_done = threading.Event()

        def hold() -> None:
            with locks.guests(["b"]):
                thread_done.wait(40)

        thread = threading.Thread(target=hold)
        thread.start()
        while not locks.held():
            pass
        with pytest.raises(Conflict), locks.guests(["a", "b"]):
            pass
        assert locks.held() == ("b",)
        thread_done.set()
        thread.join()

    def test_death_releases(self) -> None:
        host = FakeHost()
        with host.locks.host():
            host.die()
            assert host.locks.held() == ()
        assert host.locks.held() == ()


class TestRecords:
    def test_a_journal_is_open_when_its_owner_died(self) -> None:
        host = FakeHost()
        writer = host.journals.begin("op")
        writer.append({"a": (1, "ü")})
        assert not host.journals.any_open()
        assert host.journals.claim_open() == ()
        host.die()
        assert host.journals.any_open()
        with pytest.raises(ValueError, match="closed"):
            writer.append({})
        (journal,) = host.journals.claim_open()
        assert journal.records == ({"a": [1, "ü"]},)
        assert not host.journals.any_open(), "it has a living owner again"
        journal.writer.append({"b": 2})
        journal.writer.close(done=False)
        (again,) = host.journals.claim_open()
        assert [dict(record) for record in again.records] == [{"a": [1, "ü"]}, {"b": 2}]
        again.writer.close(done=True)
        assert host.state()["journals"] == {}

    def test_an_id_is_used_once_and_records_are_json(self) -> None:
        host = FakeHost()
        writer = host.journals.begin("op")
        with pytest.raises(AlreadyThere):
            host.journals.begin("op")
        with pytest.raises(TypeError):
            writer.append({"a": object()})
        assert host.state()["journals"] == {"op": 0}

    def test_a_damaged_journal(self) -> None:
        host = FakeHost()
        host.journals.begin("op")
        host.die()
        host.world.journals["op"].damaged = "a newer vmhost wrote this journal"
        with pytest.raises(DamagedData, match="newer"):
            host.journals.claim_open()
        assert host.journals.any_open()

    def test_jobs(self) -> None:
        host = FakeHost()
        record = JobRecord("j1", "apply", "shop", "running", host.world.now, pid=1, user="ann")
        host.history.start(record)
        with pytest.raises(AlreadyThere):
            host.history.start(record)
        host.history.update("j1", progress="half", done=1, total=2, rate=0.5)
        host.history.log("j1", "line")
        assert host.history.lines("j1") == ("line",)
        host.history.cancel("j1")
        assert host.history.cancelled("j1")
        host.die()
        (job,) = host.history.jobs()
        assert (job.state, job.progress) == ("interrupted", "half")
        with pytest.raises(Absent):
            host.history.cancel("j1")
        with pytest.raises(Absent):
            host.history.lines("j2")
        with pytest.raises(ValueError, match="not the state"):
            host.history.end("j1", state="gone", error="")

    def test_keys(self) -> None:
        host = FakeHost()
        pair = host.entropy.keypair("shop")
        assert host.keys.public("shop") is None
        host.keys.store("shop", pair)
        assert host.keys.public("shop") == pair.public
        assert host.keys.private_file("shop").name == "shop.key"
        with pytest.raises(AlreadyThere):
            host.keys.store("shop", pair)


class TestRefusals:
    """What the contract suite cannot ask of every hypervisor."""

    def test_a_disk_or_bridge_that_is_not_there(self) -> None:
        host = FakeHost()
        uuid = with_guest(host)
        before = host.state()
        volume = host.world.pools[builders.POOL].volumes.pop(f"{uuid}-root.qcow2")
        with pytest.raises(DriverError, match="Cannot access storage file"):
            host.hypervisor.start(uuid)
        host.add_volume(builders.POOL, volume)
        link = host.world.links.pop("br0")
        with pytest.raises(DriverError, match="Cannot get interface MTU"):
            host.hypervisor.start(uuid)
        host.add_link(link)
        assert host.state() == before

    def test_a_tap_of_that_name(self) -> None:
        host = FakeHost()
        first, second = with_guest(host), with_guest(host, "web-02")
        host.hypervisor.start(first)
        tap = builders.identity(builders.guest("web-01")).nics[0].tap
        other = builders.identity(builders.guest("web-02")).nics[0].tap
        host.edit("web-02", lambda xml: xml.replace(other, tap))
        with pytest.raises(DriverError, match="interface already exists"):
            host.hypervisor.start(second)

    def test_a_backing_file_that_is_not_there(self) -> None:
        host = FakeHost()
        host.hypervisor.create_pool("p", "/p")
        xml = (
            "<volume><name>x</name><capacity>1</capacity><target><format type='qcow2'/></target>"
            "<backingStore><path>/no</path><format type='qcow2'/></backingStore></volume>"
        )
        with pytest.raises(DriverError, match="inaccessible backing store"):
            host.hypervisor.create_volume("p", xml)
        assert host.state()["pools"]["p"]["volumes"] == {}

    def test_an_inactive_pool(self) -> None:
        host = FakeHost()
        host.hypervisor.create_pool("p", "/p")
        host.world.pools["p"].active = False
        with pytest.raises(DriverError, match="not active"):
            host.hypervisor.create_volume("p", "<volume><name>x</name><capacity>1</capacity></volume>")
        (pool,) = host.hypervisor.pools()
        assert (pool.active, pool.volumes) == (False, ())

    def test_a_directory_that_another_pool_has(self) -> None:
        host = FakeHost()
        host.hypervisor.create_pool("p", "/p")
        with pytest.raises(DriverError, match="Storage source conflict with pool: 'p'"):
            host.hypervisor.create_pool("q", "/p")


class TestState:
    def test_it_tells_hosts_apart_by_what_is_left_behind(self) -> None:
        host = FakeHost()
        uuid = with_guest(host)
        start = host.state()
        changes = (
            lambda: host.hypervisor.start(uuid),
            lambda: host.hypervisor.set_autostart(uuid, True),
            lambda: host.hypervisor.set_metadata(uuid, f"<x:guest xmlns:x='{builders.NAMESPACE}' version='1'/>"),
            lambda: host.hypervisor.upload_volume(builders.POOL, f"{uuid}-seed.iso", b"x"),
            lambda: host.hypervisor.resize_disk(uuid, "vda", 2 << 30),
            lambda: host.hypervisor.create_pool("p", "/p"),
            lambda: host.links.create_bridge("br9", alias="", mtu=1500, address=""),
            lambda: host.journals.begin("op"),
            lambda: host.add_link(Link("eth9", kind="")),
        )
        states = [start]
        for change in changes:
            change()
            states.append(host.state())
        for number, one in enumerate(states):
            assert all(one != other for other in states[number + 1 :]), number

    def test_a_start_that_is_undone_leaves_no_trace(self) -> None:
        host = FakeHost()
        uuid = with_guest(host)
        host.hypervisor.start(uuid)
        running = host.state()
        host.hypervisor.power_off(uuid)
        host.hypervisor.start(uuid)
        assert host.state() == running
        host.advance(5)
        assert host.state() == running

    def test_held_locks_are_part_of_it(self) -> None:
        host = FakeHost()
        free = host.state()
        with host.locks.host():
            assert host.state() != free


class TestSaveFile:
    def test_there_and_back(self, tmp_path: Path) -> None:
        host = demo_host(speed=0)
        host.behave("web-01", errors=["x"])
        host.journals.begin("op").append({"a": 1})
        path = tmp_path / "state.json"
        savefile.store(path, host.world)
        read = savefile.load(path)
        assert read == host.world
        again = FakeHost(world=read)
        assert again.state() == {**host.state()}
        assert again.journals.any_open(), "whoever wrote it has ended"
        assert json.loads(path.read_text())["hostname"] == "demo"
        assert again.world.behaviours["web-01"] == Behaviour(errors=["x"])

    def test_every_change_is_kept(self, tmp_path: Path) -> None:
        path = tmp_path / "state.json"
        host = FakeHost(keep=lambda world: savefile.store(path, world))
        uuid = with_guest(host)
        host.hypervisor.start(uuid)
        read = savefile.load(path)
        assert read is not None
        assert FakeHost(world=read).state() == host.state()
        assert [entry.name for entry in tmp_path.iterdir()] == ["state.json"]

    @pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"domains": 3}', '{"nosuch": 1}'])
    def test_a_file_that_is_none(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "x").write_text(text)
        with pytest.raises(DamagedData):
            savefile.load(tmp_path / "x")

    def test_no_file(self, tmp_path: Path) -> None:
        assert savefile.load(tmp_path / "x") is None


def test_all_ports_are_there() -> None:
    ports = FakeHost().ports
    assert isinstance(ports, Ports)
    assert all(getattr(ports, name) is not None for name in Ports.__dataclass_fields__)


def test_many_threads_at_once() -> None:
    host = FakeHost()
    uuids = [with_guest(host, f"web-{number:02}") for number in range(8)]
    errors: list[BaseException] = []

    def work(uuid: str) -> None:
        try:
            for _ in range(10):
                host.hypervisor.start(uuid)
                host.hypervisor.domains()
                host.links.links()
                host.hypervisor.power_off(uuid)
        except VmhostError as error:
            errors.append(error)

    before = host.state()
    threads = [threading.Thread(target=work, args=(uuid,)) for uuid in uuids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert host.state() == before
