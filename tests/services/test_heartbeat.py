"""Heartbeats of guests on a fake host: what counts as lost, who is restarted when, and who never is."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from tests.engine.scenes import OTHER, WEB, site
from tests.plan.happenings import happen, lay_over
from vmhost.model.errors import DriverError
from vmhost.model.events import Event, Notice
from vmhost.model.observed import DomainState
from vmhost.ops.heartbeat import HeartWatch, hearts
from vmhost.ops.host import Host
from vmhost.ops.jobs import Job
from vmhost.testing import FakeHost, FaultPlan, FaultyPorts
from vmhost.testing.faults import driver_error

BEATING = WEB + "    heartbeat: {misses: 3, restart: true, start_period: 1m, tries: 2, backoff: 30s, quiet: 10m}\n"


def wait_for(what: Callable[[], object]) -> None:
    end = time.monotonic() + 50
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


class Ward:
    """A watch over web-01 that a test turns by hand; ``mends`` says whether a start makes the guest well again."""

    def __init__(self, text: str = BEATING, speed: float = 0.0) -> None:
        self.fake = FakeHost(seed=7, speed=speed)
        self.fake.add_image("debian-12")
        self.host = Host(ports=self.fake.ports)
        self.host.apply(self.host.plan(site(text)))
        self.mends = True
        self.told: list[str] = []
        self.stops: list[str] = []
        self.alone = threading.Lock()
        ports = FaultyPorts(self.fake.ports, FaultPlan(only=self._seen)).ports
        self.watch = HeartWatch(ports, self.alone, "web-01", self._hear)
        self.refresh()

    def _seen(self, port: str, method: str) -> bool:
        if port == "hypervisor" and method in ("shut_down", "power_off"):
            self.stops.append(method)
        if (port, method) == ("hypervisor", "start") and self.mends and not self.fake.domain("web-01").state.active:
            self.fake.behave("web-01")
        return False

    def _hear(self, event: Event) -> None:
        assert isinstance(event, Notice)
        self.told.append(event.text)

    def refresh(self) -> None:
        self.watch.take(next(heart for heart in hearts(self.fake.ports) if heart.domain.name == "web-01"))

    def hangs(self, **how: object) -> None:
        self.fake.behave("web-01", **{"hangs": True, "obeys": False, **how})

    def pass_seconds(self, seconds: float) -> None:
        end = self.fake.world.now + seconds
        while (now := self.fake.world.now) < end:
            self.fake.advance(min(self.watch.turn() or 0.1, end - now))

    @property
    def run(self) -> str:
        return self.fake.domain("web-01").live_xml.partition("id=")[2][:4]


@pytest.fixture
def ward() -> Ward:
    made = Ward()
    made.pass_seconds(30)
    assert made.told == []
    return made


def test_a_guest_that_hangs_is_powered_off_and_started_and_the_time_is_told(ward: Ward) -> None:
    ward.hangs()
    ward.pass_seconds(300)
    assert set(ward.stops) == {"shut_down", "power_off"}, "it was asked first"
    lost, restarted, well = ward.told
    assert re.match(r"does not answer: 3 misses: agent: Guest agent is not .*; ssh: SSH at 10\.0\.0\.2 port 22", lost)
    assert restarted.startswith("restarted by powering it off (try 1 of 2): agent: Guest agent")
    seconds = re.fullmatch(r"answers again after (\d+\.\d) s and 1 try", well)
    assert seconds is not None
    assert 80 < float(seconds[1]) < 150, "3 looks with their time-outs, 30 s to shut down, and the boot"
    (job,) = (job for job in ward.host.jobs() if job.kind == "heartbeat web-01" and job.state == "done")
    assert any("since it does not answer: agent:" in line for line in ward.host.job_log(job.id))


def test_shorter_time_outs_than_libvirts_own_do_not_excuse_it() -> None:
    """libvirt greets an agent for five seconds, however short the time-out of the command is."""
    ward = Ward(WEB + "    heartbeat: {interval: 1s, timeout: 1s, misses: 3, restart: true, shutdown: 1s}\n")
    ward.pass_seconds(10)
    ward.hangs()
    ward.pass_seconds(60)
    assert any(text.startswith("restarted by powering it off (try 1 of 3)") for text in ward.told), ward.told


def test_one_that_would_start_without_what_it_wrote_is_not_stopped_and_the_watch_says_how_to_merge(ward: Ward) -> None:
    lay_over(ward.fake, "web-01", "root")
    happen(ward.fake, "defined-back web-01 root")
    ward.hangs()
    ward.pass_seconds(300)
    assert ward.stops == []
    told = next(text for text in ward.told if text.startswith("was not restarted (try 1 of 2): "))
    assert "which its definition does not name: the next start would go without what was written since" in told
    assert re.search(r"; virsh blockcommit web-01 vda --base \S+ --active --pivot$", told)


def test_one_that_hears_is_shut_down(ward: Ward) -> None:
    ward.hangs(obeys=True)
    ward.pass_seconds(200)
    assert set(ward.stops) == {"shut_down"}
    assert any(text.startswith("restarted by shutting it down (try 1 of 2)") for text in ward.told)


def test_tries_come_later_and_are_given_up(ward: Ward) -> None:
    ward.mends = False
    ward.hangs()
    ward.pass_seconds(3000)
    assert [text[:18] for text in ward.told] == [
        "does not answer: 3",
        "restarted by power",
        "restarted by power",
        "given up after 2 t",
    ]
    assert ward.stops.count("power_off") == 2
    ward.pass_seconds(3000)
    assert len(ward.told) == 4


def test_health_for_the_quiet_period_forgets_earlier_tries(ward: Ward) -> None:
    for _ in range(3):
        ward.hangs()
        ward.pass_seconds(900)
    assert [text for text in ward.told if "restarted" in text and "try 1 of 2" not in text] == []
    assert sum("answers again" in text for text in ward.told) == 3


def test_without_leave_it_is_only_told() -> None:
    ward = Ward(BEATING.replace("restart: true", "restart: false"))
    ward.pass_seconds(20)
    ward.hangs()
    ward.pass_seconds(600)
    assert ward.stops == []
    (told,) = ward.told
    assert told.endswith("; vmhost guest console web-01")
    ward.fake.behave("web-01")
    ward.pass_seconds(20)
    assert ward.told[1].startswith("answers again after 6")


def test_a_protected_guest_is_not_even_asked_to_shut_down() -> None:
    """It might hear when nobody waits for it any more, and stay off."""
    ward = Ward(BEATING + "    protect: true\n")
    ward.pass_seconds(20)
    ward.hangs()
    ward.pass_seconds(200)
    assert ward.stops == []
    (told,) = ward.told
    assert told.endswith("; it is protected, so it is not restarted; vmhost guest console web-01")


@pytest.mark.parametrize("way", ["agent", "ssh"])
def test_one_that_answers_by_either_way_is_well(ward: Ward, way: str) -> None:
    ward.fake.behave("web-01", agent=way == "agent", ssh=way == "ssh")
    ward.pass_seconds(300)
    assert ward.told == []


@pytest.mark.parametrize("way", ["agent", "ssh"])
def test_only_what_the_site_names_is_asked(way: str) -> None:
    ward = Ward(BEATING.replace("{misses", f"{{by: {way}, misses"))
    ward.pass_seconds(20)
    ward.fake.behave("web-01", agent=way != "agent", ssh=way != "ssh", obeys=True)
    ward.pass_seconds(300)
    assert ward.told[0].startswith(f"does not answer: 3 misses: {way}: ")
    assert "ssh: " not in ward.told[0] if way == "agent" else "agent: " not in ward.told[0]


def test_one_that_lets_nobody_in_is_alive(ward: Ward) -> None:
    ward.fake.behave("web-01", agent=False, host_key="ssh-ed25519 AAAAB3of-somebody-else")
    ward.pass_seconds(300)
    assert ward.told == []


def paused(ward: Ward, ends: ExitStack) -> None:
    domain = next(iter(ward.fake.world.domains.values()))
    domain.state = DomainState.PAUSED
    ends.callback(setattr, domain, "state", DomainState.RUNNING)


def frozen(ward: Ward, ends: ExitStack) -> None:
    ward.fake.behave("web-01", freezes="dies", dead_man=False)
    with pytest.raises(Exception, match="FROZEN"):
        ward.host.apply(ward.host.snapshots.plan_create("web-01", "one"))
    ends.callback(lambda: ward.host.apply(ward.host.snapshots.plan_thaw("web-01")))


def at_work(ward: Ward, ends: ExitStack) -> None:
    """Another vmhost holds the guest, as every job does: a backup, a migration, a restart."""
    uuid, held, over = ward.fake.domain("web-01").uuid, threading.Event(), threading.Event()

    def other() -> None:
        with ward.fake.locks.guests([uuid]):
            held.set()
            over.wait(60)

    thread = threading.Thread(target=other)
    thread.start()
    ends.callback(thread.join, 20)
    ends.callback(over.set)
    assert held.wait(20)


def another_is_restarted(ward: Ward, ends: ExitStack) -> None:
    ends.enter_context(ward.alone)


def another_watch_restarts_one(ward: Ward, ends: ExitStack) -> None:
    ends.enter_context(Job(ward.fake.ports, "heartbeat db-01", "db-01", None, None))


def pending(ward: Ward, ends: ExitStack) -> None:
    state, marked = "<vmhost:state/>", '<vmhost:state pending="yes"/>'
    ward.fake.edit("web-01", lambda xml: xml.replace(state, marked))
    ends.callback(ward.fake.edit, "web-01", lambda xml: xml.replace(marked, state))


def gone_from_libvirt(ward: Ward, ends: ExitStack) -> None:
    before = ward.watch._ports

    def only(port: str, method: str) -> bool:
        return (port, method) == ("hypervisor", "domain")

    ward.watch._ports = FaultyPorts(before, FaultPlan(0, error=driver_error, lasting=True, only=only)).ports
    ends.callback(setattr, ward.watch, "_ports", before)


@pytest.mark.parametrize(
    "how",
    [paused, frozen, at_work, another_is_restarted, another_watch_restarts_one, pending, gone_from_libvirt],
)
def test_it_is_left_alone_as_long_as_silence_means_nothing(ward: Ward, how: Callable[[Ward, ExitStack], None]) -> None:
    run = ward.run
    with ExitStack() as ends:
        how(ward, ends)
        if how is not frozen:
            ward.hangs()
        ward.pass_seconds(600)
        assert (ward.run, ward.stops) == (run, [])
        assert not [text for text in ward.told if "restarted" in text]
        ward.hangs() if how is not frozen else ward.fake.behave("web-01")
    if how is not frozen:
        ward.pass_seconds(300)
        assert "answers again" in ward.told[-1], "from then on it counts"


def test_one_that_boots_has_its_time(ward: Ward) -> None:
    ward.fake.behave("web-01", boot_seconds=50)
    ward.host.power(["web-01"], "power-off")
    ward.host.power(["web-01"], "start")
    ward.refresh()
    ward.stops.clear()
    ward.pass_seconds(300)
    assert (ward.told, ward.stops) == ([], [])


def test_one_that_does_not_come_up_is_lost_after_its_start_period(ward: Ward) -> None:
    ward.fake.behave("web-01", boots=False, obeys=False)
    ward.host.power(["web-01"], "power-off")
    ward.host.power(["web-01"], "start")
    ward.refresh()
    ward.pass_seconds(65)
    assert ward.told == []
    ward.pass_seconds(300)
    assert ward.told[0].startswith("does not answer")
    assert "answers again" in ward.told[-1]


def test_when_the_whole_host_stood_still_no_guest_is_to_blame(ward: Ward) -> None:
    ward.hangs()
    for _ in range(10):
        ward.watch.turn()
        ward.fake.advance(60)
    assert ward.told == []


def test_one_that_answers_at_the_last_moment_is_not_restarted(ward: Ward) -> None:
    """Between the last miss and the lock it was well again; another vmhost may have restarted it just as well."""
    ward.hangs()

    def observed(port: str, method: str) -> bool:
        if (port, method) == ("packet", "table"):  # the host is looked at
            ward.fake.behave("web-01")
        return False

    ward.watch._ports = FaultyPorts(ward.fake.ports, FaultPlan(only=observed)).ports
    run = ward.run
    ward.pass_seconds(100)
    assert (ward.run, ward.stops) == (run, [])
    assert ward.told[1].startswith("answers again after")


def test_a_watch_that_is_ended_begins_no_restart(ward: Ward) -> None:
    ward.hangs()
    ward.watch.end()
    ward.pass_seconds(200)
    assert ward.stops == []


def test_only_guests_that_want_it_are_watched_and_one_that_is_off_is_left_alone() -> None:
    ward = Ward(BEATING + OTHER)
    assert [heart.domain.name for heart in hearts(ward.fake.ports)] == ["web-01"]
    ward.pass_seconds(20)
    ward.host.power(["web-01"], "power-off")
    ward.refresh()
    ward.stops.clear()
    ward.pass_seconds(300)
    assert (ward.told, ward.stops) == ([], [])
    assert not ward.fake.domain("web-01").state.active


def test_the_watch_of_a_host_restarts_one_that_hangs() -> None:
    """Also when it looks for guests anew at the very moment at which that one is off."""
    ward = Ward(BEATING.replace("misses: 3", "misses: 3, interval: 1s"), speed=1.0)
    told: list[str] = []
    over = threading.Event()

    def hear(event: Event) -> None:
        assert isinstance(event, Notice)
        told.append(f"{event.subject}: {event.text}")
        if "answers again" in event.text:
            over.set()

    def look_anew(port: str, method: str) -> bool:
        if (port, method) == ("hypervisor", "start") and not ward.fake.domain("web-01").state.active:
            healer._refresh()
            ward.fake.behave("web-01", boot_seconds=1)
        return False

    ports = FaultyPorts(ward.fake.ports, FaultPlan(only=look_anew)).ports
    healer = Host(ports=ports).services.watch(hear)
    thread = threading.Thread(target=healer.run)
    thread.start()
    wait_for(lambda: healer._hearts and healer._hearts["web-01"].watch._lessons)  # it must have answered once
    ward.hangs()
    over.wait(50)
    healer.stop()
    thread.join(20)
    assert not thread.is_alive()
    assert any(text.startswith("web-01: restarted by powering it off (try 1 of 2)") for text in told), told
    assert any("answers again" in text and text.endswith(" and 1 try") for text in told), told


def test_a_change_of_it_is_noted_with_the_guest_and_touches_nothing_else(ward: Ward) -> None:
    run = ward.run
    proposal = ward.host.plan(site(BEATING.replace("misses: 3", "misses: 5, timeout: 2s")))
    assert "note heartbeat" in str(proposal)
    assert "-> timeout 2 s, misses 5, " in str(proposal)
    ward.host.apply(proposal)
    assert ward.run == run
    assert next(iter(hearts(ward.fake.ports))).spec.misses == 5
    assert ward.host.plan(site(BEATING.replace("misses: 3", "misses: 5, timeout: 2s"))).empty


def test_a_failure_of_libvirt_at_the_restart_is_told_and_counts(ward: Ward) -> None:
    ward.hangs()

    def power_off(port: str, method: str) -> bool:
        return (port, method) == ("hypervisor", "power_off")

    ward.watch._ports = FaultyPorts(
        ward.fake.ports, FaultPlan(0, error=lambda _: DriverError("no"), only=power_off)
    ).ports
    ward.pass_seconds(100)
    assert any(text.startswith("was not restarted (try 1 of 2): power off, since") for text in ward.told), ward.told
