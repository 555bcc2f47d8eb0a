"""Points of guests that share a name, lists that change under the cursor, and work that is asked for twice."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from threading import Event, Thread

import pytest

from tests.tui.stage import on_stage
from tests.tui.test_protection import at, backed_up, kept, read_back
from vmhost.model.errors import VmhostError
from vmhost.model.events import Progress
from vmhost.model.permit import Permit
from vmhost.model.points import Point
from vmhost.ops.care import Rounds, read_care
from vmhost.ops.host import Host
from vmhost.ops.protectionview import view_protection
from vmhost.testing import FakeHost
from vmhost.tui.guarding import Cancelled, Hear, Work
from vmhost.tui.rows.cells import UNICODE, Line
from vmhost.tui.rows.protection import protection_lines
from vmhost.tui.screens import keeping
from vmhost.tui.screens.work import Phase, WorkScreen

pytestmark = [pytest.mark.tui]


class Slow:
    """Work whose looks and whose end wait for a hand."""

    def __init__(self, *, undoes: bool = False) -> None:
        self.looks = [Event(), Event()]
        self.end = Event()
        self.looked = self.begun = 0
        self.work = Work("reading", "vmhost read", self._look, self._carry_out, undoes)

    def _look(self, _: Host) -> list[Line]:
        gate = self.looks[self.looked]
        self.looked += 1
        assert gate.wait(60)
        return [Line(f"look {self.looked}")]

    def _carry_out(self, _: Host, hear: Hear, __: Cancelled) -> tuple[list[Line], VmhostError | None]:
        self.begun += 1
        for done in range(1000):
            hear(Progress("web-01", "reading", done, 1000, 1.0))
        assert self.end.wait(60)
        return [Line("read")], None

    def let_go(self) -> None:
        """Let all of it end."""
        for gate in (*self.looks, self.end):
            gate.set()


def lose(fake: FakeHost, guest: str, *ids: str) -> None:
    """Let points of a guest vanish, as at night."""
    (repository,) = fake.world.repositories.values()
    for point in ids:
        del repository.points[f"{fake.domain(guest).uuid}/{point}"]


@pytest.mark.asyncio
async def test_a_late_look_neither_begins_work_again_nor_hides_it() -> None:
    slow = Slow()
    async with on_stage(backed_up("web-01")) as stage:
        try:
            screen = WorkScreen(slow.work)
            stage.app.push_screen(screen)
            await stage.until(lambda: slow.looked == 1)
            await stage.press("r")
            await stage.until(lambda: slow.looked == 2)
            slow.looks[0].set()
            await stage.pilot.pause()
            slow.looks[1].set()
            await stage.shows("y begins")
            await stage.press("y", "y")
            await stage.shows("at work")
            screen._looked(1, Phase.SHOWN, ())
            assert screen._phase is Phase.AT_WORK, "the first look was not the last that was asked for"
            screen._looked(2, Phase.REFUSED, ())
            assert screen._phase is Phase.AT_WORK, "the work has begun since"
            assert (slow.begun, stage.app.beside) == (1, 1)
            assert "end it" in stage.text
        finally:
            slow.let_go()
        await stage.shows("reading: done")
        assert stage.app.beside == 0


@pytest.mark.asyncio
async def test_progress_is_told_as_often_as_anybody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    slow, told = Slow(), list[object]()
    monkeypatch.setattr(WorkScreen, "_told", lambda _, event: told.append(event))
    async with on_stage() as stage:
        stage.app.push_screen(WorkScreen(slow.work))
        slow.let_go()
        await stage.shows("y begins")
        await stage.press("y")
        await stage.shows("reading: done")
    assert 1 <= len(told) < 100, "of a thousand"


@pytest.mark.asyncio
async def test_whoever_asks_twice_leaves_what_is_only_read() -> None:
    slow = Slow()
    async with on_stage() as stage:
        try:
            stage.app.push_screen(WorkScreen(slow.work))
            slow.looks[0].set()
            await stage.shows("y begins")
            await stage.press("y")
            await stage.shows("at work")
            await stage.press("q")
            await stage.tells("the same key again leaves it unfinished")
            assert not stage.app._exit
            stage.app._asked_to_leave -= 10
            await stage.press("q")
            assert not stage.app._exit, "that was long ago"
            await stage.press("q")
            await stage.until(lambda: stage.app._exit)
        finally:
            slow.let_go()


@pytest.mark.asyncio
async def test_nobody_leaves_what_has_something_to_take_away() -> None:
    slow = Slow(undoes=True)
    async with on_stage() as stage:
        try:
            stage.app.push_screen(WorkScreen(slow.work))
            slow.looks[0].set()
            await stage.shows("y begins")
            await stage.press("y")
            await stage.shows("at work")
            await stage.press("q", "q")
            await stage.tells("work is under way")
            assert not stage.app._exit
        finally:
            slow.let_go()
        await stage.shows("reading: done")
        assert stage.app.undoing == 0


@pytest.mark.asyncio
async def test_what_is_done_to_a_guest_is_done_to_no_namesake() -> None:
    fake = backed_up("web-01", "web-03", times=2, every=0)
    host, living, gone = Host(ports=fake.ports), fake.domain("web-01").uuid, fake.domain("web-03").uuid
    host.apply(host.plan_delete(["web-03"], Permit(power_off=True, disks=True)))
    (repository,) = fake.world.repositories.values()
    for key, stored in repository.points.items():  # the living guest was renamed, the gone one had its name
        name = "web-01" if key.startswith(gone) else "web-old"
        stored.text = json.dumps({**json.loads(stored.text), "name": name})
    async with on_stage(fake) as stage:
        await at(stage, "web-01")
        await stage.until(lambda: "web-01: it never was found whole" in stage.lines("#about"))
        await stage.press("v")
        await stage.shows("$ vmhost backup verify web-01", "y begins")
        await stage.press("y")
        await stage.shows("verify all points of web-01: done", "as it was")
        assert {point.ref.guest for point in host.backups.list() if point.verified} == {living}
        await stage.press("escape", "p")
        await stage.type("last=1")
        await stage.shows("there is nothing to do")
        host.backups.run(["web-01"], full=True)
        host.backups.verify("web-01")
        await stage.type(",daily=1")
        await stage.shows("it can be done: 2 steps")
        await stage.press("ctrl+s")
        await stage.shows("prune web-01: this is", "web-01: delete point")
        await stage.press("y")
        await stage.shows("prune web-01: done")
        assert [point.ref.guest for point in host.backups.list()].count(gone) == 2
        assert [point.ref.guest for point in host.backups.list()].count(living) == 1


@pytest.mark.asyncio
async def test_nothing_is_begun_where_there_is_nothing_to_read() -> None:
    async with on_stage() as stage:
        await at(stage, "web-01")
        await stage.press("v")
        await stage.shows(
            "this cannot be done", "it has no points: there is nothing to read", "vmhost backup run web-01"
        )
        await stage.press("y")
        assert "yes, begin" not in stage.text
        assert "backup verify" not in {job.kind for job in Host(ports=stage.fake.ports).jobs()}


@pytest.mark.asyncio
async def test_a_point_that_is_not_understood_is_no_good_end() -> None:
    fake = backed_up("web-01", times=2)
    uuid, (first, _) = fake.domain("web-01").uuid, Host(ports=fake.ports).backups.list("web-01")
    (repository,) = fake.world.repositories.values()
    repository.points[f"{uuid}/{first.id}"].text = ""
    async with on_stage(fake) as stage:
        await at(stage, "web-01")
        await stage.until(lambda: f"not understood: {first.id}/manifest.json" in stage.lines("#about"))
        await stage.press("v")
        await stage.shows("y begins")
        await stage.press("y")
        await stage.shows("verify all points of web-01: failed", "not understood, so not read", first.id)


@pytest.mark.asyncio
async def test_what_was_damaged_is_said_though_the_rest_was_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    fake, asked, go_on = backed_up("web-01", times=3), Event(), Event()
    host, repositories = Host(ports=fake.ports), type(fake.ports.repositories)
    verify, bad = repositories.verify, host.backups.list("web-01")[0]
    stored = fake.world.repositories[bad.ref.repository].points[f"{bad.ref.guest}/{bad.id}"]
    stored.files[bad.disks[0].file] = "another text"
    calls = 0

    def slowly(*args: object) -> object:
        nonlocal calls
        calls += 1
        if calls > 1:
            asked.set()
            assert go_on.wait(60)
        return verify(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(repositories, "verify", slowly)
    async with on_stage(fake) as stage:
        try:
            await read_back(stage, "web-01")
            await stage.until(asked.is_set)
            await stage.press("x")
            await stage.shows("ending")
            await stage.press("escape")
        finally:
            go_on.set()
        await stage.tells("of those read by then 1 of 1 points are damaged")
    (job, *_) = host.jobs()
    assert job.state == "cancelled"
    assert any(f"{bad.id}: DAMAGED: " in line for line in host.job_log(job.id))


@pytest.mark.asyncio
async def test_a_cursor_that_slid_means_nothing_until_somebody_saw_it() -> None:
    fake = backed_up("web-01", times=3)
    async with on_stage(fake) as stage:
        await at(stage, "web-01")
        await stage.until(lambda: len(kept(stage)) == 3)
        newest, middle, oldest = (key.split()[-1] for key in kept(stage))
        await stage.press("tab", "down")
        lose(fake, "web-01", middle)
        await stage.press("r")
        await stage.until(lambda: len(kept(stage)) == 2)
        await stage.press("i")
        await stage.tells(f"what the cursor was on is not there any more; it is on {oldest} now")
        assert stage.place == "ProtectionScreen"
        await stage.press("i")
        await stage.shows(f"restore web-01 to {oldest}", f"--point {oldest}")
        await stage.press("escape")
        lose(fake, "web-01", oldest)
        await stage.press("r")
        await stage.until(lambda: len(kept(stage)) == 1)
        await stage.press("tab", "tab", "i")
        await stage.shows(f"restore web-01 to {newest}")


@pytest.mark.asyncio
async def test_points_of_another_guest_do_not_come_under_the_cursor_unseen() -> None:
    fake = backed_up("web-03", "web-01", every=0)
    host = Host(ports=fake.ports)
    async with on_stage(fake) as stage:
        await at(stage, "web-03")
        await stage.until(lambda: len(kept(stage)) == 1)
        await stage.press("tab")
        lose(fake, "web-03", *(point.id for point in host.backups.list("web-03")))
        host.apply(host.plan_delete(["web-03"], Permit(power_off=True, disks=True)))
        await stage.press("r")
        await stage.until(lambda: "web-03" not in stage.lines("#about"))
        await stage.press("i")
        await stage.tells("what the cursor was on is not there any more")
        assert stage.place == "ProtectionScreen"


@pytest.mark.asyncio
async def test_a_guest_that_was_given_up_is_not_gone() -> None:
    fake = backed_up("web-01")
    uuid = fake.domain("web-01").uuid
    fake.hypervisor.set_metadata(uuid, "")
    host = Host(ports=fake.ports)
    guest = view_protection(host).guest(uuid)
    assert guest is not None
    assert (guest.gone, guest.objectives) == (False, None)
    assert "is not vmhost's any more; what it has are 1 points" in protection_lines(guest, UNICODE)[0].text
    async with on_stage(fake) as stage:
        await stage.goto("web-01")
        await stage.press("enter", "6")
        await stage.until(lambda: "is not vmhost's any more" in stage.lines("#about"))
        await stage.press("b")
        await stage.tells("web-01 is not vmhost's any more: n makes a new guest")
        await stage.press("n")
        await stage.shows("a new guest of web-01", "web-01-copy")


@pytest.mark.asyncio
async def test_the_tab_of_a_guest_does_not_stand_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vmhost.tui.screens.guest.EVERY", 0.2)
    fake = backed_up("web-01", every=0)
    async with on_stage(fake) as stage:
        await stage.goto("web-01")
        await stage.press("enter", "6")
        await stage.until(lambda: "web-01: it never was found whole" in stage.lines("#about"))
        fake.advance(27 * 3600)
        await stage.until(lambda: "its newest point is 27 h old" in stage.lines("#about"))
        Host(ports=fake.ports).backups.run(["web-01"])
        await stage.until(lambda: len(kept(stage)) == 2)
    assert keeping.EVERY == 30


@pytest.mark.asyncio
async def test_a_time_that_is_none_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = backed_up("web-01")
    repositories = type(fake.ports.repositories)
    points = repositories.points

    def noted(*args: object) -> tuple[Point, ...]:
        return tuple(replace(point, verified="yesterday") for point in points(*args))  # type: ignore[arg-type]

    monkeypatch.setattr(repositories, "points", noted)
    async with on_stage(fake) as stage:
        await at(stage, "web-01")
        assert "never" in stage.row("web-01 ")


def test_points_that_lie_on_a_damaged_one_are_no_protection_in_the_list_of_guests() -> None:
    fake = backed_up("web-01", times=2)
    host = Host(ports=fake.ports)
    host.backups.verify("web-01")
    full, increment = host.backups.list("web-01")
    assert increment.verified
    fake.ports.repositories.note(full.ref, verified="", damaged=True)
    domain = host.observe().domain("web-01")
    assert domain is not None
    assert read_care(host, [domain])[domain.uuid].verified < 0
    guest = view_protection(host).guest(domain.uuid)
    assert guest is not None
    assert (guest.protection.problem, guest.protection.verified) == ("none of its points is whole", "")


def test_a_repository_that_hangs_leaves_nothing_green(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"_PAUSE": 0.001, "AGAIN": 0.0, "SHARE": 0, "HANGS": 0.05}.items():
        monkeypatch.setattr(f"vmhost.ops.care.{name}", value)
    fake, hangs, go_on = backed_up("web-01"), Event(), Event()
    domain = Host(ports=fake.ports).observe().domain("web-01")
    repositories = type(fake.ports.repositories)
    points = repositories.points

    def slowly(*args: object) -> tuple[Point, ...]:
        if hangs.is_set():
            assert go_on.wait(60)
        return points(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(repositories, "points", slowly)
    rounds = Rounds(Host(ports=fake.ports))
    thread = Thread(target=rounds.run, args=(lambda: None,), daemon=True)
    thread.start()
    assert domain is not None

    def comes(count: int) -> bool:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            care = rounds.of(domain)
            if care is not None and care.points == count:
                return True
            time.sleep(0.01)
        return False

    try:
        assert comes(1)
        hangs.set()
        assert comes(-1)
        go_on.set()
        assert comes(1)
    finally:
        go_on.set()
        rounds.stop()
        thread.join(30)
    assert not thread.is_alive()
