"""Guests that share a name, now or in the past: a name means the guest that has it now, and no other's points go."""

from __future__ import annotations

import json

import pytest

from tests.engine.scenes import WEB, site
from vmhost.engine.observe import observe_domains
from vmhost.model.backupsteps import DeletePoint
from vmhost.model.errors import NotFound, Refused
from vmhost.model.permit import Permit
from vmhost.model.retention import Keep
from vmhost.ops.host import Host
from vmhost.ops.proposals import Proposal
from vmhost.testing import FakeHost
from vmhost.testing.demo import demo_host

GONE, LIVING = "web-03", "web-01"


@pytest.fixture
def fake() -> FakeHost:
    return demo_host(speed=0)


@pytest.fixture
def host(fake: FakeHost) -> Host:
    """Two guests with three full points each."""
    made = Host(ports=fake.ports)
    for _ in range(3):
        assert not [result.error for result in made.backups.run([GONE, LIVING], full=True) if result.error]
        fake.advance(3600)
    return made


def call_points(fake: FakeHost, guest: str, name: str, *, first: int = 3) -> None:
    """Let the first points of a guest have been taken when it had another name."""
    (repository,) = fake.world.repositories.values()
    for key in sorted(key for key in repository.points if key.startswith(guest))[:first]:
        stored = repository.points[key]
        stored.text = json.dumps({**json.loads(stored.text), "name": name})


def deleted(proposal: Proposal) -> list[str]:
    """Whose points go."""
    return [item.do.ref.guest for item in proposal.plan.after if isinstance(item.do, DeletePoint)]


def test_of_guests_of_one_name_the_living_is_pruned_and_the_gone_by_its_uuid(host: Host, fake: FakeHost) -> None:
    gone, living = fake.domain(GONE).uuid, fake.domain(LIVING).uuid
    host.apply(host.plan_delete([GONE], Permit(power_off=True, disks=True)))
    call_points(fake, gone, LIVING)
    by_name = host.backups.plan_prune([LIVING], Keep(last=1))
    assert deleted(by_name) == [living, living]
    assert deleted(host.backups.plan_prune([living], Keep(last=1))) == [living, living]
    by_uuid = host.backups.plan_prune([gone], Keep(last=1))
    assert deleted(by_uuid) == [gone, gone]
    assert f"{LIVING} ({gone}): delete point" in str(by_uuid)
    of_all = str(host.backups.plan_prune((), Keep(last=1)))
    assert f"{LIVING} ({gone}): delete point" in of_all
    assert f"{LIVING} ({living}): delete point" in of_all
    assert {one.point.ref.guest for one in host.backups.verify(LIVING)} == {living}
    assert {point.ref.guest for point in host.backups.list(LIVING)} == {gone, living}, "listed they are both"


def test_a_living_guest_without_points_does_not_stand_for_a_gone_one(host: Host, fake: FakeHost) -> None:
    gone = fake.domain(GONE).uuid
    host.apply(host.plan_delete([GONE], Permit(power_off=True, disks=True)))
    call_points(fake, gone, "build-01")
    with pytest.raises(NotFound, match="there is no point of this guest"):
        host.backups.plan_prune(["build-01"], Keep(last=1))
    assert host.backups.list(fake.domain("build-01").uuid) == ()


def test_of_several_that_are_gone_somebody_has_to_say_which(host: Host, fake: FakeHost) -> None:
    guests = sorted(fake.domain(name).uuid for name in (GONE, LIVING))
    host.apply(host.plan_delete([GONE, LIVING], Permit(power_off=True, disks=True)))
    for guest in guests:
        call_points(fake, guest, "old")
    with pytest.raises(Refused, match=f"2 guests had this name; say which one by its UUID: {', '.join(guests)}"):
        host.backups.plan_prune(["old"], Keep(last=1))
    assert deleted(host.backups.plan_prune([guests[0]], Keep(last=1))) == [guests[0]] * 2


@pytest.mark.parametrize("first", [2, 3])
def test_all_points_of_a_guest_are_its_own_whatever_it_was_called(host: Host, fake: FakeHost, first: int) -> None:
    uuid = fake.domain(LIVING).uuid
    call_points(fake, uuid, "web-old", first=first)
    for word in (LIVING, uuid):
        assert len(host.backups.list(word)) == 3
        assert len(host.backups.verify(word)) == 3
        pruning = host.backups.plan_prune([word], Keep(last=1))
        assert deleted(pruning) == [uuid, uuid]
        assert f"{LIVING}: delete point" in str(pruning)
        point = host.backups.list(word)[0].id
        assert host.backups.drills.plan(word, point=point).plan.steps


def test_a_name_that_is_libvirts_number_of_another_guest_never_means_that_guest() -> None:
    fake = FakeHost(seed=3)
    fake.add_image("debian-12")
    host = Host(ports=fake.ports)
    host.apply(host.plan(site(WEB)))
    (web,) = observe_domains(fake.hypervisor)
    name = web.id
    assert name.isdigit()
    host.apply(host.plan(site(WEB, WEB.replace("web-01", f"'{name}'"))))
    gone = fake.domain(name).uuid
    for _ in range(3):
        assert not [result.error for result in host.backups.run(["web-01", name], full=True) if result.error]
        fake.advance(3600)
    permit = Permit(power_off=True, disks=True)
    assert host.guest(name).domain.uuid == gone
    host.apply(host.plan_delete([name], permit))
    assert host.guest(name).domain.uuid == web.uuid, "who only looks may say its number"
    for change in (
        lambda: host.plan_delete([name], permit),
        lambda: host.plan_power([name], "stop"),
        lambda: host.snapshots.plan_create(name),
    ):
        with pytest.raises(NotFound):
            change()
    points = host.backups.list(name)
    assert {point.ref.guest for point in points} == {gone}
    every = host.backups.list()
    assert {point.ref.guest for point in every} == {gone, web.uuid}
    assert host.backups.its(every, name) == every
    assert deleted(host.backups.plan_prune([name], Keep(last=1))) == [gone, gone]
