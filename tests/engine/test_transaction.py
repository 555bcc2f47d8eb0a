"""A transaction: order, undo, the commit point, many guests, Ctrl-C, and two at once."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from typing import Any

import pytest

from tests.engine.scenes import BIGGER, HARM, OTHER, WEB, site, strict
from vmhost.cli.diagnostics import exit_code
from vmhost.engine import transaction
from vmhost.engine.context import Context
from vmhost.engine.record import Record
from vmhost.engine.transaction import Transaction
from vmhost.model.errors import (
    AlreadyThere,
    ApplyError,
    Cancelled,
    Conflict,
    DriverError,
    GuestError,
    PartlyDone,
    VmhostError,
)
from vmhost.model.events import Event, StepDone, StepFailed, StepStarted, Undone
from vmhost.model.permit import Permit
from vmhost.model.plan import Change, Plan, Planned
from vmhost.model.steps import CreateVolume, DeleteVolume, EnsurePool, Step
from vmhost.ops.apply import recover_host
from vmhost.ops.host import Host
from vmhost.testing import FakeHost, FaultPlan, FaultyPorts
from vmhost.testing.faults import Call, driver_error
from vmhost.testing.world import Volume


class Heard(list[Event]):
    """A listener."""

    def __call__(self, event: Event) -> None:
        self.append(event)

    def sentences(self, kind: type[Any]) -> list[str]:
        return [event.why for event in self if isinstance(event, kind)]


def fake_host(*guests: str) -> FakeHost:
    fake = FakeHost(seed=1)
    fake.add_image("debian-12")
    if guests:
        host = Host(ports=fake.ports)
        host.apply(host.plan(site(*guests)))
    return fake


def failing_at(fake: FakeHost, method: str, *, lasting_undo: str = "", error: Any = driver_error) -> Host:
    """Return a host on which one method fails, and another one, too, if it is named."""

    def only(port: str, called: str) -> bool:
        return port == "hypervisor" and called in (method, lasting_undo)

    faulty = FaultyPorts(fake.ports, FaultPlan(0, error=error, lasting=bool(lasting_undo), only=only))
    return Host(ports=faulty.ports)


def test_steps_are_done_in_order_and_undone_from_the_end() -> None:
    fake, heard = fake_host(), Heard()
    before = fake.state()
    host = failing_at(fake, "start")
    proposal = host.plan(site(WEB))
    with pytest.raises(ApplyError, match="web-01: start") as caught:
        host.apply(proposal, on_event=heard)
    sentences = [item.why for item in proposal.plan.steps]
    assert heard.sentences(StepStarted) == sentences
    assert heard.sentences(StepDone) == sentences[:-1]
    assert heard.sentences(StepFailed) == sentences[-1:]
    assert heard.sentences(Undone) == sentences[::-1]
    assert (caught.value.done, caught.value.undone) == (tuple(sentences[:-1]), tuple(sentences[::-1]))
    assert caught.value.leftovers == ()
    assert exit_code(caught.value) == 6
    assert fake.state() == before
    assert host.jobs()[0].state == "failed"


def test_what_was_there_before_us_is_not_undone() -> None:
    fake = fake_host()
    fake.hypervisor.create_pool("vmhost", "/srv")
    plan = Plan(
        "shop",
        (
            Planned(EnsurePool("new", "/srv/new"), None, Change.LIVE, "new", "new: pool"),
            Planned(CreateVolume("vmhost", "x", 1), DeleteVolume("vmhost", "x"), Change.LIVE, "x", "x: disk"),
        ),
    )
    fake.add_volume("vmhost", Volume("x", 1, "qcow2"))
    record = Record(fake.journals.begin("j"))
    record.begin("test", plan, user="ann", time=0)
    with pytest.raises(ApplyError) as caught:
        Transaction(plan, Context(fake.ports), record).run()
    assert isinstance(caught.value.__cause__, AlreadyThere)
    assert "x" in fake.world.pools["vmhost"].volumes


def test_what_cannot_be_undone_is_named_with_its_command_and_recovered_later() -> None:
    fake = fake_host()
    before = fake.state()
    host = failing_at(fake, "start", lasting_undo="delete_volume")
    with pytest.raises(ApplyError) as caught:
        host.apply(host.plan(site(WEB)))
    error = caught.value
    assert exit_code(error) == 10
    assert [text.split()[:2] for text in error.leftovers if "vol-delete" in text] == [["virsh", "vol-delete"]] * 2
    assert fake.journals.any_open()
    settled = recover_host(fake.ports)
    assert [item.leftovers for item in settled] == [()]
    assert fake.state() == before


def test_after_the_commit_point_nothing_is_undone() -> None:
    fake = fake_host()
    fake.behave("web-01", boots=False)
    host = Host(ports=fake.ports)
    with pytest.raises(GuestError) as caught:
        host.apply(host.plan(site(WEB)))
    assert exit_code(caught.value) == 8
    assert fake.domain("web-01").state.active
    assert not fake.world.journals
    assert not host.plan(site(WEB)).empty, "the next apply waits again"
    fake.behave("web-01")
    fake.hypervisor.power_off(fake.domain("web-01").uuid)
    host.apply(host.plan(site(WEB)))
    assert host.plan(site(WEB)).empty


def test_several_guests_are_awaited_side_by_side_and_each_failure_is_told() -> None:
    fake = fake_host()
    third = WEB.replace("web-01", "mail-01")
    fake.behave("web-01", verdict="error", errors=["runcmd failed"])
    fake.behave("db-01", boots=False)
    host = Host(ports=fake.ports)
    with pytest.raises(PartlyDone) as caught:
        host.apply(host.plan(site(WEB, OTHER, third)))
    assert set(caught.value.failures) == {"web-01", "db-01"}
    assert "runcmd failed" in str(caught.value.failures["web-01"])
    assert exit_code(caught.value) == 11
    flags = {row.name: row.flags for row in host.guests()}
    assert flags == {"web-01": ("pending",), "db-01": ("pending",), "mail-01": ()}


def test_guests_are_awaited_side_by_side() -> None:
    fake = fake_host()
    names = [f"web-{number:02}" for number in range(1, 7)]
    barrier = threading.Barrier(len(names), timeout=20)
    met: list[str] = []

    class Together:
        """Lets nobody in before all have come."""

        def __getattr__(self, name: str) -> Any:
            return getattr(fake.ports.shell, name)

        def connect(self, target: Any, **_: Any) -> Any:
            if target.guest not in met:
                met.append(target.guest)
                barrier.wait()
            return fake.ports.shell.connect(target, deadline=fake.ports.clock.monotonic() + 60)

    host = Host(ports=replace(fake.ports, shell=Together()))
    host.apply(host.plan(site(*(WEB.replace("web-01", name) for name in names))))
    assert sorted(met) == names


@pytest.mark.parametrize("at", range(6))
def test_cancelled_before_the_commit_point_everything_is_undone(at: int) -> None:
    fake = fake_host()
    before, heard = fake.state(), Heard()
    host = Host(ports=fake.ports)
    with pytest.raises(Cancelled) as caught:
        host.apply(host.plan(site(WEB)), on_event=heard, cancelled=lambda: len(heard.sentences(StepDone)) >= at)
    assert exit_code(caught.value) == 130
    assert fake.state() == before
    assert host.jobs()[0].state == "cancelled"


def test_cancelled_after_the_commit_point_the_guest_stays() -> None:
    fake = fake_host()
    heard = Heard()
    fake.behave("web-01", boots=False)
    host = Host(ports=fake.ports)
    proposal = host.plan(site(WEB))
    last = f"{proposal.plan.after[0].why}"
    with pytest.raises(Cancelled):
        host.apply(proposal, on_event=heard, cancelled=lambda: last in heard.sentences(StepStarted))
    assert fake.domain("web-01").state.active
    assert heard.sentences(Undone) == []
    assert not fake.world.journals


def test_another_process_cancels_a_job() -> None:
    fake = fake_host()
    before = fake.state()
    host = Host(ports=fake.ports)

    def cancel(event: Event) -> None:
        if isinstance(event, StepDone) and event.number == 2:
            fake.history.cancel(host.jobs()[0].id)
            fake.advance(1)

    with pytest.raises(Cancelled):
        host.apply(host.plan(site(WEB)), on_event=cancel)
    assert fake.state() == before


def test_ctrl_c_in_a_step_undoes_and_goes_on_up() -> None:
    fake = fake_host()
    before = fake.state()

    def interrupt(_call: Call) -> BaseException:
        return KeyboardInterrupt()

    host = failing_at(fake, "start", error=interrupt)
    with pytest.raises(KeyboardInterrupt):
        host.apply(host.plan(site(WEB)))
    assert fake.state() == before


def test_a_change_that_fails_leaves_the_guest_as_it_was() -> None:
    fake = fake_host(WEB)
    before = strict(fake.state())
    host = failing_at(fake, "shut_down")
    with pytest.raises((ApplyError, DriverError)):
        host.apply(host.plan(site(BIGGER), Permit(stop=True)))
    assert strict(fake.state()) == before


def test_a_failed_deletion_after_the_commit_point_is_finished_later() -> None:
    fake = fake_host(WEB)
    host = failing_at(fake, "delete_volume", lasting_undo="delete_volume")
    with pytest.raises(ApplyError) as caught:
        host.apply(host.plan_delete(["web-01"], HARM))
    assert exit_code(caught.value) == 10
    fake.die()
    (settled,) = recover_host(fake.ports)
    assert any("for good" in text for text in settled.finished)
    assert fake.state()["pools"].get("vmhost", {"volumes": {}})["volumes"] == {}


def test_of_two_applies_at_once_one_is_done_and_the_other_sees_that_the_host_changed() -> None:
    fake = fake_host()
    proposals = [Host(ports=fake.ports).plan(site(guest)) for guest in (WEB, OTHER)]
    results: list[VmhostError | None] = []
    gate = threading.Barrier(2, timeout=40)

    def apply(number: int) -> None:
        gate.wait()
        try:
            Host(ports=fake.ports).apply(proposals[number])
        except VmhostError as error:
            results.append(error)
        else:
            results.append(None)

    threads = [threading.Thread(target=apply, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [type(result) for result in results if result] == [Conflict]
    assert sum(result is None for result in results) == 1
    assert len(fake.world.domains) == 1
    assert not fake.world.journals


def test_no_journal_is_left_and_none_is_written_for_nothing() -> None:
    fake = fake_host(WEB)
    host = Host(ports=fake.ports)
    jobs = len(host.jobs())
    outcome = host.apply(host.plan(site(WEB)))
    assert (outcome.done, len(host.jobs()), json.dumps(fake.state()["journals"])) == ((), jobs, "{}")


def test_whatever_one_undo_meets_the_others_have_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = fake_host()
    before = fake.state()
    calls: list[str] = []

    def undo(step: Step, context: Context) -> None:
        calls.append(type(step).__name__)
        if isinstance(step, DeleteVolume):
            raise KeyError("nonsense")
        engine_undo(step, context)

    engine_undo = transaction.undo
    monkeypatch.setattr(transaction, "undo", undo)
    plan = FaultPlan(0, error=driver_error, only=lambda port, method: (port, method) == ("hypervisor", "start"))
    host = Host(ports=FaultyPorts(fake.ports, plan).ports)
    with pytest.raises(ApplyError) as caught:
        host.apply(host.plan(site(WEB)))
    assert calls == ["PowerOff", "UndefineDomain", "DeleteVolume", "DeleteVolume", "DeletePool", "DeleteBridge"]
    assert len(caught.value.leftovers) == 3, "two volumes, and the pool that holds them"
    monkeypatch.undo()
    host = Host(ports=fake.ports)
    host.recover()
    assert strict(fake.state()) == strict(before)
