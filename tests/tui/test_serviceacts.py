"""What is done to services from their screen: the plan first, the same as the command does, and logs that end."""

from __future__ import annotations

import json
import shlex
import threading
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from textual.widgets import Input

from tests.services.shop import HEAD, NGINX, Shop
from tests.services.test_roll import NEW
from tests.services.test_watch import HEALED, Ward
from tests.tui.stage import Stage, on_stage
from vmhost.cli.service import service
from vmhost.model.errors import DriverError
from vmhost.model.services import KeptLook
from vmhost.ops import servicelogs
from vmhost.ops.servicelogs import LogLine
from vmhost.ops.services import Services
from vmhost.testing.records import FakeHistory
from vmhost.tui.rows.cells import LONGEST
from vmhost.tui.screens import servicelog
from vmhost.tui.screens.plan import Phase, PlanScreen
from vmhost.tui.widgets.lines import Lines

pytestmark = [pytest.mark.tui, pytest.mark.asyncio]

OTHER = """
  other:
    version: "1"
    guests: [web-01, web-02]
    files: [{path: /etc/other.conf, content: "x"}]
"""


@pytest.fixture
def shop() -> Shop:
    made = Shop()
    made.deploy()
    return made


async def services(stage: Stage) -> None:
    await stage.press("colon", *"services", "enter")
    await stage.shows("none of ")


async def planned(stage: Stage) -> None:
    def shown() -> bool:
        screen = stage.app.screen
        return isinstance(screen, PlanScreen) and screen._phase is not Phase.PLANNING and screen._phase in stage.text

    await stage.until(shown)


def active(shop: Shop, guest: str) -> bool:
    with shop.inside(guest) as system:
        return system.land.units["nginx.service"].active


def parses(command: str) -> bool:
    """Whether vmhost takes a command line."""
    program, noun, verb, *words = shlex.split(command)
    assert (program, noun) == ("vmhost", "service")
    service.commands[verb].make_context(verb, words)
    return True


@pytest.mark.parametrize(("key", "verb", "runs"), [("S", "stop", False), ("R", "restart", True)])
async def test_a_service_is_stopped_or_restarted_by_its_plan(shop: Shop, key: str, verb: str, runs: bool) -> None:
    async with on_stage(shop.fake, size=(160, 40)) as stage:
        await services(stage)
        await stage.press(key)
        await planned(stage)
        command = f"vmhost service {verb} nginx --guest web-01"
        await stage.shows(
            f"$ {command}", f"web-01: nginx: {verb} nginx.service", "nothing is done yet", "is not undone"
        )
        assert parses(command)
        assert "now: active (running)" in stage.lines()
        assert active(shop, "web-01")
        await stage.press("y")
        await stage.shows(": done", "✓")
        assert active(shop, "web-01") is runs
        assert active(shop, "web-02")
        assert shop.fake.ports.history.jobs(limit=1)[0].kind == f"service {verb}"
        await stage.press("escape")
        await stage.shows("1 of 2 are not well" if verb == "stop" else "none of 2 is down")


async def test_what_was_stopped_is_started_and_no_is_no(shop: Shop) -> None:
    shop.services.act(["nginx"], "stop", guests=["web-02"])
    async with on_stage(shop.fake) as stage:
        await stage.press("colon", *"services", "enter")
        await stage.shows("1 of 2 are not well")
        assert stage.grid.keys[0] == "web-02/nginx"
        await stage.press("home", "u")
        await planned(stage)
        assert "now: inactive" in stage.lines()
        await stage.press("escape")
        assert not active(shop, "web-02")
        await stage.press("u")
        await planned(stage)
        await stage.press("y")
        await stage.shows(": done")
        assert active(shop, "web-02")


async def test_marked_services_are_taken_together_and_a_failure_ends_it(shop: Shop) -> None:
    async with on_stage(shop.fake) as stage:
        await services(stage)
        await stage.press("asterisk", "R")
        await planned(stage)
        await stage.shows("$ vmhost service restart nginx", "web-02: nginx: restart")
        with shop.inside("web-01") as system:
            system.land.units["nginx.service"].active = False

        def refuses(_inside: Any, _arguments: Any, _data: Any) -> Any:
            raise DriverError("systemd said no", subject="web-01")

        shop.fake.programs["systemctl"] = refuses
        await stage.press("y")
        await stage.shows(": failed", "systemd said no", "nginx: not tried")
        assert "✗ FAILED" in stage.row("web-01: nginx: restart")
        assert "FAILED" not in stage.row("web-02: nginx: restart")


async def test_orders_and_the_probes_alone(shop: Shop) -> None:
    shop.deploy(NGINX + OTHER)
    async with on_stage(shop.fake) as stage:
        await services(stage)
        with shop.inside("web-02") as system:
            system.land.units["nginx.service"].active = False
        stage.grid.go_to("web-02/nginx")
        await stage.press("p")
        await stage.shows("nginx in web-02 is down")
        assert stage.grid.keys[0] == "web-02/nginx"
        assert stage.grid.key == "web-02/nginx", "the cursor stays on its service"
        await stage.press("o")
        assert stage.grid.keys == ("web-02/nginx", "web-01/nginx", "web-01/other", "web-02/other")
        assert "SERVICE▲" in stage.text
        await stage.press("o")
        assert [key.partition("/")[0] for key in stage.grid.keys] == ["web-01", "web-01", "web-02", "web-02"]


async def test_what_the_watch_has_seen_is_shown_below() -> None:
    shop = Shop()
    shop.deploy(HEALED)
    Ward(shop).pass_seconds(10)
    uuid = shop.fake.domain("web-01").uuid
    shop.fake.ports.history.looked([KeptLook(uuid, "nginx", "web", 5.0, good=False, seconds=5.0, text="refused")])
    async with on_stage(shop.fake, size=(160, 40)) as stage:
        await services(stage)
        await stage.until(lambda: "looks since" in stage.lines("#looks"))
        text = stage.lines("#looks")
        assert "median " in text
        assert "95th " in text
        assert "1 bad, the last 1970-01-01T00:00:05Z: refused" in text
        assert "✗" in next(line for line in text.splitlines() if "looks since" in line and "✗" in line)


async def test_a_past_that_cannot_be_read_hides_nothing_else(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(*_: Any) -> Any:
        raise DriverError("the file is damaged", subject="looks")

    monkeypatch.setattr(FakeHistory, "looks", unreadable)
    async with on_stage(shop.fake) as stage:
        await services(stage)
        await stage.until(lambda: "not read: the file is damaged" in stage.lines("#looks"))
        assert "it is as it was deployed" in stage.lines("#looks")


async def fill(stage: Stage, **values: str) -> None:
    for name, value in values.items():
        stage.app.screen.query_one(f"#{name}", Input).value = value
    await stage.pilot.pause()


async def test_a_deployment_from_the_form_to_its_end(tmp_path: Path) -> None:
    shop, file = Shop(), tmp_path / "shop.yaml"
    file.write_text(HEAD + NGINX, encoding="utf-8")
    async with on_stage(shop.fake, size=(160, 40)) as stage:
        await stage.press("colon", *"services", "enter")
        await stage.shows("a deploys those of a site file")
        await stage.press("a", "ctrl+s")
        await stage.shows("which site file?")
        await fill(stage, file=str(tmp_path / "none.yaml"))
        await stage.shows("it cannot be done", "none.yaml")
        await fill(stage, file=str(file), only="ngin")
        await stage.shows("it cannot be done", "site shop has no such service; it has nginx")
        await fill(stage, only="nginx", guests="web-02")
        await stage.shows("it can be done: ")
        await stage.press("ctrl+s")
        await planned(stage)
        command = f"vmhost service deploy {file} --only nginx --guest web-02"
        await stage.until(lambda: command in stage.text.replace("\n", "").replace(" " * 10, ""))
        assert parses(command)
        assert "web-01" not in stage.text
        await stage.press("down", "down", "down")
        await stage.until(
            lambda: "+server { listen 80; }" in stage.lines() or "+ server { listen 80; }" in stage.lines()
        )
        await stage.press("y")
        await stage.shows(": done", "nginx in web-02: ")
        assert active(shop, "web-02")
        await stage.press("escape")
        await stage.shows("none of 1 is down")


async def test_no_secret_is_read_before_the_plan(tmp_path: Path) -> None:
    shop, file, told = Shop(), tmp_path / "shop.yaml", tmp_path / "told"
    secret = f'environment: {{TOKEN: {{command: [sh, -c, "echo x >> {told}; echo word"]}}}}'
    file.write_text(HEAD + NGINX.replace("unit: nginx", f"unit: nginx\n    {secret}"), encoding="utf-8")
    async with on_stage(shop.fake) as stage:
        await stage.press("colon", *"services", "enter", "a")
        await fill(stage, file=str(file))
        await stage.shows("its secrets are read for the plan only")
        assert not told.exists()
        await stage.press("ctrl+s")
        await planned(stage)
        await stage.shows("nothing is done yet")
        assert told.read_text(encoding="utf-8") == "x\n"


async def test_a_guest_that_changed_meanwhile_is_not_touched(shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(HEAD + NGINX.replace("listen 80;", "listen 81;"), encoding="utf-8")
    async with on_stage(shop.fake) as stage:
        await services(stage)
        await stage.press("a")
        await fill(stage, file=str(file))
        await stage.press("ctrl+s")
        await planned(stage)
        with shop.inside("web-01") as system:
            system.files["/etc/nginx/conf.d/shop.conf"] = b"by another hand"
        await stage.press("y")
        await stage.shows(": failed", "the guest changed since the plan was shown", "r plans again")
        assert shop.picture("web-01")["files"]["/etc/nginx/conf.d/shop.conf"] == b"by another hand"
        await stage.press("r")
        await stage.shows("nothing is done yet")


async def test_a_roll_and_its_way_back(shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(HEAD + NEW, encoding="utf-8")
    async with on_stage(shop.fake, size=(200, 50)) as stage:
        await services(stage)
        await stage.press("V")
        await fill(stage, service="ngin", canary="x", away="0")
        await stage.shows("there is no service 'ngin'", "0 to 1000", "1 to 1000", "4 to mend first")
        await fill(stage, service="nginx", canary="1", away="1", file=str(file), to="1.26")
        await stage.shows("not both")
        await fill(stage, to="")
        await stage.shows("it can be done: ")
        await stage.press("ctrl+s")
        await planned(stage)
        await stage.shows("batch 1 (canary): web-01: nginx: ", "batch 2: web-02: nginx: ")
        await stage.press("b")
        await planned(stage)
        rolling = "--canary 1 --batch 1 --max-unavailable 1"
        command = f"vmhost service roll nginx {file} {rolling} --rollback-on-failure"
        await stage.until(lambda: command in stage.text.replace("\n", "").replace(" " * 10, ""))
        assert parses(command)
        await stage.press("y")
        await stage.shows(": done")
        versions = [shop.picture(guest)["packages"]["nginx"] for guest in ("web-01", "web-02")]
        assert versions == ["1.26.3-1"] * 2
        await stage.press("escape")
        await stage.shows("none of 2 is down")
        await stage.press("B")
        await planned(stage)
        await stage.shows("$ vmhost service roll nginx --back")
        await stage.press("y")
        await stage.shows(": done", "rolled back")
        versions = [shop.picture(guest)["packages"]["nginx"] for guest in ("web-01", "web-02")]
        assert versions == ["1.22.1-9"] * 2


async def test_a_roll_to_a_version_shows_what_to_write_into_the_file(shop: Shop) -> None:
    async with on_stage(shop.fake, size=(160, 50)) as stage:
        await services(stage)
        await stage.press("V")
        await fill(stage, to="9.9")
        await stage.shows("no version of nginx begins with 9.9")
        await fill(stage, to="1.26")
        await stage.shows("it can be done: ")
        await stage.press("ctrl+s")
        await planned(stage)
        await stage.press("y")
        await stage.shows("write the same into the site file", 'version: "1.26"')


async def test_a_service_is_taken_out_of_its_guest(shop: Shop) -> None:
    async with on_stage(shop.fake, size=(160, 40)) as stage:
        await services(stage)
        await stage.press("ctrl+d")
        await planned(stage)
        await stage.shows("$ vmhost service delete nginx --guest web-01")
        await stage.press("y")
        await stage.shows(": done")
        await stage.press("escape")
        await stage.shows("none of 1 is down")
        assert stage.grid.keys == ("web-02/nginx",)


def entry(second: float, message: Any) -> str:
    return json.dumps({"__REALTIME_TIMESTAMP": str(int(second * 1e6)), "__CURSOR": f"c{second}", "MESSAGE": message})


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "service-log"]


async def test_the_log_is_merged_followed_safe_and_ends_with_its_screen(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servicelogs, "PAUSE", 0.01)
    for guest, second, text in (("web-01", 1.0, "one \x1b]52;c;x\x07 [/red]"), ("web-02", 2.0, "two \u202e")):
        with shop.inside(guest) as system:
            system.land.journal = [entry(second, text)]
    async with on_stage(shop.fake) as stage:
        await services(stage)
        await stage.until(lambda: not readers())  # those of tests before have ended
        await stage.press("l")
        await stage.shows("00:00:01 web-01", "00:00:02 web-02", r"one \x1b]52;c;x\x07 [/red]", r"\u202e")
        assert "\x1b" not in stage.text
        with shop.inside("web-01") as system:
            system.land.journal.append(entry(3.0, "three"))
        await stage.shows("00:00:03 web-01  three")
        await stage.press("w")
        await stage.tells("vmhost service logs nginx --follow --since 10m")
        assert parses("vmhost service logs nginx --follow --since 10m")
        (reader,) = readers()
        await stage.press("escape")
        assert stage.place == "ServicesScreen"
        await stage.until(lambda: not reader.is_alive())


async def test_a_service_that_writes_without_end_fills_no_memory_and_stops_no_key(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servicelog, "KEPT", 50)
    told, enough, pause = 0, Event(), Event()

    def endless(*_: Any, cancelled: Any, **__: Any) -> Iterator[LogLine]:
        nonlocal told
        while not cancelled():
            told += 1
            yield LogLine(float(told), "web-01", "nginx", f"line {told} " + "x" * 100_000)
            if told == 400:
                enough.set()
            while told >= 400 and not cancelled():
                pause.wait(0.01)

    monkeypatch.setattr(Services, "logs", endless)
    async with on_stage(shop.fake) as stage:
        await services(stage)
        await stage.press("l")
        await stage.until(enough.is_set)
        await stage.until(lambda: "line 400 " in stage.lines("#log"))
        screen = stage.app.screen
        assert isinstance(screen, servicelog.ServiceLogScreen)
        assert len(screen._kept) == 50
        assert max(len(line.text) for line in screen._kept) < LONGEST + 100
        await stage.press("escape")
        assert stage.place == "ServicesScreen"


async def test_a_guest_that_does_not_answer_is_told_in_the_log(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servicelogs, "PAUSE", 0.01)

    def refuses(_inside: Any, _arguments: Any, _data: Any) -> Any:
        raise DriverError("no way \x1b[31m in", subject="web-01")

    shop.fake.programs["journalctl"] = refuses
    async with on_stage(shop.fake) as stage:
        await services(stage)
        await stage.press("l")
        await stage.shows("web-01  (not read: no way")
        assert "\x1b" not in stage.text


async def test_a_bar_that_appears_stands_where_the_text_is(shop: Shop) -> None:
    with shop.inside("web-01") as system:
        system.land.journal = [entry(float(second), f"line {second}") for second in range(1, 200)]
    async with on_stage(shop.fake) as stage:
        await services(stage)
        await stage.press("l")
        await stage.shows("line 199")
        log = stage.app.screen.query_one("#log", Lines)
        await stage.until(lambda: log.show_vertical_scrollbar)
        assert log.vertical_scrollbar.position == log.scroll_y == log.max_scroll_y > 0
