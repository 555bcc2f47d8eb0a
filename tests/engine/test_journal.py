"""Journals: what is written when, what is read back, and what recovery makes of those that a crash left."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest

from tests.engine.scenes import HARM, WEB, site, strict
from vmhost.engine.record import plan_from_json, plan_to_json, read_past
from vmhost.engine.waves import in_waves
from vmhost.model.errors import Conflict, DamagedData, VmhostError
from vmhost.ops.apply import recover_host
from vmhost.ops.host import Host
from vmhost.ports import OpenJournal
from vmhost.testing import FakeHost, FaultPlan, FaultyPorts, SimulatedKill


def fake_host() -> FakeHost:
    fake = FakeHost(seed=4)
    fake.add_image("debian-12")
    return fake


def killed_at(fake: FakeHost, method: str, place: str = "after") -> None:
    """Apply a site and die at a call of the hypervisor."""
    plan = FaultPlan(0, place, only=lambda port, called: (port, called) == ("hypervisor", method))  # type: ignore[arg-type]
    host = Host(ports=FaultyPorts(fake.ports, plan).ports)
    with pytest.raises(SimulatedKill):
        host.apply(host.plan(site(WEB)))
    fake.die()


def records(fake: FakeHost) -> list[dict[str, Any]]:
    (journal,) = fake.world.journals.values()
    return [json.loads(text) for text in journal.records]


def test_the_plan_comes_first_then_an_intent_before_and_a_mark_after_every_step() -> None:
    fake = fake_host()
    killed_at(fake, "start")
    first, *rest = records(fake)
    plan = plan_from_json(first["plan"])
    assert (first["type"], first["operation"]) == ("begin", "apply shop")
    waves = list(in_waves(plan.steps))
    marks = [(item["type"], item["step"]) for item in rest]
    assert marks == [
        *((kind, number) for wave in waves[:-1] for kind in ("intent", "done") for number in wave),
        ("intent", len(plan.steps) - 1),
    ]


def test_a_plan_is_the_same_after_a_way_through_json() -> None:
    fake = fake_host()
    plan = Host(ports=fake.ports).plan(site(WEB)).plan
    assert plan_from_json(json.loads(json.dumps(plan_to_json(plan)))) == plan


def _next_apply(host: Host) -> Conflict | None:
    """Plan and apply; return why it could not be planned."""
    try:
        proposal = host.plan(site(WEB))
    except Conflict as error:
        return error
    with suppress(Conflict):  # settled first; then the host may no longer be as it was shown
        host.apply(proposal)
    return None


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("method", ["create_pool", "create_volume", "upload_volume", "define", "start"])
def test_what_was_interrupted_is_undone_by_the_next_command(method: str, place: str) -> None:
    fake = fake_host()
    before = fake.state()
    killed_at(fake, method, place)
    host = Host(ports=fake.ports)
    assert host.interrupted()
    refused = _next_apply(host)
    if refused is not None:  # of what is made side by side the guest was there, and a volume of its was not
        assert refused.hint == "vmhost recover"
        host.recover()
    assert not host.interrupted()
    host.apply(host.plan(site(WEB)))
    host.apply(host.plan_delete(["web-01"], HARM))
    assert strict(fake.state()) == strict(before)


def test_reading_commands_only_warn() -> None:
    fake = fake_host()
    killed_at(fake, "define")
    left = fake.state()
    host = Host(ports=fake.ports)
    host.guests()
    host.plan(site(WEB))
    assert fake.state() == left


def test_a_damaged_journal_is_told_and_nothing_is_done() -> None:
    fake = fake_host()
    killed_at(fake, "define")
    (journal,) = fake.world.journals.values()
    journal.damaged = "line 3 is torn"
    left = fake.state()
    with pytest.raises(DamagedData, match="line 3 is torn"):
        recover_host(fake.ports)
    host = Host(ports=fake.ports)
    with pytest.raises(DamagedData):
        host.apply(host.plan(site(WEB.replace("web-01", "db-01"))))
    assert fake.state() == left


@pytest.mark.parametrize(
    "record",
    [
        {"type": "begin"},
        {"type": "begin", "plan": {"site": "shop", "steps": [{"do": {"kind": "format-disk"}}]}},
        {"type": "begin", "plan": "nonsense"},
    ],
)
def test_a_journal_with_steps_that_we_do_not_know_is_left_for_the_vmhost_that_does(record: dict[str, Any]) -> None:
    fake = fake_host()
    writer = fake.journals.begin("newer")
    writer.append(record)
    writer.close(done=False)
    left = fake.state()
    with pytest.raises(DamagedData) as caught:
        recover_host(fake.ports)
    assert caught.value.hint
    assert fake.state() == left


def test_a_journal_without_a_record_is_of_an_operation_that_did_nothing() -> None:
    fake = fake_host()
    fake.journals.begin("empty").close(done=False)
    assert recover_host(fake.ports) == ()
    assert not fake.world.journals


def test_what_stood_there_before_us_is_not_in_the_steps_to_undo() -> None:
    fake = fake_host()
    plan = Host(ports=fake.ports).plan(site(WEB)).plan
    marks = [
        {"type": "begin", "operation": "apply shop", "plan": plan_to_json(plan)},
        *({"type": kind, "step": number} for number in range(3) for kind in ("intent", "done")),
        {"type": "intent", "step": 3},
        {"type": "failed", "step": 3, "theirs": True},
        {"type": "undone", "step": 2},
    ]
    past = read_past(OpenJournal("x", tuple(marks), fake.journals.begin("x")))
    assert past is not None
    assert (past.to_undo, past.committed) == ((1, 0), False)


def test_every_error_of_recovery_is_ours() -> None:
    fake = fake_host()
    killed_at(fake, "start")
    (journal,) = fake.world.journals.values()
    journal.records[1] = json.dumps({"type": "intent"})
    with pytest.raises(VmhostError):
        recover_host(fake.ports)
