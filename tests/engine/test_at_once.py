"""A site that is planned and applied in one go: under which locks, after how many looks, and struck at every call."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from tests.engine.scenes import BIGGER, OTHER, WEB, Scene, shape, site, stage, strict
from tests.engine.test_sweep import faults
from vmhost.model.errors import Cancelled, PermissionDenied, Refused, VmhostError
from vmhost.model.events import Event, Notice
from vmhost.model.spec import Site
from vmhost.ops.apply import recover_host
from vmhost.ops.host import Host
from vmhost.ops.proposals import Proposal
from vmhost.testing import FakeHost, FaultPlan, FaultyPorts, SimulatedKill

SOON = 20.0
EMPTY = Scene("", lambda host: host.plan(site(WEB)))
BESIDE = Scene(OTHER, lambda host: host.plan(site(OTHER, WEB)))
SECRET = WEB + "    cloud_init: {users: [{name: ann, password_hash: {env: ANNS_HASH}}]}\n"


class Watching:
    """A hypervisor that tells at every look of the whole host who has which lock."""

    def __init__(self, fake: FakeHost) -> None:
        self._fake = fake
        self.held: list[tuple[str, ...]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._fake.hypervisor, name)

    def look(self) -> Any:
        self.held.append(self._fake.locks.held())
        return self._fake.hypervisor.look()


def looks(fake: FakeHost, wish: Site) -> list[tuple[str, ...]]:
    """Apply at once; return the locks that were held at each look before the steps."""
    watching = Watching(fake)
    Host(ports=replace(fake.ports, hypervisor=watching)).apply_site(wish)  # type: ignore[arg-type]
    return watching.held


def test_what_only_makes_guests_is_planned_once_under_the_hosts_lock() -> None:
    fake = stage(BESIDE)
    assert looks(fake, site(OTHER, WEB)) == [("host",)]
    assert fake.domain("web-01").state.active
    assert fake.locks.held() == ()


def test_what_changes_a_guest_is_planned_again_under_its_lock() -> None:
    fake = stage(Scene(WEB, EMPTY.propose))
    uuid = fake.domain("web-01").uuid
    assert looks(fake, site(BIGGER.replace("cpus: 2", "cpus: 1"))) == [("host",), ("host", uuid)]


def test_secrets_are_asked_for_without_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANNS_HASH", "$6$x")
    first, second = looks(stage(EMPTY), site(SECRET))
    assert first == ()
    assert "host" in second


def test_what_is_there_already_needs_no_second_look() -> None:
    fake = stage(BESIDE)
    before = fake.state()
    assert looks(fake, site(OTHER)) == [("host",)]
    assert fake.state() == before


def test_while_others_have_the_host_it_is_planned_and_then_waits() -> None:
    fake = stage(EMPTY)
    planned = threading.Event()

    def other(begun: threading.Event) -> None:
        with fake.locks.host():
            begun.set()
            planned.wait(SOON)

    begun = threading.Event()
    thread = threading.Thread(target=other, args=(begun,))
    thread.start()
    assert begun.wait(SOON)
    Host(ports=fake.ports).apply_site(site(WEB), on_plan=lambda _: planned.set())
    thread.join(SOON)
    assert planned.is_set()
    assert fake.domain("web-01").state.active


def test_what_cannot_be_done_or_shown_leaves_no_lock() -> None:
    fake = stage(EMPTY)
    host, before = Host(ports=fake.ports), fake.state()
    with pytest.raises(Refused):
        host.apply_site(site(WEB.replace("512M, max: 1G", "999G")))

    def gone(_: object) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        host.apply_site(site(WEB), on_plan=gone)
    assert fake.locks.held() == ()
    assert fake.state() == before


def test_who_may_only_look_hears_that_there_is_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = stage(Scene(WEB, EMPTY.propose))

    def refused(*_: object, **__: object) -> None:
        raise PermissionDenied("not root")

    monkeypatch.setattr("vmhost.ops.apply.check_may_change", refused)
    monkeypatch.setattr(fake.locks, "host", refused)
    shown: list[Proposal] = []
    host = Host(ports=fake.ports)
    assert host.apply_site(site(WEB), on_plan=shown.append).plan.empty
    with pytest.raises(PermissionDenied):
        host.apply_site(site(WEB, OTHER), on_plan=shown.append)
    assert [proposal.empty for proposal in shown] == [True, False]


def test_who_is_asked_to_end_while_it_is_planned_begins_nothing() -> None:
    fake = stage(EMPTY)
    before = fake.state()
    with pytest.raises(Cancelled):
        Host(ports=fake.ports).apply_site(site(WEB), cancelled=lambda: True)
    assert (fake.state(), fake.locks.held()) == (before, ())


def test_what_was_interrupted_is_settled_first() -> None:
    fake = stage(EMPTY)
    plan = FaultPlan(0, "after", only=lambda port, method: (port, method) == ("hypervisor", "create_volume"))
    with pytest.raises(SimulatedKill):
        Host(ports=FaultyPorts(fake.ports, plan).ports).apply_site(site(WEB))
    fake.die()
    host, told = Host(ports=fake.ports), list[Event]()
    assert host.interrupted()
    assert host.apply_site(site(WEB), on_event=told.append).done
    assert any(isinstance(event, Notice) and "interrupted earlier" in event.text for event in told)
    assert not fake.world.journals


@pytest.mark.timeout(600)
def test_the_host_is_as_before_or_as_after_whatever_call_is_struck() -> None:
    scene, wish = EMPTY, site(WEB)
    reference = stage(scene)
    faulty = FaultyPorts(reference.ports)
    Host(ports=faulty.ports).apply_site(wish)
    before, after = stage(scene).state(), reference.state()
    for plan in faults(faulty.calls):
        fake = stage(scene)
        with suppress(SimulatedKill, VmhostError):
            Host(ports=FaultyPorts(fake.ports, plan).ports).apply_site(wish)
        fake.die()
        recover_host(fake.ports)
        settled, where = fake.state(), f"call {plan.at} {plan.place}, {'fault' if plan.error else 'kill'}"
        assert shape(settled) in (shape(before), shape(after)), where
        if shape(settled) == shape(before):
            assert strict(settled) == strict(before), where
        Host(ports=fake.ports).apply_site(wish)
        assert shape(fake.state()) == shape(after), where
