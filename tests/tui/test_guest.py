"""One guest: its tabs, its keys, and what happens when it goes away."""

from __future__ import annotations

import asyncio

import pytest

from tests.services.shop import Shop
from tests.tui.stage import Stage, on_stage
from vmhost.model.errors import Unreachable
from vmhost.ops.host import Host
from vmhost.render import amend
from vmhost.testing.commands import Ran
from vmhost.tui import errands
from vmhost.tui.rows.cells import Line
from vmhost.tui.rows.guest import TABS
from vmhost.tui.widgets.lines import Lines

pytestmark = [pytest.mark.tui, pytest.mark.asyncio]


async def open_guest(stage: Stage, name: str, key: str = "enter") -> None:
    await stage.goto(name)
    await stage.press(key)
    await stage.until(lambda: stage.place == "GuestScreen")


async def test_every_tab_by_its_number_and_by_the_arrows() -> None:
    words = ["host key", "of the host", "-root.qcow2", "received", "no service was deployed to it", "it has no point"]
    words += ["nothing happened", "<domain", "login:", "running 'modules:final'"]
    async with on_stage() as stage:
        await open_guest(stage, "db-01")
        for number, word in enumerate(words, 1):
            await stage.press(str(number % 10))
            text = "#about" if word == "it has no point" else "#text"
            await stage.until(lambda word=word, text=text: word in stage.lines(text))
        await stage.press("right")
        await stage.until(lambda: "host key" in stage.lines())
        await stage.press("left", "left", "left")
        await stage.until(lambda: "<domain" in stage.lines())
        assert len(words) == len(TABS)
        assert "db-01" in stage.rows[0]


async def test_the_overview_says_who_it_is() -> None:
    async with on_stage() as stage:
        await open_guest(stage, "web-01", "d")
        text = stage.lines()
        for word in ("● running", "10.20.0.11", "2 of at most 2", "with the host", "tier=front", "shop", "ssh-ed25519"):
            assert word in text
        await stage.press("escape")
        await open_guest(stage, "jenkins")
        assert "foreign, so vmhost shows it only" in stage.lines()


async def test_from_the_list_straight_to_xml_and_console() -> None:
    async with on_stage() as stage:
        await open_guest(stage, "web-01", "y")
        assert "<!-- as it runs -->" in stage.lines()
        await stage.press("l")
        await stage.until(lambda: "login:" in stage.lines())
        await stage.press("y", "escape")
        await open_guest(stage, "web-03", "l")
        await stage.until(lambda: "its console has said nothing yet" in stage.lines())
        await stage.press("y")
        await stage.until(lambda: "<!-- as it boots next -->" in stage.lines())


async def test_the_console_is_followed() -> None:
    async with on_stage() as stage:
        await open_guest(stage, "web-01", "l")
        domain = stage.fake.world.domains[stage.fake.domain("web-01").uuid]
        for number in range(60):
            stage.fake.machine.say(domain, f"line {number}")
        await stage.shows("line 59")
        await stage.press("g")
        stage.fake.machine.say(domain, "line 60")
        await stage.until(lambda: "line 60" in stage.lines())
        assert "line 60" not in stage.text, "who scrolled away from the end stays where he is"


async def test_the_end_is_followed_though_more_comes_before_it_was_drawn() -> None:
    async with on_stage() as stage:
        await open_guest(stage, "web-01", "l")
        await stage.until(lambda: "login:" in stage.lines())
        text = stage.app.screen.query_one("#text", Lines)
        for count in (20, 40, 60, 200):
            text.show([Line(f"line {number}") for number in range(count)])
        assert text.scroll_offset.y == text.max_scroll_y > 100


@pytest.mark.parametrize("action", ["scroll_home", "scroll_up", "page_up"])
async def test_who_goes_away_from_the_end_stays_away_though_more_comes_at_once(action: str) -> None:
    async with on_stage() as stage:
        await open_guest(stage, "web-01", "l")
        await stage.until(lambda: "login:" in stage.lines())
        text = stage.app.screen.query_one("#text", Lines)
        text.show([Line(f"line {number}") for number in range(200)])
        await stage.until(lambda: "line 199" in stage.text)
        getattr(text, f"action_{action}")()
        text.show([Line(f"line {number}") for number in range(300)])
        await stage.pilot.pause(0.5)
        assert text.scroll_offset.y < 200


async def test_events_are_told_the_newest_first() -> None:
    async with on_stage() as stage:
        await open_guest(stage, "web-01")
        await stage.press("7")
        stage.fake.hypervisor.power_off(stage.fake.domain("web-01").uuid)
        await stage.until(lambda: "stopped (destroyed)" in stage.lines())
        assert stage.lines().splitlines()[0].endswith("stopped (destroyed)")


async def test_a_guest_that_vanishes_while_its_screen_is_open() -> None:
    async with on_stage() as stage:
        await open_guest(stage, "legacy-nas")
        stage.fake.hypervisor.undefine(stage.fake.domain("legacy-nas").uuid)
        await stage.shows("this guest is gone")
        for key in (*"0123456789", *"bNvBinopzX", "u", "S", "R", "D", "e", "ctrl+d", "c", "s", "y", "l"):
            await stage.press(key)
            assert stage.place == "GuestScreen"
        await stage.press("escape")
        assert "legacy-nas" not in stage.text


async def test_drift_is_explained() -> None:
    async with on_stage() as stage:
        stage.fake.edit(
            "web-03", lambda xml: xml.replace(">2</vcpu>", ">1</vcpu>").replace('current="2"', 'current="1"')
        )
        await open_guest(stage, "web-03")
        await stage.until(
            lambda: "drift: web-03: cpus.count is 1, should be 2 (changed outside vmhost)" in stage.lines()
        )


async def test_console_and_ssh_of_a_made_up_guest_are_refused_in_words() -> None:
    async with on_stage() as stage:
        await open_guest(stage, "web-01")
        for key in ("c", "s"):
            await stage.press(key)
        assert stage.place == "GuestScreen"
        messages = [item.message for item in stage.app._notifications]
        assert len(messages) == 2


async def test_console_and_ssh_get_the_terminal_and_give_it_back(monkeypatch: pytest.MonkeyPatch) -> None:
    visited: list[tuple[str, str]] = []

    def visit(kind: str):  # type: ignore[no-untyped-def]
        def run(_host: object, name: str) -> int:
            visited.append((kind, name))
            return 0

        return run

    monkeypatch.setattr("vmhost.ops.terminal.visit_console", visit("console"))
    monkeypatch.setattr("vmhost.ops.terminal.visit_ssh", visit("ssh"))
    async with on_stage() as stage:
        from contextlib import nullcontext

        monkeypatch.setattr(stage.app, "suspend", nullcontext)
        await open_guest(stage, "web-01")
        await stage.press("c", "s")
        assert visited == [("console", "web-01"), ("ssh", "web-01")]


async def test_a_console_that_cannot_be_read_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    async with on_stage() as stage:

        def refuse(_log: str, _lines: int) -> tuple[str, ...]:
            raise Unreachable("no log today", subject="web-01")

        monkeypatch.setattr(stage.app.host, "console_tail", refuse)
        await open_guest(stage, "web-01", "l")
        await stage.until(lambda: "web-01: no log today" in stage.lines())


async def test_its_pins_are_on_the_map_of_cores() -> None:
    async with on_stage(size=(120, 60)) as stage:
        await open_guest(stage, "web-01")
        await stage.press("2")
        await stage.until(lambda: "not pinned: 34 vCPUs of all guests share 0-23" in stage.lines())
        host = stage.app.host
        host.apply(host.plan_pin("web-01", pins={0: 4, 1: 6}, policy="dedicated"))
        await stage.press("r")
        await stage.until(lambda: "@ its own pins" in stage.lines())
        lines = stage.lines().splitlines()
        assert "vCPU 0        pCPU 4" in lines
        assert "vCPU 1        pCPU 6" in lines
        assert next(line for line in lines if line.startswith("cell 0")).split()[2:9] == list("....@.@")


async def test_the_xml_says_where_it_is_not_what_was_applied() -> None:
    async with on_stage() as stage:
        await open_guest(stage, "web-01", "y")
        await stage.until(lambda: "as it was applied on 2026-" in stage.lines())
        domain = stage.fake.domain("web-01")
        stage.fake.hypervisor.define(amend.with_memory(domain.xml, 3 << 30, 3 << 30))
        await stage.until(lambda: "DIFFERENT FROM WHAT WAS APPLIED" in stage.lines())
        text = stage.lines()
        assert '-  <memory unit="KiB">3145728</memory>' in text
        assert '+  <memory unit="KiB">2097152</memory>' in text
        assert "<!-- as it runs -->" in text
        await stage.press("escape")
        await open_guest(stage, "jenkins", "y")
        await stage.until(lambda: "not compared: it is foreign" in stage.lines())


async def test_cloud_inits_log_comes_over_ssh_and_is_asked_again() -> None:
    async with on_stage() as stage:
        await open_guest(stage, "web-03")
        await stage.press("0")
        await stage.until(lambda: "web-03: it does not run" in stage.lines())
        assert "vmhost guest start web-03" in stage.lines()
        stage.fake.hypervisor.start(stage.fake.domain("web-03").uuid)
        stage.fake.advance(60)
        await stage.until(lambda: "modules:final" in stage.lines())
        stage.fake.programs["tail"] = lambda *_: Ran(b"one\n\x1b]52;c;evil\x07two\n")
        await stage.press("r")
        await stage.until(lambda: "two" in stage.lines())
        assert "\x1b" not in stage.lines()
        stage.fake.programs["tail"] = lambda *_: Ran(stderr=b"tail: no such file", exit_code=1)
        await stage.press("r")
        await stage.until(lambda: "tail: no such file" in stage.lines())
        assert "cloud-init status --long" in stage.lines()
        stage.fake.programs["tail"] = lambda *_: Ran()
        await stage.press("r")
        await stage.until(lambda: "its log is empty" in stage.lines())


async def test_an_answer_that_comes_while_the_screen_goes_is_dropped() -> None:
    async with on_stage() as stage:
        await open_guest(stage, "web-01", "y")
        screen = stage.app.screen
        gone = stage.app.pop_screen()

        def look() -> None:
            screen.query_one("#text", Lines)

        for _ in range(200):
            errands.Answer(screen, look).deliver()
            await asyncio.sleep(0)
        await gone
        errands.Answer(screen, lambda: pytest.fail("its screen is gone")).deliver()


async def test_its_services_are_those_that_were_deployed_and_how_they_are_when_it_is_asked() -> None:
    shop = Shop()
    shop.deploy()
    async with on_stage(shop.fake) as stage:
        await open_guest(stage, "web-01")
        await stage.press("5")
        await stage.until(lambda: "nginx 1.22" in stage.lines() and "it is as it was deployed" in stage.lines())
        with shop.inside("web-01") as system:
            system.land.units["nginx.service"].active = False
        await stage.press("r")
        await stage.until(lambda: "✗" in stage.lines())
        await stage.press("escape")
        await open_guest(stage, "web-02")
        await stage.press("5")
        await stage.until(lambda: "it is as it was deployed" in stage.lines())
        stage.fake.hypervisor.power_off(stage.fake.domain("web-02").uuid)
        await stage.until(lambda: "the guest does not run" in stage.lines())
        assert "nginx 1.22" in stage.lines(), "what was deployed is known all the same"


async def test_its_snapshots_and_points_are_a_list_with_the_same_keys() -> None:
    async with on_stage() as stage:
        host = Host(ports=stage.fake.ports)
        host.backups.run(["web-01"])
        await open_guest(stage, "web-01")
        await stage.press("6")
        (point,) = host.backups.list("web-01")
        await stage.until(lambda: "it never was found whole" in stage.lines("#about") and point.id in stage.text)
        await stage.press("N")
        await stage.shows("vmhost snapshot create web-01", "y yes, apply")
        await stage.press("y")
        await stage.shows("snapshot of web-01: done")
        await stage.press("escape")
        (made,) = host.snapshots.list("web-01")
        await stage.until(lambda: f"snapshot {made.name}" in stage.grid.keys)
        stage.grid.go_to(f"point {point.ref.host} {point.id}")
        await stage.press("v")
        await stage.shows(f"vmhost backup verify web-01 --point {point.id}")
        await stage.press("escape", "home", "z")
        await stage.shows(f"vmhost snapshot revert web-01 {made.name}")
        await stage.press("escape", "1")
        await stage.until(lambda: "host key" in stage.text)
        await stage.press("v")
        await stage.shows("verify all points of web-01")
        await stage.press("escape", "escape")
        await open_guest(stage, "jenkins")
        await stage.press("6")
        await stage.until(lambda: "only guests of vmhost are protected" in stage.lines("#about"))
        await stage.press("b")
        await stage.shows("this cannot be done", "foreign")
