"""Freezing and thawing: what a snapshot is worth, whatever the guest's agent does, and how long that may take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.engine.scenes import WEB, site, standing
from vmhost.model.errors import Absent, ApplyError, DriverError, GuestError, Refused, VmhostError
from vmhost.model.events import Event, Notice
from vmhost.ops.apply import recover_host
from vmhost.ops.host import Host
from vmhost.testing import FakeHost, FaultPlan, FaultyPorts, SimulatedKill, freezing
from vmhost.testing.commands import Ran
from vmhost.testing.faults import Call, driver_error

BOUND = 60.0
"""Seconds that an operation on one guest may take with the worst agent."""


@dataclass
class Stage:
    """A guest, and what was said and how long it took when a snapshot of it was taken."""

    fake: FakeHost
    host: Host
    error: VmhostError | None = None
    notices: tuple[str, ...] = ()
    seconds: float = 0.0

    def take(self, **behaviour: object) -> Stage:
        """Take a snapshot of a guest that behaves so."""
        self.fake.behave("web-01", **behaviour)
        said: list[Event] = []
        began = self.fake.machine.monotonic()
        try:
            self.host.apply(self.host.snapshots.plan_create("web-01", "one"), on_event=said.append)
        except VmhostError as error:
            self.error = error
        self.seconds = self.fake.machine.monotonic() - began
        self.notices = tuple(event.text for event in said if isinstance(event, Notice))
        return self

    @property
    def level(self) -> str:
        (row,) = self.host.snapshots.list("web-01")
        return row.level

    @property
    def frozen(self) -> int:
        domain = next(one for one in self.fake.world.domains.values() if one.name == "web-01")
        freezing.thaw_on_time(self.fake.world, domain)
        return domain.frozen

    @property
    def flags(self) -> tuple[str, ...]:
        return self.host.guest("web-01").row.flags


@pytest.fixture
def stage() -> Stage:
    fake = standing(WEB, seed=7)
    return Stage(fake, Host(ports=fake.ports))


def test_file_systems_are_frozen_for_the_instant_only(stage: Stage) -> None:
    plan = str(stage.host.snapshots.plan_create("web-01", "one"))
    assert plan.index("freeze its") < plan.index("at one instant") < plan.index("thaw its")
    stage.take()
    assert (stage.level, stage.frozen, stage.error, stage.notices) == ("filesystem", 0, None, ())
    assert stage.seconds < 1


def test_programs_that_are_told_before_make_it_the_level_of_applications(stage: Stage) -> None:
    system = next(v.system for _, v in stage.fake.world.volumes() if v.system)
    system.files["/etc/qemu/fsfreeze-hook"] = b"#!/bin/sh\n"
    assert stage.take().level == "application"


def test_without_an_agent_it_is_what_a_power_cut_leaves(stage: Stage) -> None:
    stage.fake.behave("web-01", agent=False)
    assert "freeze" not in str(stage.host.snapshots.plan_create("web-01", "one"))
    with pytest.raises(Refused, match="agent is not connected"):
        stage.host.snapshots.plan_create("web-01", "one", quiesce=True)
    assert stage.take(agent=False).level == "crash"


def test_who_does_not_want_it_is_not_frozen(stage: Stage) -> None:
    proposal = stage.host.snapshots.plan_create("web-01", "one", quiesce=False)
    assert "freeze" not in str(proposal)
    stage.host.apply(proposal)
    assert stage.level == "crash"


@pytest.mark.parametrize("how", ["silent", "late", "garbage"])
def test_a_bad_agent_costs_the_level_and_bounded_time(stage: Stage, how: str) -> None:
    stage.take(freezes=how)
    assert stage.level == "crash"
    assert any("not quiesced" in text for text in stage.notices)
    assert stage.seconds < BOUND
    if how == "silent":  # it answers nothing about freezing, so nobody knows
        assert isinstance(stage.error, GuestError)
        assert "FROZEN" in stage.flags
    else:
        assert (stage.error, stage.frozen) == (None, 0)


@pytest.mark.parametrize("how", ["silent", "late", "garbage"])
def test_a_freeze_that_is_required_and_not_reached_undoes_everything(stage: Stage, how: str) -> None:
    stage.fake.behave("web-01", freezes=how)
    with pytest.raises(ApplyError, match="were not frozen"):
        stage.host.apply(stage.host.snapshots.plan_create("web-01", "one", quiesce=True))
    assert stage.host.snapshots.list("web-01") == ()
    assert stage.host.plan(site(WEB)).empty
    # Whether it froze is not known of the one that says nothing about freezing; that is told until it is known.
    assert ("FROZEN" in stage.flags) == stage.fake.ports.journals.any_open() == (how == "silent")


def test_an_agent_that_dies_between_freeze_and_thaw_is_outlived_by_the_dead_man(stage: Stage) -> None:
    stage.take(freezes="dies")
    assert (stage.error, stage.frozen) == (None, 0)
    assert stage.level == "filesystem", "the snapshot was taken long before the dead-man's time"
    assert stage.seconds < BOUND


def test_what_thawed_before_the_snapshot_is_not_quiesced(stage: Stage) -> None:
    def slow(port: str, method: str) -> bool:
        if (port, method) == ("hypervisor", "snapshot_disks"):
            stage.fake.advance(11)  # longer than the dead-man waits
        return False

    stage.host = Host(ports=FaultyPorts(stage.fake.ports, FaultPlan(only=slow)).ports)
    stage.take()
    assert (stage.level, stage.error, stage.frozen) == ("crash", None, 0)
    assert any("thawed before" in text for text in stage.notices)


def test_without_a_dead_man_ssh_thaws(stage: Stage) -> None:
    (domain,) = stage.fake.world.domains.values()

    def sh(*_: object) -> Ran:
        freezing.thaw(stage.fake.world, domain)
        return Ran()

    stage.fake.programs["sh"] = sh
    stage.take(freezes="dies", dead_man=False)
    assert (stage.error, stage.frozen) == (None, 0)


def test_what_nobody_can_thaw_is_reported_first_with_the_remedy(stage: Stage) -> None:
    stage.host.apply(stage.host.plan(site(WEB, WEB.replace("web-01", "a-first"))))
    stage.take(freezes="dies", dead_man=False)
    assert isinstance(stage.error, GuestError)
    assert "vmhost snapshot thaw web-01" in stage.error.hint
    assert [row.name for row in stage.host.guests()] == ["web-01", "a-first"]
    assert stage.flags[0] == "FROZEN"
    assert [row.name for row in stage.host.snapshots.list("web-01")] == ["one"], "the snapshot is there"
    assert not stage.fake.ports.journals.any_open()

    with pytest.raises(ApplyError):
        stage.host.apply(stage.host.snapshots.plan_thaw("web-01"))
    assert stage.flags[0] == "FROZEN"
    stage.fake.behave("web-01")
    stage.host.apply(stage.host.snapshots.plan_thaw("web-01"))
    assert (stage.frozen, stage.flags) == (0, ())


def test_an_agent_that_only_says_that_it_thaws_is_not_believed(stage: Stage) -> None:
    """It answers that nothing was frozen any more, and then, asked, that all is."""
    stage.take(freezes="lies", dead_man=False)
    assert isinstance(stage.error, GuestError)
    assert stage.flags[0] == "FROZEN"
    assert stage.frozen
    assert stage.seconds <= BOUND


def test_who_only_says_that_it_thaws_is_outlived_by_the_dead_man(stage: Stage) -> None:
    stage.take(freezes="lies")
    assert (stage.error, stage.frozen, stage.flags, stage.level) == (None, 0, (), "filesystem")


def test_a_guest_that_was_powered_off_is_no_longer_frozen(stage: Stage) -> None:
    stage.take(freezes="dies", dead_man=False)
    assert stage.flags[0] == "FROZEN"
    stage.host.power(["web-01"], "power-off")
    assert stage.flags == ()
    stage.host.power(["web-01"], "start")
    assert stage.flags == (), "what runs now was never frozen"
    stage.host.power(["web-01"], "power-off")
    with pytest.raises(Refused, match="nothing of it is frozen"):
        stage.host.snapshots.plan_thaw("web-01")


def test_whoever_is_killed_leaves_no_frozen_guest(stage: Stage) -> None:
    """At every call from the freeze to the end; the dead-man sleeps, so only the next command thaws."""
    counting = FaultyPorts(stage.fake.ports)
    Host(ports=counting.ports).apply(Host(ports=counting.ports).snapshots.plan_create("web-01", "zero"))
    first = next(c.number for c in counting.calls if c.method == "agent" and "freeze" in c.arguments)
    for number in range(first, len(counting.calls)):
        for place in ("before", "after"):
            stage.fake.behave("web-01", dead_man=False)
            faulty = FaultyPorts(stage.fake.ports, FaultPlan(number, place))  # type: ignore[arg-type]
            host = Host(ports=faulty.ports)
            try:
                host.apply(host.snapshots.plan_create("web-01", "one"))
            except SimulatedKill:
                stage.fake.die()
            recover_host(stage.fake.ports)
            where = f"{number} of {len(counting.calls)} {place}"
            assert stage.frozen == 0, where
            assert "FROZEN" not in stage.flags, where
            if any(row.name == "one" for row in stage.host.snapshots.list()):
                stage.host.apply(stage.host.snapshots.plan_delete("web-01", "one"))


def test_whoever_is_killed_is_outlived_by_a_guard_that_thaws_at_once(stage: Stage) -> None:
    stage.fake.behave("web-01", dead_man=False)
    faulty = FaultyPorts(stage.fake.ports, FaultPlan(0, only=lambda _, method: method == "snapshot_disks"))
    host = Host(ports=faulty.ports)
    with pytest.raises(SimulatedKill):
        host.apply(host.snapshots.plan_create("web-01", "one"))
    assert stage.frozen
    stage.fake.die()
    assert not stage.frozen, "nobody has recovered yet"


def absent(call: Call) -> DriverError:
    """Return what is raised where a program is not installed."""
    return Absent(f"injected fault at {call.port}.{call.method}")


@pytest.mark.parametrize("error", [driver_error, absent])
def test_without_a_guard_nothing_is_frozen(stage: Stage, error: Callable[[Call], DriverError]) -> None:
    faulty = FaultyPorts(stage.fake.ports, FaultPlan(0, error=error, only=lambda port, _: port == "thawing"))
    stage.host = Host(ports=faulty.ports)
    stage.take()
    assert (stage.level, stage.error, stage.frozen) == ("crash", None, 0)
    assert any("not quiesced: injected fault at thawing.arm" in text for text in stage.notices)


def killed_when_frozen(stage: Stage) -> None:
    """Die when the guest is frozen, which has no dead-man and whose agent dies, too."""
    stage.fake.behave("web-01", freezes="dies", dead_man=False)
    faulty = FaultyPorts(stage.fake.ports, FaultPlan(0, only=lambda _, method: method == "snapshot_disks"))
    host = Host(ports=faulty.ports)
    with pytest.raises(SimulatedKill):
        host.apply(host.snapshots.plan_create("web-01", "one"))
    stage.fake.die()
    assert stage.frozen


def test_whoever_recovers_thaws_over_ssh_where_the_agent_is_dead(stage: Stage) -> None:
    killed_when_frozen(stage)
    (domain,) = stage.fake.world.domains.values()

    def sh(*_: object) -> Ran:
        freezing.thaw(stage.fake.world, domain)
        return Ran()

    stage.fake.programs["sh"] = sh
    recover_host(stage.fake.ports)
    assert (stage.frozen, stage.flags) == (0, ())
    assert not stage.fake.ports.journals.any_open()


def test_what_was_thawed_is_not_thawed_again_by_whoever_recovers(stage: Stage) -> None:
    faulty = FaultyPorts(stage.fake.ports, FaultPlan(0, only=lambda _, method: method == "set_metadata"))
    host = Host(ports=faulty.ports)
    proposal = host.snapshots.plan_create("web-01", "one")
    last = max(n for n, item in enumerate(proposal.plan.steps) if type(item.do).__name__ == "KeepSnapshots")
    thaw = max(n for n, item in enumerate(proposal.plan.steps) if type(item.do).__name__ == "Thaw")
    assert thaw < last, "the records are written when the guest is thawed"
    with pytest.raises(SimulatedKill):
        host.apply(proposal)
    stage.fake.die()
    stage.fake.behave("web-01", freezes="garbage")  # an agent that nobody would get a word out of
    began = stage.fake.machine.monotonic()
    recover_host(stage.fake.ports)
    assert stage.flags == ()
    assert stage.fake.machine.monotonic() - began < 1
