"""Points that are verified, pinned and pruned while others delete them, or where what is known of them is damaged."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from tests.engine.scenes import WEB, site, with_three_points
from vmhost.backupports import Tell
from vmhost.model.errors import DamagedData, NotFound, PartlyDone
from vmhost.model.events import Event, Notice
from vmhost.model.points import Damage, Point, PointRef
from vmhost.model.retention import Keep
from vmhost.ops.host import Host
from vmhost.ops.nightly import raise_failures
from vmhost.ops.verifying import Verified
from vmhost.testing import FakeHost

KEEP = Keep(last=1)


@pytest.fixture
def fake() -> FakeHost:
    """A host with a guest and three full points of it."""
    return with_three_points()


@pytest.fixture
def host(fake: FakeHost) -> Host:
    return Host(ports=fake.ports)


def _told(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Notice)]


@pytest.mark.parametrize("half", [False, True])
def test_a_point_that_is_deleted_while_all_are_verified_is_told_and_the_rest_is_read(
    host: Host, monkeypatch: pytest.MonkeyPatch, half: bool
) -> None:
    """Its directory may go before it is looked at, or while its files are read, which then are missing."""
    repositories, points = host.ports.repositories, host.backups.list("web-01")
    verify, events = repositories.verify, list[Event]()

    def verifying(ref: PointRef, tell: Tell, known: Collection[str]) -> tuple[Damage, ...]:
        if ref == points[1].ref:
            repositories.delete(ref)
            if half:
                return (Damage(ref.id, "root.qcow2", "is missing"),)
        return verify(ref, tell, known)

    monkeypatch.setattr(repositories, "verify", verifying)
    found = host.backups.verify("web-01", on_event=events.append)
    assert found == (Verified(points[0]), Verified(points[1], gone=True), Verified(points[2]))
    assert _told(events) == [f"{points[1].id}: was deleted meanwhile, so it is not verified"]
    assert all(point.verified for point in host.backups.list("web-01"))
    assert next(job for job in host.jobs() if job.kind == "backup verify").state == "done"


def test_the_one_point_that_was_asked_for_is_missed(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    repositories, point = host.ports.repositories, host.backups.list("web-01")[0]
    verify = repositories.verify

    def verifying(ref: PointRef, tell: Tell, known: Collection[str]) -> tuple[Damage, ...]:
        repositories.delete(ref)
        return verify(ref, tell, known)

    monkeypatch.setattr(repositories, "verify", verifying)
    with pytest.raises(NotFound, match="deleted meanwhile"):
        host.backups.verify("web-01", point=point.id)


def _with_damaged_notes(host: Host, monkeypatch: pytest.MonkeyPatch) -> list[Point]:
    """As a repository shows points whose notes cannot be read: all of them as pinned."""
    points = list(host.backups.list("web-01"))
    guest = points[0].ref.guest
    for point in points:
        host.ports.repositories.note(point.ref, pinned=True)
    damage = Damage(guest, "notes.json", "is cut off; until it is moved away all points beside it stay")
    monkeypatch.setattr(host.ports.repositories, "damaged", lambda _path, _guest="": (damage,))
    return points


@pytest.mark.parametrize("on", [True, False])
def test_nothing_is_said_to_be_pinned_where_the_notes_cannot_be_read(
    host: Host, monkeypatch: pytest.MonkeyPatch, on: bool
) -> None:
    points = _with_damaged_notes(host, monkeypatch)
    with pytest.raises(DamagedData, match=r"notes\.json: is cut off") as caught:
        host.backups.plan_pin("web-01", points[0].id, on=on)
    assert caught.value.hint == "vmhost backup list web-01"


def _with_a_lost_manifest(host: Host, fake: FakeHost) -> None:
    point = host.backups.list("web-01")[0]
    fake.world.repositories[point.ref.repository].points[f"{point.ref.guest}/{point.id}"].text = ""


@pytest.mark.parametrize("what", ["manifest", "notes"])
def test_the_night_says_that_nothing_is_pruned_any_more(
    host: Host, fake: FakeHost, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    if what == "manifest":
        _with_a_lost_manifest(host, fake)
    else:
        _with_damaged_notes(host, monkeypatch)
    night = host.backups.nightly.run(["web-01"], keep=KEEP)
    (guest,) = night.guests
    assert (guest.failed, guest.verified, guest.pruned, bool(guest.point)) == ("prune", True, 0, True)
    assert str(guest).startswith("web-01: prune FAILED: all its points stay: ")
    with pytest.raises(PartlyDone, match="1 of 1"):
        raise_failures(night)


def test_where_nothing_was_to_go_nothing_failed(host: Host, fake: FakeHost) -> None:
    _with_a_lost_manifest(host, fake)
    raise_failures(host.backups.nightly.run(["web-01"]))


def test_a_guest_whose_points_all_stay_is_drilled_all_the_same(host: Host, fake: FakeHost) -> None:
    host.apply(host.plan(site(WEB + "    backup: {keep: {last: 1}, drill: {every: 7d}}\n")))
    _with_a_lost_manifest(host, fake)
    (guest,) = host.backups.nightly.run(["web-01"]).guests
    assert (guest.failed, bool(guest.drilled)) == ("prune", True)
