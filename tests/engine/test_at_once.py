"""A site that is planned and applied in one go: under which locks, after how many looks, and struck at every call."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from tests.engine.scenes import BIGGER, OTHER, WEB, Scene, shape, site, stage, strict, with_snapshots
from tests.engine.test_sweep import faults
from vmhost.model.errors import Cancelled, NotFound, PermissionDenied, Refused, UsageError, VmhostError
from vmhost.model.events import Event, Notice
from vmhost.model.spec import Site
from vmhost.ops.apply import recover_host
from vmhost.ops.host import Host
from vmhost.ops.proposals import Proposal
from vmhost.testing import FakeHost, FaultPlan, FaultyPorts, SimulatedKill

SOON = 20.0
EMPTY = Scene("", lambda host: host.plan(site(WEB)))
BESIDE = Scene(OTHER, lambda host: host.plan(site(OTHER, WEB)))
SNAPPED = Scene(WEB, lambda host: host.snapshots.plan_create("web-01", "new"), with_snapshots("one"))
SECRET = WEB + "    cloud_init: {users: [{name: ann, password_hash: {env: ANNS_HASH}}]}\n"


class Watching:
    """A hypervisor that tells at every look of the whole host, or at one guest, who has which lock."""

    def __init__(self, fake: FakeHost) -> None:
        self._fake = fake
        self.held: list[tuple[str, ...]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._fake.hypervisor, name)

    def look(self) -> Any:
        self.held.append(self._fake.locks.held())
        return self._fake.hypervisor.look()

    def named(self, name: str) -> Any:
        self.held.append(self._fake.locks.held())
        return self._fake.hypervisor.named(name)


def looks(fake: FakeHost, act: Callable[[Host], object]) -> list[tuple[str, ...]]:
    """Do something at once; return the locks that were held at each look before the steps."""
    watching = Watching(fake)
    act(Host(ports=replace(fake.ports, hypervisor=watching)))
    return watching.held


def applies(wish: Site) -> Callable[[Host], object]:
    """Return what applies a site at once."""
    return lambda host: host.apply_site(wish)


def test_what_only_makes_guests_is_planned_once_under_the_hosts_lock() -> None:
    fake = stage(BESIDE)
    assert looks(fake, applies(site(OTHER, WEB))) == [("host",)]
    assert fake.domain("web-01").state.active
    assert fake.locks.held() == ()


def test_what_changes_a_guest_is_planned_again_under_its_lock() -> None:
    fake = stage(Scene(WEB, EMPTY.propose))
    uuid = fake.domain("web-01").uuid
    assert looks(fake, applies(site(BIGGER.replace("cpus: 2", "cpus: 1")))) == [("host",), ("host", uuid)]


def test_secrets_are_asked_for_without_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANNS_HASH", "$6$x")
    first, second = looks(stage(EMPTY), applies(site(SECRET)))
    assert first == ()
    assert "host" in second


def test_what_is_there_already_needs_no_second_look() -> None:
    fake = stage(BESIDE)
    before = fake.state()
    assert looks(fake, applies(site(OTHER))) == [("host",)]
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


def test_a_snapshot_is_planned_once_under_its_guests_lock() -> None:
    fake = stage(SNAPPED)
    assert looks(fake, lambda host: host.snapshots.create("web-01", "new")) == [(fake.domain("web-01").uuid,)]
    assert [row.name for row in Host(ports=fake.ports).snapshots.list("web-01")] == ["one", "new"]
    assert fake.locks.held() == ()


def test_while_others_have_the_guest_a_snapshot_is_planned_waits_and_is_planned_again() -> None:
    fake = stage(SNAPPED)
    host, uuid = Host(ports=fake.ports), fake.domain("web-01").uuid
    begun, told = threading.Event(), list[Event]()
    waits = threading.Event()

    def other() -> None:
        with fake.locks.guests([uuid]):
            begun.set()
            waits.wait(SOON)
            fake.hypervisor.set_metadata(uuid, "")  # no longer ours

    def hear(event: Event) -> None:
        told.append(event)
        waits.set()

    thread = threading.Thread(target=other)
    thread.start()
    assert begun.wait(SOON)
    with pytest.raises(Refused):
        host.snapshots.create("web-01", "new", on_event=hear)
    thread.join(SOON)
    assert any(isinstance(event, Notice) and "waiting" in event.text for event in told)
    assert fake.locks.held() == ()


def test_a_guest_whose_operation_was_interrupted_meanwhile_is_not_planned_before_that_is_settled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = stage(SNAPPED)
    host = Host(ports=fake.ports)
    plan = FaultPlan(0, "after", only=lambda port, method: (port, method) == ("hypervisor", "snapshot_disks"))
    looked = iter([False])  # at first there was nothing; the other died in between
    any_open = fake.journals.any_open
    with pytest.raises(SimulatedKill):
        Host(ports=FaultyPorts(fake.ports, plan).ports).snapshots.create("web-01", "killed")
    fake.die()
    monkeypatch.setattr(fake.journals, "any_open", lambda: next(looked, None) or any_open())
    told = list[Event]()
    assert host.snapshots.create("web-01", "new", on_event=told.append).done
    assert any(isinstance(event, Notice) and "interrupted earlier" in event.text for event in told)
    assert [row.name for row in host.snapshots.list("web-01")] == ["one", "new"]


def test_of_what_is_not_there_no_lock_is_taken_and_none_left() -> None:
    fake = stage(SNAPPED)
    host, before = Host(ports=fake.ports), fake.state()
    for guest, name, error in (("web-99", "new", NotFound), ("web-01", "one", Refused), ("web-01", "a b", UsageError)):
        with pytest.raises(error):
            host.snapshots.create(guest, name)
    with pytest.raises(NotFound):
        host.snapshots.delete("web-01", "none")
    assert (fake.state(), fake.locks.held()) == (before, ())


AT_ONCE: Mapping[str, tuple[Scene, Callable[[Host], object]]] = {
    "a site": (EMPTY, lambda host: host.apply_site(site(WEB))),
    "take a snapshot": (SNAPPED, lambda host: host.snapshots.create("web-01", "new")),
    "delete a snapshot": (SNAPPED, lambda host: host.snapshots.delete("web-01", "one")),
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", AT_ONCE)
def test_the_host_is_as_before_or_as_after_whatever_call_is_struck(name: str) -> None:
    scene, act = AT_ONCE[name]
    reference = stage(scene)
    faulty = FaultyPorts(reference.ports)
    act(Host(ports=faulty.ports))
    before, after = stage(scene).state(), reference.state()
    for plan in faults(faulty.calls):
        fake = stage(scene)
        with suppress(SimulatedKill, VmhostError):
            act(Host(ports=FaultyPorts(fake.ports, plan).ports))
        fake.die()
        recover_host(fake.ports)
        settled, where = fake.state(), f"call {plan.at} {plan.place}, {'fault' if plan.error else 'kill'}"
        assert shape(settled) in (shape(before), shape(after)), where
        if shape(settled) == shape(before):
            assert strict(settled) == strict(before), where
            act(Host(ports=fake.ports))
        assert shape(fake.state()) == shape(after), where
