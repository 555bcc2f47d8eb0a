"""Heartbeats of guests on a fake host: what must not happen around a restart, and who is told of only."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from tests.engine.scenes import WEB, site
from tests.services.test_heartbeat import BEATING, Ward, wait_for
from vmhost.model.errors import Conflict, DriverError, Unreachable
from vmhost.model.events import Event, Notice
from vmhost.model.observed import DomainState
from vmhost.ops import heal
from vmhost.ops.heartask import ask
from vmhost.ops.heartbeat import HeartWatch, hearts
from vmhost.ops.host import Host
from vmhost.ports import NOT_AT_ALL, DomainEvent
from vmhost.testing import FaultPlan, FaultyPorts, SimulatedKill

QUICK = (
    "{interval: 1s, timeout: 1s, misses: 2, restart: true, start_period: 1s, shutdown: 1s, tries: 2, backoff: 1s, "
    "quiet: 10m}"
)


@pytest.fixture
def ward() -> Ward:
    made = Ward()
    made.pass_seconds(30)
    assert made.told == []
    return made


def at(ward: Ward, where: tuple[str, str], do: Callable[[], object]) -> None:
    """Do something whenever the watch calls a method of a port."""

    def only(port: str, method: str) -> bool:
        if (port, method) == where:
            do()
        return False

    ward.watch._ports = FaultyPorts(ward.watch._ports, FaultPlan(only=only)).ports


def fails(ward: Ward, where: tuple[str, str], error: Callable[[str], Exception], first: int = 0) -> None:
    plan = FaultPlan(first, error=error, lasting=True, only=lambda port, method: (port, method) == where)
    ward.watch._ports = FaultyPorts(ward.watch._ports, plan).ports


def test_a_guest_that_stays_hung_is_given_up_whatever_is_looked_at_anew_while_it_is_off() -> None:
    ward = Ward(WEB + f"    heartbeat: {QUICK}\n", speed=3.0)
    ward.mends = False
    told: list[str] = []

    def hear(event: Event) -> None:
        assert isinstance(event, Notice)
        told.append(event.text)

    def off(port: str, method: str) -> bool:
        if (port, method) == ("hypervisor", "start") and not ward.fake.domain("web-01").state.active:
            for _ in range(3):  # a start that takes its time, while events come in
                healer._refresh()
            ward.fake.behave("web-01", boots=False, obeys=False)
        return False

    healer = Host(ports=FaultyPorts(ward.fake.ports, FaultPlan(only=off)).ports).services.watch(hear)
    thread = threading.Thread(target=healer.run)
    thread.start()
    wait_for(lambda: "web-01" in healer._hearts and healer._hearts["web-01"].watch._lessons)
    ward.hangs()
    wait_for(lambda: any(text.startswith("given up after 2 tries") for text in told))
    healer.stop()
    thread.join(20)
    assert not thread.is_alive()
    assert [text[:11] for text in told] == ["does not an", "restarted b", "restarted b", "given up af"]
    assert ward.fake.domain("web-01").state.active


@pytest.mark.parametrize("where", ["shut_down", "power_off", "start"])
def test_a_restart_that_has_begun_is_brought_to_its_end_when_the_watch_ends(ward: Ward, where: str) -> None:
    ward.hangs()
    at(ward, ("hypervisor", where), ward.watch.end)
    run = ward.run
    ward.pass_seconds(100)
    assert ward.run != run
    assert ward.fake.domain("web-01").state.active
    assert not ward.fake.ports.journals.any_open()
    assert any(text.startswith("restarted by powering it off") for text in ward.told), ward.told


def test_what_is_known_of_a_guest_outlives_its_stop(ward: Ward) -> None:
    healer = ward.host.services.watch(lambda _: None)
    healer._refresh()
    thread = healer._hearts["web-01"]
    ward.host.power(["web-01"], "power-off")
    healer._refresh()
    assert healer._hearts["web-01"] is thread
    ward.host.apply(ward.host.plan(site(WEB)))
    healer._refresh()
    assert healer._hearts == {}
    thread.join(20)


def test_the_watch_gives_a_restart_the_time_to_bring_the_guest_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heal, "PARTING", 0.01)
    ward = Ward(WEB + f"    heartbeat: {QUICK}\n", speed=3.0)
    stopped, ended = threading.Event(), threading.Event()

    def slow(port: str, method: str) -> bool:
        if (port, method) == ("hypervisor", "start") and not ward.fake.domain("web-01").state.active:
            stopped.set()
            assert ended.wait(20)
            time.sleep(0.2)
        return False

    healer = Host(ports=FaultyPorts(ward.fake.ports, FaultPlan(only=slow)).ports).services.watch(lambda _: None)
    thread = threading.Thread(target=healer.run)
    thread.start()
    wait_for(lambda: "web-01" in healer._hearts and healer._hearts["web-01"].watch._lessons)
    ward.hangs()
    assert stopped.wait(30)
    healer.stop()
    ended.set()
    thread.join(30)
    assert not thread.is_alive()
    assert ward.fake.domain("web-01").state.active


@pytest.mark.parametrize("where", ["shut_down", "start"])
def test_a_restart_that_somebody_cancels_leaves_the_guest_running_and_is_given_up(ward: Ward, where: str) -> None:
    """Also between its start and the end of the plan, when it boots and hears nothing."""
    ward.hangs()

    def cancel() -> None:
        for job in ward.host.jobs():
            if job.kind == "heartbeat web-01" and job.state == "running":
                ward.fake.history.cancel(job.id)
                ward.fake.advance(1)  # who cancels is asked now and then only

    at(ward, ("hypervisor", where), cancel)
    ward.pass_seconds(900)
    assert ward.stops.count("power_off") == (where == "start")
    assert ward.fake.domain("web-01").state.active
    assert sum("given up: its restart was cancelled (try 1 of 2)" in text for text in ward.told) == 1
    assert not ward.fake.ports.journals.any_open()


def test_one_that_obeys_late_is_started_again() -> None:
    ward = Ward(BEATING.replace("tries: 2", "tries: 1"))
    ward.pass_seconds(30)
    ward.hangs(obeys=True)
    ward.fake.world.behaviours["web-01"].shutdown_seconds = 70
    fails(ward, ("hypervisor", "power_off"), lambda _: DriverError("no"))
    ward.pass_seconds(150)
    ward.refresh()
    ward.pass_seconds(60)
    assert ward.fake.domain("web-01").state.active
    assert "was started again: it had heard our request to shut down late" in ward.told


def test_one_that_a_person_stops_after_our_request_stays_off(ward: Ward) -> None:
    ward.hangs()
    fails(ward, ("hypervisor", "power_off"), lambda _: DriverError("no"))
    ward.pass_seconds(80)
    assert ward.watch._debt is not None
    ward.host.power(["web-01"], "power-off")
    ward.refresh()
    ward.pass_seconds(300)
    assert not ward.fake.domain("web-01").state.active


def test_one_that_has_never_answered_is_told_of_only() -> None:
    ward = Ward()
    ward.hangs()
    ward.pass_seconds(900)
    assert ward.stops == []
    (told,) = ward.told
    assert told.endswith("; it has never answered, so it is not restarted; vmhost guest console web-01")


@pytest.mark.parametrize(
    "where", [("shell", "connect"), ("hypervisor", "agent")], ids=["refused", "an error of the agent"]
)
def test_one_of_whom_something_is_heard_is_told_of_only(ward: Ward, where: tuple[str, str]) -> None:
    """A connection that is refused, a jump host that is down, an agent that answers with an error: no silence."""
    ward.hangs()
    fails(ward, where, lambda _: Unreachable("connection refused") if where[0] == "shell" else DriverError("no"))
    ward.pass_seconds(600)
    assert ward.stops == []
    (told,) = ward.told
    assert told.endswith("; that is not plain silence, so it is not restarted; vmhost guest console web-01")


def test_a_look_that_took_longer_than_it_could_is_the_fault_of_the_host(ward: Ward) -> None:
    ward.hangs()
    at(ward, ("hypervisor", "agent"), lambda: ward.fake.advance(20))
    ward.pass_seconds(600)
    assert (ward.told, ward.stops) == ([], [])


def test_one_whose_agent_was_ended_in_order_is_told_of_only_after_a_start_period(ward: Ward) -> None:
    """It shuts down or reboots from inside; a hang leaves the channel open."""
    began = ward.fake.world.now
    ward.fake.behave("web-01", agent=False, ssh=False)
    ward.pass_seconds(65)
    assert ward.told == []
    ward.pass_seconds(900)
    assert ward.stops == []
    (told,) = ward.told
    assert "its agent was ended in order" in told
    ward.fake.behave("web-01")
    ward.pass_seconds(20)
    ward.hangs()
    ward.pass_seconds(300)
    assert "power_off" in ward.stops, "one whose agent is back is watched as before"
    assert ward.fake.world.now > began


def test_one_that_reboots_has_its_start_period(ward: Ward) -> None:
    ward.hangs()
    ward.watch.reboots()
    ward.pass_seconds(65)
    assert ward.told == []
    ward.pass_seconds(300)
    assert "power_off" in ward.stops, "one that hangs after it is lost all the same"


def pauses(ward: Ward) -> None:
    next(iter(ward.fake.world.domains.values())).state = DomainState.PAUSED


def changes(ward: Ward) -> None:
    ward.host.apply(ward.host.plan(site(BEATING.replace("restart: true", "restart: false"))))


@pytest.mark.parametrize("how", [pauses, changes])
def test_what_excuses_it_is_looked_at_under_the_lock_again(ward: Ward, how: Callable[[Ward], None]) -> None:
    done: list[bool] = []

    def once() -> None:
        if not done:
            done.append(True)
            how(ward)

    ward.hangs()
    at(ward, ("packet", "table"), once)  # the host is looked at for the restart
    ward.pass_seconds(100)
    assert done
    assert ward.stops == []


def test_the_hosts_lock_is_free_while_the_guest_is_asked_for_the_last_time(ward: Ward) -> None:
    seen: list[str] = []

    def take() -> None:
        def other() -> None:
            try:
                with ward.fake.locks.host(NOT_AT_ALL):
                    seen.append("free")
            except Conflict:
                seen.append("held")

        thread = threading.Thread(target=other)
        thread.start()
        thread.join(20)

    ward.hangs()
    at(ward, ("hypervisor", "agent"), take)
    ward.pass_seconds(100)
    assert "power_off" in ward.stops
    assert set(seen) == {"free"}


def test_what_an_earlier_watch_tried_counts(ward: Ward) -> None:
    ward.mends = False
    ward.hangs()
    ward.pass_seconds(100)
    assert ward.stops.count("power_off") == 1
    later = HeartWatch(ward.fake.ports, threading.Lock(), "web-01", lambda _: None)
    later.take(ward.watch._heart)  # type: ignore[arg-type]
    assert later._care.tries == 1
    ward.fake.advance(700)
    later = HeartWatch(ward.fake.ports, threading.Lock(), "web-01", lambda _: None)
    later.take(ward.watch._heart)  # type: ignore[arg-type]
    assert later._care.tries == 0


def test_a_watch_brings_back_what_a_killed_one_left_off(ward: Ward) -> None:
    ward.hangs()

    def at_start(port: str, method: str) -> bool:
        return (port, method) == ("hypervisor", "start") and not ward.fake.domain("web-01").state.active

    ward.watch._ports = FaultyPorts(ward.fake.ports, FaultPlan(0, only=at_start)).ports
    with pytest.raises(SimulatedKill):
        ward.pass_seconds(100)
    ward.fake.die()
    assert not ward.fake.domain("web-01").state.active
    healer = Host(ports=ward.fake.ports).services.watch(lambda _: None)
    healer.stop()
    healer.run()
    assert ward.fake.domain("web-01").state.active


def test_agents_that_hang_leave_libvirt_to_others(ward: Ward) -> None:
    """It carries out five requests of one client at once."""
    guard, answer = threading.Lock(), threading.Event()
    inside, most = 0, 0

    def wait() -> None:
        nonlocal inside, most
        with guard:
            inside += 1
            most = max(most, inside)
        assert answer.wait(20)
        with guard:
            inside -= 1

    at(ward, ("hypervisor", "agent"), wait)
    heart = next(hearts(ward.fake.ports))
    threads = [threading.Thread(target=ask, args=(heart.domain, heart.spec, ward.watch._ports)) for _ in range(6)]
    for thread in threads:
        thread.start()
    wait_for(lambda: inside == 3)
    answer.set()
    for thread in threads:
        thread.join(20)
    assert most == 3


def test_a_reboot_that_libvirt_tells_of_reaches_the_watch_of_its_guest(ward: Ward) -> None:
    healer = ward.host.services.watch(lambda _: None)
    healer._refresh()
    thread = healer._hearts["web-01"]
    thread.end()
    thread.join(20)
    healer._on_domain(DomainEvent(ward.fake.domain("web-01").uuid, "web-01", "rebooted"))
    assert thread.watch._rebooted.is_set()
