"""A prune that ended early: what it had begun is finished, and the rest is decided anew, never by its old list."""

from __future__ import annotations

import pytest

from tests.engine.scenes import with_three_points
from vmhost.model.errors import ApplyError
from vmhost.model.retention import Keep
from vmhost.ops.host import Host
from vmhost.testing import FakeHost, FaultPlan, FaultyPorts, SimulatedKill
from vmhost.testing.faults import driver_error

KEEP = Keep(last=1)


@pytest.fixture
def fake() -> FakeHost:
    """A host with a guest and three full points of it."""
    return with_three_points()


@pytest.fixture
def host(fake: FakeHost) -> Host:
    return Host(ports=fake.ports)


def _deleting(fake: FakeHost, plan: FaultPlan) -> Host:
    return Host(ports=FaultyPorts(fake.ports, plan).ports)


def _is_delete(_port: str, method: str) -> bool:
    return method == "delete"


def _ids(host: Host) -> list[str]:
    return [point.id for point in host.backups.list("web-01")]


def test_a_prune_that_could_not_write_is_not_carried_out_later(host: Host, fake: FakeHost) -> None:
    """Meanwhile the point that was to stay was found damaged: the one that was to go is the only good one."""
    one, two, three = host.backups.list("web-01")
    faulty = _deleting(fake, FaultPlan(0, error=driver_error, lasting=True, only=_is_delete))
    with pytest.raises(ApplyError):
        faulty.apply(faulty.backups.plan_prune(["web-01"], KEEP))
    fake.ports.repositories.note(three.ref, damaged=True)
    assert f"{two.id} stays: the newest" in str(host.backups.plan_prune(["web-01"], KEEP))
    fake.die()
    host.apply(host.backups.plan_pin("web-01", one.id))
    assert _ids(host) == [one.id, two.id, three.id]
    assert not host.interrupted()
    host.apply(host.backups.plan_prune(["web-01"], KEEP))
    assert _ids(host) == [one.id, two.id]


@pytest.mark.parametrize("place", ["before", "after"])
def test_a_killed_prune_leaves_the_rest_to_the_next_one(host: Host, fake: FakeHost, place: str) -> None:
    one, two, three = _ids(host)
    faulty = _deleting(fake, FaultPlan(0, place, only=_is_delete))  # type: ignore[arg-type]
    with pytest.raises(SimulatedKill):
        faulty.apply(faulty.backups.plan_prune(["web-01"], KEEP))
    fake.die()
    left = [one, two, three] if place == "before" else [one, three]
    (settled,) = host.recover()
    assert _ids(host) == left
    assert (settled.finished, settled.leftovers, len(settled.dropped)) == ((), (), 2)
    assert str(settled).endswith("undid 0 steps; what it had not deleted (2) the next prune decides anew")
    host.apply(host.backups.plan_prune(["web-01"], KEEP))
    assert _ids(host) == [three]


def test_a_deletion_that_was_begun_is_finished(host: Host, fake: FakeHost) -> None:
    one, two, three = host.backups.list("web-01")
    faulty = _deleting(fake, FaultPlan(0, only=_is_delete))
    with pytest.raises(SimulatedKill):
        faulty.apply(faulty.backups.plan_prune(["web-01"], KEEP))
    fake.die()
    kept = fake.world.repositories[two.ref.repository].points
    kept[f"{two.ref.guest}/{two.id}"].published = False  # it is no point any more, and its files are going
    (settled,) = host.recover()
    assert (len(settled.finished), len(settled.dropped)) == (1, 1)
    assert two.id in settled.finished[0]
    assert f"{two.ref.guest}/{two.id}" not in kept
    assert _ids(host) == [one.id, three.id]
