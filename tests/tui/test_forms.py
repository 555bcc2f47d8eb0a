"""The forms: every fault is said while it is typed, and what they plan is what the command line plans."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest
from textual import events
from textual.widgets import Input

from tests.tui.stage import Stage, on_stage
from vmhost.ops.flavours import Size, sizes
from vmhost.ops.formhelp import site_files
from vmhost.ops.host import Host
from vmhost.ports import Ports
from vmhost.testing import FakeHost
from vmhost.testing.demo import demo_host

pytestmark = [pytest.mark.tui, pytest.mark.asyncio]

HOST_FILE = """apiVersion: vmhost/v1
name: host
defaults: {memory: 512M}
profiles:
  base: {cpus: 4, disks: [{size: 50G}]}
  db: {profile: base, memory: {size: 8G, max: 16G}}
"""
SITE = """apiVersion: vmhost/v1
name: extra
networks:
  lan: {bridge: br0, subnet: 10.20.0.0/24, gateway: 10.20.0.1}
guests:
  new-01:
    image: debian-12
    cpus: 1
    memory: 1G
    disks: [{size: 10G}]
    nics: [{network: lan, address: auto}]
"""


async def fill(stage: Stage, **values: str) -> None:
    for name, value in values.items():
        stage.app.screen.query_one(f"#{name}", Input).value = value
    await stage.pilot.pause()


async def test_a_new_guest_from_the_form_to_its_first_boot() -> None:
    async with on_stage() as stage:
        await stage.press("n")
        await stage.shows("debian-12, debian-13, ubuntu-24.04", "br0, br1, docker0, user, none")
        await stage.type("web-09")
        await stage.press("tab", "tab", "tab", "shift+tab", "ctrl+s")
        await stage.shows(
            "vmhost guest create web-09 --image debian-12 --cpus 2 --memory 2G --disk 20G --network br0",
            "new guest with 2 vCPUs, 2G",
        )
        await stage.press("down", "down")
        await stage.until(lambda: "+ <domain" in stage.lines())
        assert "web-09" not in [domain.name for domain in stage.fake.hypervisor.domains()]
        await stage.press("y")
        await stage.shows("new guest web-09: done")
        await stage.press("escape")
        await stage.until(lambda: "● running" in stage.row("web-09"))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"name": ""}, "is not a name"),
        ({"name": "we b"}, "is not a name"),
        ({"name": "[bold]x[/]"}, "is not a name"),
        ({"name": "web-01"}, "there is a guest of this name"),
        ({"name": "x", "image": "windows-95"}, "this host has no such image"),
        ({"name": "x", "cpus": "0"}, "0 is too small: at least 1"),
        ({"name": "x", "cpus": "two"}, "a whole number is expected"),
        ({"name": "x", "cpus": "99999999999999999999"}, "a whole number is expected"),
        ({"name": "x", "memory": "2X"}, "unknown unit 'X'"),
        ({"name": "x", "memory": "-1"}, "is not a size"),
        ({"name": "x", "disk": ""}, "is not a size"),
        ({"name": "x", "network": "br9"}, "this host has no such bridge"),
        ({"name": "x", "address": "10.99.0.1"}, "is not in the subnet 10.20.0.0/24"),
        ({"name": "x", "address": "nonsense"}, "is not an IP address"),
    ],
)
async def test_nonsense_is_said_while_it_is_typed(values: dict[str, str], words: str) -> None:
    async with on_stage() as stage:
        await stage.press("n")
        await fill(stage, **values)
        if "" in values.values():
            await stage.press("ctrl+s")
        await stage.shows(words)
        assert "1 to mend first" in stage.text
        await stage.press("ctrl+s")
        assert stage.place == "NewGuestScreen"


async def test_whether_it_fits_is_the_ledgers_word_also_before_all_is_filled_in() -> None:
    async with on_stage() as stage:
        room = {text: Host(ports=stage.fake.ports).capacity(fits=(f"2x{text}",)) for text in ("4G", "80G", "1G")}
        await stage.press("n")
        await fill(stage, memory="4G")
        await stage.shows(
            f"it fits: the ledger has room for {room['4G'].fits[0].count} of this size", "1 to mend first"
        )
        await fill(stage, memory="80G")
        assert room["80G"].fits[0].count == 0
        await stage.shows(f"it does not fit: {room['80G'].fits[0].then}"[:100])
        await fill(stage, name="x")
        await stage.shows("it cannot be done: x: needs 80")
        assert "it fits" not in stage.text
        await fill(stage, memory="nonsense")
        await stage.until(lambda: "it cannot be done" not in stage.text)


async def test_a_larger_guest_fits_or_not_by_the_ledger() -> None:
    async with on_stage() as stage:
        await stage.goto("web-01")
        await stage.press("e")
        await fill(stage, memory="90G")
        await stage.shows("it cannot be done: web-01: needs 90")
        assert "fits" not in stage.text


async def test_keys_are_letters_in_a_field() -> None:
    async with on_stage() as stage:
        await stage.press("n", "q", "t", "colon", "question_mark")
        assert stage.app.screen.query_one("#name", Input).value == "qt:?"
        await stage.press("escape")
        assert stage.place == "GuestsScreen"


async def test_an_address_that_is_taken_is_refused_by_the_plan() -> None:
    async with on_stage() as stage:
        await stage.press("n")
        await fill(stage, name="x", address="10.20.0.11")
        await stage.press("enter")
        await stage.shows("this cannot be done", "address 10.20.0.11 is taken by web-01")


async def test_a_host_without_images_says_how_to_get_one() -> None:
    async with on_stage(FakeHost()) as stage:
        await stage.press("n")
        await stage.shows("vmhost image build debian-12")
        await stage.press("ctrl+s")
        await stage.shows("this host has no such image")


async def test_a_resize_waits_for_the_next_boot_unless_it_may_restart() -> None:
    async with on_stage() as stage:
        await stage.goto("web-01")
        await stage.press("e")
        await stage.shows("now 2; the host has 24 CPUs", "now 2G")
        await fill(stage, cpus="4", memory="3G")
        await stage.press("ctrl+s")
        await stage.shows("vmhost guest resize --cpus 4 --memory 3G web-01", "next boot", "runs on as it is")
        await stage.until(lambda: "-  <vcpu" in stage.lines())
        await stage.press("b")
        await stage.shows("vmhost guest resize --cpus 4 --memory 3G web-01 --allow-stop", "needs stop")
        await stage.until(lambda: "y yes, apply" in stage.text)
        await stage.press("y")
        await stage.shows(": done")
        await stage.press("escape")
        await stage.until(lambda: " 4 " in stage.row("web-01") and "3G" in stage.row("web-01"))


@pytest.mark.parametrize(("values", "words"), [({"cpus": ""}, "whole number"), ({"memory": "1K"}, "too small")])
async def test_a_resize_to_nonsense(values: dict[str, str], words: str) -> None:
    async with on_stage() as stage:
        await stage.goto("web-01")
        await stage.press("e")
        await fill(stage, **values)
        await stage.press("ctrl+s")
        await stage.shows(words, "1 to mend first")
        assert stage.place == "ResizeScreen"


async def test_a_foreign_guest_is_not_resized_and_many_are_not_at_once() -> None:
    async with on_stage() as stage:
        await stage.goto("jenkins")
        await stage.press("e", "ctrl+s")
        await stage.shows("this cannot be done", "foreign")
        await stage.press("escape", "space", "space", "e")
        assert stage.place == "GuestsScreen"


async def test_a_profile_fills_in_sizes_and_the_host_file_has_more(tmp_path: Path) -> None:
    fake = demo_host(speed=0)
    fake.layout = replace(fake.layout, config=tmp_path)
    (tmp_path / "host.yaml").write_text(HOST_FILE, encoding="utf-8")
    async with on_stage(fake) as stage:
        await stage.press("n")
        await stage.shows("small, medium, large, base, db")
        await fill(stage, name="x", profile="db")
        values = [stage.app.screen.query_one(f"#{name}", Input).value for name in ("cpus", "memory", "disk")]
        assert values == ["4", "8G", "50G"]
        await stage.press("ctrl+s")
        await stage.shows(
            "vmhost guest create x --profile db --image debian-12 --network br0", "new guest with 4 vCPUs"
        )
        await stage.press("y")
        await stage.shows("new guest x: done")
        assert "16777216</maxMemory>" in stage.fake.domain("x").xml, "what a profile says beside sizes is heard, too"
        await stage.press("escape", "n")
        await fill(stage, name="y", profile="db")
        await fill(stage, profile="medium")
        await fill(stage, memory="3G")
        await fill(stage, profile="nonsense")
        await stage.shows("there is no such profile")
        assert stage.app.screen.query_one("#memory", Input).value == "3G", "what a person wrote stays"


async def test_what_is_typed_in_one_go_goes_to_the_fields_that_it_is_meant_for() -> None:
    async with on_stage() as stage:
        await stage.press("n")
        await stage.shows("small, medium, large")
        last = ("tab", "tab", "tab", "end", "G")
        for key in (*"x", "ctrl+u", *"web-0x", "backspace", "9", "tab", "tab", *"medium", *last):
            stage.app.post_message(events.Key(key, key if len(key) == 1 else None))  # all at once, as over a slow line
        await stage.shows("web-09", "20GG")
        ids = ("name", "profile", "memory", "disk")
        values = [stage.app.screen.query_one(f"#{name}", Input).value for name in ids]
        assert values == ["web-09", "medium", "4G", "20GG"]


async def test_the_form_is_there_before_the_hosts_file_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, read = Event(), Event()

    def slowly(ports: Ports) -> dict[str, Size]:
        asked.set()
        assert read.wait(60)
        return sizes(ports)

    monkeypatch.setattr("vmhost.tui.screens.newguest.sizes", slowly)
    async with on_stage() as stage:
        try:
            await stage.press("n")
            await stage.shows("reading the profiles")
            await stage.until(asked.is_set)
            await fill(stage, name="x", profile="large")
        finally:
            read.set()
        await stage.shows("fills in what follows: small, medium, large")
        await stage.until(lambda: stage.app.screen.query_one("#memory", Input).value == "8G")


async def test_whether_it_can_be_done_is_said_while_it_is_typed() -> None:
    async with on_stage() as stage:
        await stage.press("n")
        await fill(stage, name="x")
        await stage.shows("it can be done: ")
        await fill(stage, address="10.20.0.11")
        await stage.shows("it cannot be done: x: address 10.20.0.11 is taken by web-01")
        assert "x" not in [domain.name for domain in stage.fake.hypervisor.domains()]


async def test_a_guest_is_pinned_from_the_form() -> None:
    async with on_stage() as stage:
        await stage.goto("web-01")
        await stage.press("P")
        await stage.shows("policy", "it has 2 vCPUs")
        await fill(stage, policy="dedicated", pins="0=4 1=6")
        await stage.shows("it can be done: ")
        await stage.press("ctrl+s")
        await stage.shows("vmhost guest pin --policy dedicated --vcpu 0=4 --vcpu 1=6 web-01")
        await stage.until(lambda: "+ pins: (0, '4')" in stage.lines() or "cputune" in stage.lines())
        await stage.press("y")
        await stage.shows("pin web-01: done")
        assert "<vcpupin" in stage.fake.domain("web-01").xml


async def test_a_mixed_guest_is_pinned_from_the_form_and_keeps_what_is_not_said() -> None:
    fake = demo_host(speed=0)
    host = Host(ports=fake.ports)
    host.apply(host.plan_pin("web-01", policy="mixed", dedicated="1"))
    async with on_stage(fake) as stage:
        await stage.goto("web-01")
        await stage.press("P")
        await stage.shows("as 0-1; now 1", "there is nothing to do")
        await fill(stage, pins="1=6")
        await stage.shows("it can be done: ")
        await fill(stage, pins="0=6")
        await stage.shows("vCPU 0 is none of those that have pCPUs of their own")
        await fill(stage, pins="1=6")
        await stage.press("ctrl+s")
        await stage.shows("vmhost guest pin --policy mixed --vcpu 1=6 web-01")
        await stage.until(lambda: "y yes, apply" in stage.text)
        await stage.press("y")
        await stage.shows("pin web-01: done")
        await stage.press("escape")
        await stage.press("P")
        await fill(stage, policy="dedicated")
        await stage.shows("it can be done: ")


NO_PINS = (
    ({"policy": "mine"}, "Input should be 'shared', 'dedicated', 'isolated' or 'mixed'"),
    ({"policy": "dedicated", "pins": "0-4"}, "'0-4' is no vCPU and pCPU: write 0=4 1=6"),
    ({"policy": "dedicated", "pins": "0=4 1=4"}, "pCPU 4 is given to two vCPUs"),
    ({"policy": "dedicated", "pins": "7=4"}, "vCPU 7 is none of those that have pCPUs of their own"),
    ({"policy": "mixed"}, "policy mixed and dedicated belong together"),
    ({"limit": "a lot"}, "a number of pCPUs is expected"),
    ({"policy": ""}, "nothing is to be changed yet"),
    ({"policy": "dedicated", "pins": "0=99"}, "it cannot be done: "),
)


async def test_pins_that_make_no_sense() -> None:
    async with on_stage() as stage:
        await stage.goto("web-01")
        await stage.press("P", "ctrl+a", "ctrl+k", "ctrl+s")
        for values, words in NO_PINS:
            await fill(stage, **{"policy": "shared", "pins": "", "limit": "", **values})
            await stage.shows(words)
        assert stage.place == "PinScreen"


async def test_several_guests_are_not_pinned_at_once() -> None:
    async with on_stage() as stage:
        await stage.press("space", "space", "P")
        await stage.tells("pin takes one guest at a time")


async def test_site_files_are_found_but_not_those_that_cannot_be_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "etc" / "sites").mkdir(parents=True)
    for name in ("b.yaml", "a.yaml", "x\x1b]52;c;evil\x07.yaml", "keys.yaml", "notes.txt", "etc/sites/shop.yaml"):
        (tmp_path / name).write_text("", encoding="utf-8")
    assert site_files(tmp_path / "etc") == ("a.yaml", "b.yaml", str(tmp_path / "etc" / "sites" / "shop.yaml"))
    assert site_files(tmp_path / "gone") == ("a.yaml", "b.yaml")


async def test_a_site_is_applied_from_the_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "site.yaml"
    file.write_text(SITE, encoding="utf-8")
    async with on_stage() as stage:
        await stage.press("a")
        await stage.press("ctrl+s")
        await stage.shows("which site file?")
        await fill(stage, file="gone.yaml")
        await stage.shows("it cannot be done: gone.yaml: there is no such file")
        await fill(stage, file=file.name)
        await stage.shows("it can be done: ")
        file.write_text(SITE.replace("memory: 1G", "memry: 1G\n    cpus: none"), encoding="utf-8")
        await stage.press("ctrl+s")
        await stage.shows("this cannot be done")
        await stage.until(lambda: "line 9" in stage.lines() and "memry" in stage.lines())
        file.write_text(SITE, encoding="utf-8")
        await stage.press("r")
        await stage.shows("vmhost apply ", "new-01: new guest with 1 vCPU, 1G")
        await stage.press("y")
        await stage.shows("site.yaml: done")
        await stage.press("escape")
        await stage.until(lambda: "● running" in stage.row("new-01"))
        await stage.press("a")
        assert stage.app.screen.query_one("#file", Input).value == file.name, "it is remembered until one leaves"
