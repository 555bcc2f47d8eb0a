"""What lies between looking at services and saying yes: others change them, guests are slow, keys come too fast."""

from __future__ import annotations

import gc
import queue
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from tests.services.shop import HEAD, NGINX, Shop
from tests.services.test_roll import NEW
from tests.tui.stage import Stage, on_stage
from tests.tui.test_serviceacts import OTHER, active, fill, planned, services
from vmhost.model.errors import Conflict, DriverError, NotFound, Refused, Unreachable, VmhostError
from vmhost.model.events import StepDone, Undone
from vmhost.model.plan import Change
from vmhost.model.serviceplan import ServiceOutcome, ServicePlan, ServiceStep
from vmhost.model.services import KeptLook, ServiceRow
from vmhost.ops import serviceproposals, serviceroll
from vmhost.ops.servicelogs import LogLine
from vmhost.ops.serviceproposals import ServiceProposal, propose_act, propose_delete, propose_deploy
from vmhost.ops.services import Services
from vmhost.testing.records import FakeHistory
from vmhost.tui import servicechanges
from vmhost.tui.person import Person
from vmhost.tui.rows import plan as rows
from vmhost.tui.rows.cells import cut, in_rows
from vmhost.tui.screens import servicelog
from vmhost.tui.screens.plan import PlanScreen
from vmhost.tui.screens.services import ServicesScreen
from vmhost.tui.smooth import Smooth
from vmhost.tui.widgets.lines import Lines

UNIT = """unit:
      name: {name}
      content: |
        [Service]
        ExecStart=/usr/bin/sleep infinity
"""
UNITED = OTHER.replace("files:", f"{UNIT.format(name='other')}    files:")


@pytest.fixture
def shop() -> Shop:
    made = Shop()
    made.deploy()
    return made


def gone(shop: Shop, guest: str) -> None:
    """Somebody else takes nginx out of a guest."""
    shop.services.deploy(shop.services.plan_delete("nginx", guests=[guest]))


def runs(shop: Shop, guest: str, unit: str) -> bool:
    with shop.inside(guest) as system:
        return system.land.units[f"{unit}.service"].active


async def ended(stage: Stage) -> None:
    await stage.until(lambda: ": done" in stage.text or ": failed" in stage.text)


# --- the plan that is carried out is the one that was shown -----------------------------------------------------------


@pytest.mark.tui
@pytest.mark.asyncio
async def test_a_mark_whose_service_is_gone_stops_nothing_anywhere(shop: Shop) -> None:
    shop.deploy(NGINX + UNITED)
    async with on_stage(shop.fake, size=(160, 40)) as stage:
        await services(stage)
        stage.grid.marked = frozenset({"web-01/nginx", "web-02/other"})
        gone(shop, "web-01")
        await stage.press("S")
        await planned(stage)
        await stage.shows("this cannot be done", "nginx is not in this guest")
        await stage.press("y")
        assert active(shop, "web-02")
        assert runs(shop, "web-02", "other")


def test_an_act_on_a_guest_without_the_service_is_refused(shop: Shop) -> None:
    with pytest.raises(NotFound, match="nginx is not in this guest"):
        shop.services.act(["nginx"], "stop", guests=["web-01", "cache-01"])
    with pytest.raises(NotFound, match="nginx is not in this guest"):
        propose_act(shop.host, "nginx", "stop", ["web-01", "cache-01"])
    assert active(shop, "web-01")


def test_an_empty_proposal_does_nothing(shop: Shop) -> None:
    def never(*_: Any) -> Any:
        pytest.fail("it is not called")

    proposal = ServiceProposal("service stop nginx", ServicePlan(), work=never)
    assert proposal.carry_out(shop.host, on_event=never, cancelled=never) == ServiceOutcome(())


@pytest.mark.tui
@pytest.mark.asyncio
@pytest.mark.parametrize("how", ["deployed anew", "gone"])
async def test_a_service_that_others_changed_since_the_plan_is_not_acted_on(shop: Shop, how: str) -> None:
    async with on_stage(shop.fake, size=(160, 40)) as stage:
        await services(stage)
        await stage.press("S")
        await planned(stage)
        if how == "gone":
            gone(shop, "web-01")
        else:
            shop.deploy(NGINX.replace("unit: nginx\n    ports: [80]\n", UNIT.format(name="shopd")))
        await stage.press("y")
        await ended(stage)
        await stage.shows(": failed", "nginx is not there any more as it was seen", "r plans again")
        assert "✗ FAILED" in stage.row("web-01: nginx: stop")
        assert how == "gone" or runs(shop, "web-01", "shopd")


@pytest.mark.parametrize("other", [{"uuid": "00000000-0000-4000-8000-000000000000"}, {"name": "web-09"}])
def test_a_guest_made_anew_under_the_name_is_not_acted_on(shop: Shop, other: dict[str, str]) -> None:
    (item,) = shop.services.to_act_on(["nginx"], ["web-01"])
    seen = replace(item, domain=replace(item.domain, raw=replace(item.domain.raw, **other)))
    (result,) = shop.services.act_on([seen], "stop")
    assert isinstance(result.error, Conflict)
    assert active(shop, "web-01")


def test_what_cannot_be_acted_on_is_refused_before_anything_is_done(shop: Shop) -> None:
    shop.host.power(["web-02"], "power-off")
    with pytest.raises(Unreachable, match="web-02: the guest does not run"):
        propose_act(shop.host, "nginx", "restart")
    with pytest.raises(Unreachable, match="web-02: the guest does not run"):
        shop.services.act(["nginx"], "stop")
    newer = [replace(item, state=None) for item in shop.services.find(["nginx"], ["web-01"])]
    with pytest.raises(Refused, match="a newer vmhost deployed this service"):
        shop.services.act_on(newer, "stop")
    assert active(shop, "web-01")


def test_nothing_is_planned_or_done_while_an_operation_waits_to_be_settled(shop: Shop) -> None:
    proposal = propose_act(shop.host, "nginx", "stop", ["web-01"])
    shop.fake.ports.journals.begin("crashed")
    shop.fake.machine.alive.discard("crashed")
    assert shop.host.interrupted()
    with pytest.raises(Refused, match="an operation was interrupted"):
        proposal.carry_out(shop.host, on_event=lambda _: None, cancelled=lambda: False)
    for plan in (lambda: propose_act(shop.host, "nginx", "stop"), lambda: propose_delete(shop.host, "nginx")):
        with pytest.raises(Refused, match="an operation was interrupted") as told:
            plan()
        assert told.value.hint == "vmhost recover"
    assert active(shop, "web-01")
    assert shop.host.interrupted(), "nobody settled it unasked"


def test_a_guest_that_the_file_does_not_mean_is_told(shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(HEAD + NGINX, encoding="utf-8")
    with pytest.raises(NotFound, match=r"web-20: no service of site shop"):
        propose_deploy(shop.host, str(file), (), ["web-01", "web-20"])


# --- what is said of it beforehand ------------------------------------------------------------------------------------


def test_who_is_without_a_service_is_told_before(shop: Shop, tmp_path: Path) -> None:
    plan = propose_delete(shop.host, "nginx", ["web-01"]).plan
    assert plan.harm == "nginx stops and is taken out in web-01"
    assert {step.change for step in plan.steps} == {Change.REMOVE}
    assert propose_act(shop.host, "nginx", "stop").plan.harm == "nginx stops in web-01, web-02"
    assert propose_act(shop.host, "nginx", "start").plan.harm == ""
    file = tmp_path / "shop.yaml"
    file.write_text(HEAD + NGINX.replace("listen 80;", "listen 81;"), encoding="utf-8")
    assert propose_deploy(shop.host, str(file)).plan.harm == "nginx is reloaded or restarted in web-01, web-02"
    file.write_text(HEAD + NGINX.replace("listen 80;", "listen 81;").replace("reload}", "restart}"), encoding="utf-8")
    assert propose_deploy(shop.host, str(file)).plan.harm == "nginx is away for a moment in web-01, web-02"


def test_many_guests_are_counted(shop: Shop) -> None:
    names = [f"webserver-{number:02}" for number in range(40)]
    assert servicechanges.act({"nginx": names}, "stop").title == "stop nginx in 40 guests"
    assert serviceproposals._harm("nginx", "stops", names) == "nginx stops in 40 guests"


@pytest.mark.tui
@pytest.mark.asyncio
async def test_the_head_of_a_plan_shows_phase_harm_and_command_however_many_are_marked(shop: Shop) -> None:
    names = [f"webserver-{number:02}" for number in range(40)]
    steps = tuple(ServiceStep(name, f"{name}: nginx: stop") for name in names)
    plan = ServicePlan(steps, harm=f"nginx stops in {', '.join(names)}")
    change = replace(
        servicechanges.act({f"service-{'x' * 60}": names[:3], "nginx": names, "other": names}, "stop"),
        propose=lambda _host, _chosen: (ServiceProposal("service stop nginx", plan),),
    )
    async with on_stage(shop.fake, size=(80, 24)) as stage:
        stage.app.push_screen(PlanScreen(change))
        await stage.shows("nothing is done yet", "⚠ nginx stops in webserver-00", "$ vmhost service stop service-x")
        assert "...: this is what would be done" in stage.rows[1]
        assert sum("webserver-" in row for row in stage.rows[:6]) >= 2
        await stage.press("y")
        await stage.shows(": done", "already")


def test_texts_are_cut_by_what_they_take_on_the_screen() -> None:
    assert [cut("abcdef", 6), cut("abcdefg", 6), cut("日本語日本語", 7)] == ["abcdef", "abc...", "日本..."]
    assert in_rows("abcdef", 3, 2) == ["abc", "def"]
    assert in_rows("abcdefgh", 4, 2) == ["abcd", "efgh"]
    assert in_rows("abcdefghi", 4, 2) == ["abcd", "e..."]
    assert in_rows("\x1b", 10, 1) == [r"\x1b"]


# --- what is shown is how it is ---------------------------------------------------------------------------------------


@pytest.mark.tui
@pytest.mark.asyncio
async def test_an_answer_from_before_a_change_is_not_shown_after_it(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, held, go_on, given = Services.list, Event(), Event(), Event()

    def slowly(self: Services, names: Sequence[str] = (), *, look: bool = True, **how: Any) -> tuple[ServiceRow, ...]:
        found = real(self, names, look=look, **how)
        if look and not names and held.is_set():
            held.clear()
            assert go_on.wait(60)
            given.set()
        return found

    monkeypatch.setattr(Services, "list", slowly)
    async with on_stage(shop.fake, size=(160, 40)) as stage:
        try:
            await services(stage)
            held.set()
            await stage.press("r")
            await stage.until(lambda: not held.is_set())
            await stage.press("S")
            await planned(stage)
            await stage.press("y")
            await stage.shows(": done")
            await stage.press("escape")
            await stage.shows("1 of 2 are not well")
        finally:
            go_on.set()
        await stage.until(given.is_set)
        await stage.pilot.pause()
        assert "1 of 2 are not well" in stage.text
        assert "down" in stage.row("web-01")


@pytest.mark.tui
@pytest.mark.asyncio
async def test_of_the_past_only_what_is_looked_at_is_read(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    real: Any = FakeHistory.looks
    asked: list[tuple[str, ...]] = []

    def looks(self: FakeHistory, *which: str) -> tuple[KeptLook, ...]:
        asked.append(which)
        return real(self, *which)

    monkeypatch.setattr(FakeHistory, "looks", looks)
    first, second = (shop.fake.domain(name).uuid for name in ("web-01", "web-02"))
    shop.fake.ports.history.looked([KeptLook(second, "nginx", "web", 5.0, good=False, seconds=5.0, text="refused")])
    async with on_stage(shop.fake, size=(160, 40)) as stage:
        await services(stage)
        await stage.until(lambda: asked)
        assert "refused" not in stage.lines("#looks")
        await stage.press("down")
        await stage.until(lambda: "1 bad, the last" in stage.lines("#looks"))
        assert set(asked) == {(first, "nginx"), (second, "nginx")}
        screen, before = stage.app.screen, len(asked)
        assert isinstance(screen, ServicesScreen)
        await stage.until(lambda: not screen._reading)
        await stage.press("l")
        await stage.until(lambda: stage.place == "ServiceLogScreen")
        screen._read_past()
        assert not screen._reading
        assert len(asked) == before


@pytest.mark.tui
@pytest.mark.asyncio
async def test_one_plan_is_made_at_a_time_and_the_last_wish_counts(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    real, go_on = serviceproposals.propose_roll, Event()
    begun: list[bool] = []
    at_once, most = 0, 0

    def slowly(*given: Any, refresh: bool = True, rollback: bool = False, **more: Any) -> ServiceProposal:
        nonlocal at_once, most
        if not refresh:
            return real(*given, refresh=refresh, rollback=rollback, **more)
        begun.append(rollback)
        at_once += 1
        most = max(most, at_once)
        assert go_on.wait(60)
        found = real(*given, refresh=refresh, rollback=rollback, **more)
        at_once -= 1
        return found

    monkeypatch.setattr(serviceproposals, "propose_roll", slowly)
    async with on_stage(shop.fake, size=(160, 50)) as stage:
        try:
            await services(stage)
            await stage.press("V")
            await fill(stage, to="1.26")
            await stage.shows("it can be done: ")
            await stage.press("ctrl+s")
            await stage.until(lambda: begun)
            await stage.press("b", "r", "b", "b")
            assert len(begun) == 1
        finally:
            go_on.set()
        await planned(stage)
        await stage.shows("nothing is done yet", "[x] b")
        assert begun == [False, True]
        assert most == 1


# --- what became of it ------------------------------------------------------------------------------------------------


@pytest.mark.tui
@pytest.mark.asyncio
async def test_what_a_failed_roll_took_back_does_not_stand_as_done(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, real = tmp_path / "shop.yaml", serviceroll._Run._one
    file.write_text(HEAD + NEW, encoding="utf-8")

    def one(run: serviceroll._Run, guest: str) -> None:
        if guest == "web-02":
            raise DriverError("it does not wish to", subject=guest)
        real(run, guest)

    monkeypatch.setattr(serviceroll._Run, "_one", one)
    async with on_stage(shop.fake, size=(160, 50)) as stage:
        await services(stage)
        await stage.press("V")
        await fill(stage, file=str(file), to="")
        await stage.shows("it can be done: ")
        await stage.press("ctrl+s")
        await planned(stage)
        await stage.press("b")
        await planned(stage)
        await stage.press("y")
        await stage.shows(": failed", "the roll was taken back")
        screen = stage.app.screen
        assert isinstance(screen, PlanScreen)
        stages = {row.planned.subject: set() for row in screen._rows}  # type: ignore[union-attr]
        for row in screen._rows:
            if not getattr(row.planned, "quiet", False):
                stages[row.planned.subject].add(row.stage)
        assert stages == {"web-01": {rows.Stage.UNDONE}, "web-02": {rows.Stage.WAITING}}
        assert "taken back: web-01: nginx: " in stage.lines("#about")
        assert shop.picture("web-01")["packages"]["nginx"] == "1.22.1-9"


def test_a_roll_that_cannot_be_taken_back_says_so_step_by_step(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.services.shop import site
    from vmhost.model.services import Rolling

    real, events = serviceroll._Run._one, []

    def one(run: serviceroll._Run, guest: str) -> None:
        if guest == "web-02":
            raise DriverError("it does not wish to", subject=guest)
        real(run, guest)

    def restore(_: serviceroll._Run, guest: str) -> bool:
        raise DriverError("it is gone", subject=guest)

    monkeypatch.setattr(serviceroll._Run, "_one", one)
    monkeypatch.setattr(serviceroll._Run, "restore", restore)
    plan = shop.services.plan_roll("nginx", Rolling(), site=site(NEW))
    with pytest.raises(VmhostError, match="not all of it was taken back"):
        shop.services.roll(plan, rollback=True, on_event=events.append)
    told = [event for event in events if isinstance(event, Undone) and event.subject == "web-01"]
    assert len(told) == len(plan.items["web-01"].plan.steps)
    assert {event.error for event in told} == {"it is gone"}


def test_a_step_that_others_did_meanwhile_is_not_told_as_done() -> None:
    steps = (ServiceStep("web-01", "web-01: nginx: a"), ServiceStep("web-01", "web-01: nginx: b"))
    before = rows.rows_of([ServicePlan(steps), ServicePlan(steps)])
    after = rows.after_end(rows.after_event(before, 0, StepDone(1, 1, "web-01", "web-01: nginx: a", 1.0)), 0)
    found = [row.stage for row in after]
    assert found == [rows.Stage.DONE, rows.Stage.ALREADY, rows.Stage.WAITING, rows.Stage.WAITING]


def test_only_what_was_begun_is_undone() -> None:
    steps = (ServiceStep("web-01", "web-01: nginx: a"),)
    before = rows.rows_of([ServicePlan(steps)])
    assert rows.after_event(before, 0, Undone("web-01", "nginx: a")) == before


# --- the log ----------------------------------------------------------------------------------------------------------


@pytest.mark.tui
@pytest.mark.asyncio
async def test_who_scrolls_up_in_a_log_stays_there_though_old_lines_go(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servicelog, "KEPT", 60)
    written: queue.SimpleQueue[int] = queue.SimpleQueue()

    def logs(*_: Any, cancelled: Any, **__: Any) -> Iterator[LogLine]:
        while not cancelled():
            try:
                number = written.get(timeout=0.05)
            except queue.Empty:
                continue
            yield LogLine(float(number), "web-01", "nginx", f"line {number}.")

    monkeypatch.setattr(Services, "logs", logs)
    async with on_stage(shop.fake) as stage:

        def top() -> str:
            return next(row for row in stage.rows if "line " in row).strip()

        async def write(first: int, last: int) -> None:
            for number in range(first, last + 1):
                written.put(number)
            await stage.until(lambda: f"line {last}." in stage.lines("#log"))
            await stage.pilot.pause()

        await services(stage)
        await stage.press("l")
        await write(1, 60)
        await stage.shows("line 60.")
        await stage.press("k", "k", "k")
        before = top()
        await write(61, 65)
        await stage.until(lambda: top() == before)
        await write(66, 200)
        await stage.until(lambda: "line 141." in top())  # what was read is gone: the oldest that is left
        await stage.press("G")
        await write(201, 205)
        await stage.shows("line 205.")
        assert stage.app.screen.query_one(Lines).scroll_y > 0


def test_a_program_that_froze_its_own_objects_keeps_them_frozen() -> None:
    gc.freeze()
    try:
        smooth = Smooth()
        smooth.begin()
        smooth.settle()
        smooth.end()
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()


@pytest.mark.tui
@pytest.mark.asyncio
async def test_the_interpreter_is_as_before_though_the_interface_ends_badly(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: Person) -> None:
        raise DriverError("the disk is full", subject="tui.json")

    monkeypatch.setattr(Person, "settle", fails)
    before = sys.getswitchinterval()
    with suppress(DriverError):
        async with on_stage():
            assert sys.getswitchinterval() < before
    assert sys.getswitchinterval() == before
