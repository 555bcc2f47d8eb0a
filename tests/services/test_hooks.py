"""Commands around a freeze: when they run, what they are worth, and that services go on whatever happens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import pytest

from tests.services.shop import NGINX, Shop
from vmhost.engine.services import hooks
from vmhost.engine.services.hooks import run_hook
from vmhost.model.errors import DriverError, GuestError, Silent, VmhostError
from vmhost.model.events import Event, Notice
from vmhost.model.guestops import GuestCommand
from vmhost.model.services import DeployedService
from vmhost.model.shell import CommandResult
from vmhost.model.spec.service import ServiceState
from vmhost.ops.apply import recover_host
from vmhost.ops.host import Host
from vmhost.ops.proposals import Proposal
from vmhost.render.service import state_of
from vmhost.testing import FaultPlan, FaultyPorts, SimulatedKill
from vmhost.testing.commands import Inside, Ran
from vmhost.testing.faults import Call, driver_error

TWO = (
    NGINX.replace("[web-01, web-02]", "[web-01]")
    + """\
    hooks: {pre_freeze: [hook, nginx, pause], post_thaw: [hook, nginx, resume]}
  app:
    guests: [web-01]
    hooks: {pre_freeze: [hook, app, pause], post_thaw: [hook, app, resume]}
  silent:
    guests: [web-01]
"""
)


@dataclass
class Stage:
    """A guest with two services that are told of freezes: what they heard, who is paused, and who says no to what."""

    shop: Shop = field(default_factory=Shop)
    heard: list[str] = field(default_factory=list)
    paused: set[str] = field(default_factory=set)
    refuses: set[tuple[str, str]] = field(default_factory=set)
    notices: tuple[str, ...] = ()
    error: VmhostError | None = None

    def __post_init__(self) -> None:
        self.shop.fake.programs["hook"] = self.hook
        self.shop.deploy(TWO)

    def hook(self, inside: Inside, arguments: Sequence[str], _: bytes) -> Ran:
        service, what = arguments
        assert inside.user == "root"
        assert not self.frozen, f"{service} is told to {what} while its file systems are frozen"
        self.heard.append(f"{what} {service}")
        if (service, what) in self.refuses:
            return Ran(stderr=b"no\x1b[2J\n", exit_code=3)
        (self.paused.add if what == "pause" else self.paused.discard)(service)
        return Ran()

    @property
    def host(self) -> Host:
        return self.shop.host

    @property
    def frozen(self) -> int:
        return next(one.frozen for one in self.shop.fake.world.domains.values() if one.name == "web-01")

    @property
    def level(self) -> str:
        return self.host.snapshots.list("web-01")[-1].level

    def take(self, name: str = "one") -> Stage:
        said: list[Event] = []
        try:
            self.host.apply(self.host.snapshots.plan_create("web-01", name), on_event=said.append)
        except VmhostError as error:
            self.error = error
        self.notices = tuple(event.text for event in said if isinstance(event, Notice))
        return self


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_services_are_told_before_the_freeze_and_after_the_thaw(stage: Stage) -> None:
    plan = str(stage.host.snapshots.plan_create("web-01", "one"))
    order = ["get ready: app, nginx", "freeze its", "at one instant", "thaw its", "go on: app, nginx", "note snap"]
    assert [plan.index(text) for text in order] == sorted(plan.index(text) for text in order)
    stage.take()
    assert stage.heard == ["pause app", "pause nginx", "resume nginx", "resume app"]
    assert (stage.level, stage.error, stage.notices) == ("application", None, ())


def test_a_backup_does_the_same_and_notes_the_level(stage: Stage) -> None:
    stage.host.apply(stage.host.backups.plan("web-01"))
    assert stage.heard == ["pause app", "pause nginx", "resume nginx", "resume app"]
    assert [point.level for point in stage.host.backups.list("web-01")] == ["application"]
    stage.refuses = {("app", "pause")}
    stage.host.apply(stage.host.backups.plan("web-01"))
    assert {point.level for point in stage.host.backups.list("web-01")} == {"application", "filesystem"}
    assert stage.paused == set()


def test_one_that_is_not_ready_costs_the_level_and_is_told(stage: Stage) -> None:
    stage.refuses = {("app", "pause")}
    stage.take()
    assert stage.heard == ["pause app", "pause nginx", "resume nginx", "resume app"]
    assert (stage.level, stage.error) == ("filesystem", None)
    assert stage.notices == ("pre_freeze of app ended with 3: no\\x1b[2J",)


def test_services_that_were_ready_are_worth_nothing_without_the_freeze(stage: Stage) -> None:
    stage.shop.fake.behave("web-01", freezes="garbage")
    stage.take()
    assert (stage.level, stage.error, stage.paused) == ("crash", None, set())


def test_where_nothing_is_frozen_nobody_is_told(stage: Stage) -> None:
    assert "get ready" not in str(stage.host.snapshots.plan_create("web-01", "one", quiesce=False))
    stage.shop.fake.behave("web-01", agent=False)
    stage.take()
    assert (stage.level, stage.heard) == ("crash", [])


def test_one_that_does_not_go_on_is_asked_again_and_then_reported(stage: Stage) -> None:
    stage.refuses = {("app", "resume")}
    stage.take()
    assert isinstance(stage.error, GuestError)
    assert "app was not let go on: post_thaw of app ended with 3: no" in stage.error.message
    assert stage.error.hint == "vmhost snapshot thaw web-01"
    assert stage.heard[2:] == ["resume nginx", "resume app", "resume app"], "who went on is not asked again"
    assert (stage.level, stage.paused) == ("application", {"app"}), "the snapshot is good all the same"
    stage.refuses = set()
    stage.host.apply(stage.host.snapshots.plan_thaw("web-01"))
    assert stage.paused == set()


def test_services_of_a_guest_that_nobody_thaws_are_let_go_on_with_it(stage: Stage) -> None:
    stage.shop.fake.behave("web-01", freezes="dies", dead_man=False)
    stage.take()
    assert isinstance(stage.error, GuestError)
    assert "FROZEN" in stage.error.message
    assert stage.paused == {"app", "nginx"}
    stage.shop.fake.behave("web-01")
    stage.host.apply(stage.host.snapshots.plan_thaw("web-01"))
    assert (stage.frozen, stage.paused) == (0, set())


def test_who_is_not_reached_is_let_go_on_by_whoever_recovers(stage: Stage) -> None:
    def snapshots(port: str, method: str) -> bool:
        if (port, method) == ("hypervisor", "snapshot_disks"):
            stage.shop.fake.behave("web-01", ssh=False)
        return (port, method) == ("hypervisor", "snapshot_disks")

    faulty = FaultyPorts(stage.shop.fake.ports, FaultPlan(0, error=driver_error, only=snapshots))
    host = Host(ports=faulty.ports)
    with pytest.raises(VmhostError) as failed:
        host.apply(host.snapshots.plan_create("web-01", "one"))
    assert "vmhost snapshot thaw web-01" in str(getattr(failed.value, "leftovers", ""))
    assert (stage.frozen, stage.paused) == (0, {"app", "nginx"})
    stage.shop.fake.behave("web-01", ssh=True)
    recover_host(stage.shop.fake.ports)
    assert stage.paused == set()
    assert not stage.shop.fake.ports.journals.any_open()


def test_a_guest_that_ended_meanwhile_holds_nobody_up(stage: Stage) -> None:
    faulty = FaultyPorts(stage.shop.fake.ports, FaultPlan(0, only=lambda _, method: method == "snapshot_disks"))
    host = Host(ports=faulty.ports)
    with pytest.raises(SimulatedKill):
        host.apply(host.snapshots.plan_create("web-01", "one"))
    stage.shop.fake.die()
    stage.shop.fake.hypervisor.power_off(stage.shop.fake.domain("web-01").uuid)
    recover_host(stage.shop.fake.ports)
    assert not stage.shop.fake.ports.journals.any_open()


OPERATIONS: dict[str, Callable[[Host], Proposal]] = {
    "snapshot": lambda host: host.snapshots.plan_create("web-01", "one"),
    "backup": lambda host: host.backups.plan("web-01"),
}


def interrupt(_: Call) -> BaseException:
    return KeyboardInterrupt()


@pytest.mark.parametrize(
    ("operation", "how"), [("snapshot", "fault"), ("snapshot", "kill"), ("snapshot", "Ctrl-C"), ("backup", "kill")]
)
def test_whatever_happens_everybody_goes_on(stage: Stage, operation: str, how: str) -> None:
    """At every call from the first hook to what follows the last: nobody stays paused, and nothing frozen."""
    propose, fake = OPERATIONS[operation], stage.shop.fake
    counting = FaultyPorts(fake.ports)
    Host(ports=counting.ports).apply(propose(Host(ports=counting.ports)))
    hooks = [call.number for call in counting.calls if (call.port, call.method) == ("session", "run")]
    assert len(hooks) == 4
    _forget(stage)
    places: tuple[Literal["before", "after"], ...] = ("before", "after")
    for number in range(hooks[0] - 1, hooks[-1] + 5):
        for place in places:
            error = {"fault": driver_error, "kill": None, "Ctrl-C": interrupt}[how]
            faulty = FaultyPorts(fake.ports, FaultPlan(number, place, error=error))
            host = Host(ports=faulty.ports)
            try:
                host.apply(propose(host))
            except (VmhostError, KeyboardInterrupt, SimulatedKill):
                fake.die()
            recover_host(fake.ports)
            where = f"{number} of {len(counting.calls)} {place}: {faulty.struck()}"
            assert (stage.paused, stage.frozen) == (set(), 0), where
            assert not fake.ports.journals.any_open(), where
            _forget(stage)


def _forget(stage: Stage) -> None:
    for row in stage.host.snapshots.list("web-01"):
        stage.host.apply(stage.host.snapshots.plan_delete("web-01", row.name))


def test_cancelled_between_two_hooks_the_first_goes_on_again(stage: Stage) -> None:
    with pytest.raises(VmhostError, match="cancelled"):
        stage.host.apply(stage.host.snapshots.plan_create("web-01", "one"), cancelled=lambda: bool(stage.heard))
    assert stage.heard == ["pause app", "resume nginx", "resume app"]
    assert stage.paused == set()


def test_a_script_runs_them_by_itself_and_a_failure_keeps_nobody(stage: Stage) -> None:
    stage.refuses = {("app", "pause")}
    before = stage.shop.services.hooks("web-01", "pre_freeze")
    after = stage.shop.services.hooks("web-01", "post_thaw")
    assert stage.heard == ["pause app", "pause nginx", "resume nginx", "resume app"]
    assert [result.text for result in before] == ["pre_freeze of app ended with 3: no\\x1b[2J", "pre_freeze done"]
    assert isinstance(before[0].error, DriverError)
    assert [result.error for result in after] == [None, None]
    stage.shop.fake.behave("web-01", ssh=False)
    stage.shop.services.close()
    assert {type(result.error) for result in stage.shop.services.hooks("web-01", "pre_freeze")} == {Silent}


def test_a_guest_that_was_thawed_in_vain_is_thawed_by_whoever_recovers(stage: Stage) -> None:
    fake = stage.shop.fake
    fake.behave("web-01", freezes="dies", dead_man=False)
    faulty = FaultyPorts(fake.ports, FaultPlan(0, only=lambda _, method: method == "set_metadata"))
    host = Host(ports=faulty.ports)
    with pytest.raises(SimulatedKill):
        host.apply(host.snapshots.plan_create("web-01", "one"))
    assert stage.frozen
    fake.die()
    fake.behave("web-01", freezes="", dead_man=False)  # the agent is back
    recover_host(fake.ports)
    assert (stage.frozen, stage.paused, fake.ports.journals.any_open()) == (0, set(), False)


def test_while_nobody_thaws_it_no_service_is_told_to_go_on(stage: Stage) -> None:
    fake = stage.shop.fake
    fake.behave("web-01", freezes="dies", dead_man=False)
    faulty = FaultyPorts(fake.ports, FaultPlan(0, only=lambda _, method: method == "snapshot_disks"))
    host = Host(ports=faulty.ports)
    with pytest.raises(SimulatedKill):
        host.apply(host.snapshots.plan_create("web-01", "one"))
    fake.die()
    recover_host(fake.ports)
    assert stage.frozen
    assert stage.heard == ["pause app", "pause nginx"]
    assert fake.ports.journals.any_open(), "the next command tries it again"
    fake.behave("web-01", freezes="", dead_man=False)
    recover_host(fake.ports)
    assert (stage.frozen, stage.paused, fake.ports.journals.any_open()) == (0, set(), False)


def test_a_service_that_a_person_stopped_is_left_alone(stage: Stage) -> None:
    stage.shop.services.act(["nginx"], "stop")
    stage.take()
    assert stage.heard == ["pause app", "resume app"]


def test_the_guest_itself_ends_a_hook_and_never_runs_two_of_a_service_at_once(stage: Stage) -> None:
    asked: list[tuple[str, ...]] = []
    metadata = next(one.metadata for one in stage.host.observe().domains if one.name == "web-01")
    assert metadata is not None
    state = next(state for one in metadata.services if (state := state_of(one)) and state.name == "nginx")

    class Recording:
        """Lines that note what is run, and say that its time was up."""

        def run(self, guest: str, command: GuestCommand) -> CommandResult:
            asked.append(command.argv)
            assert command.timeout > 2 * 30, "we wait for the lock, and for the hook"
            return CommandResult(command.argv, 124, None, b"", b"", truncated=False, seconds=30.0)

    with pytest.raises(DriverError, match="pre_freeze of nginx had not ended after 30 s"):
        run_hook(Recording(), "web-01", state, "pre_freeze")  # type: ignore[arg-type]
    lock = "/run/vmhost-nginx.hook"
    assert asked == [("flock", "-o", "-w", "32", lock, "timeout", "-k", "2", "30", "hook", "nginx", "pause")]


def test_a_service_that_does_not_go_on_costs_no_point_and_no_night(stage: Stage) -> None:
    stage.refuses = {("app", "resume")}
    (result,) = stage.host.backups.run(["web-01"])
    assert isinstance(result.error, GuestError)
    assert result.point is not None
    (night,) = stage.host.backups.nightly.run(["web-01"]).guests
    assert (night.failed, "app was not let go on" in night.error) == ("backup", True)
    verified = [point.id for point in stage.host.backups.list("web-01") if point.verified]
    assert verified == [result.point.id, night.point], "what the new one lies on was read, too"


def test_a_service_that_a_newer_vmhost_deployed_costs_the_level_and_is_told(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def older(deployed: DeployedService) -> ServiceState | None:
        return None if deployed.name == "silent" else state_of(deployed)

    monkeypatch.setattr(hooks, "state_of", older)
    stage.take()
    assert (stage.level, stage.error, stage.paused) == ("filesystem", None, set())
    assert stage.notices == ("a newer vmhost deployed silent: it is not told of the freeze",)
