"""The list of guests: what it shows, every key of it, the filter, the marks, the cursor."""

from __future__ import annotations

import asyncio
import threading

import pytest
from textual.events import Key

from bench.bench_tui import crowded
from tests.services.shop import Shop
from tests.tui.stage import Stage, on_stage
from vmhost.model.errors import Refused
from vmhost.model.observed import DomainState
from vmhost.model.services import KeptLook
from vmhost.ops.care import Rounds, read_care
from vmhost.ops.host import Host
from vmhost.ops.protectionview import RPO
from vmhost.ops.sites import parse_site
from vmhost.testing import FakeHost, builders
from vmhost.testing.demo import demo_host

pytestmark = [pytest.mark.tui, pytest.mark.asyncio]


def names(stage: Stage) -> list[str]:
    by_uuid = {domain.uuid: domain.name for domain in stage.fake.hypervisor.domains()}
    return [by_uuid[key] for key in stage.grid.keys]


async def test_it_shows_the_host_and_all_guests_at_once() -> None:
    async with on_stage() as stage:
        assert "15 guests, 10 running" in stage.rows[0]
        assert "memory 51G of 96G" in stage.rows[0]
        assert "● running" in stage.row("db-01")
        assert "10.20.0.14" in stage.row("db-01")
        assert "protected" in stage.row("db-01")
        assert "foreign" in stage.row("jenkins")
        assert "✗ crashed" in stage.row("vpn-01")
        assert "saved" in stage.row("lab-03")
        assert names(stage) == sorted(names(stage))


@pytest.mark.parametrize(
    ("width", "there", "gone"), [(80, "FLAGS", "SITE"), (120, "VLAN     ", "SITE"), (200, "SITE", "")]
)
async def test_columns_follow_the_width(width: int, there: str, gone: str) -> None:
    async with on_stage(size=(width, 24)) as stage:
        head = stage.rows[1]
        assert "NAME" in head
        assert "STATE" in head
        assert there in head
        assert not gone or gone not in head
        assert all(len(row) <= width for row in stage.rows)


async def test_the_maximum_of_memory_has_a_column() -> None:
    fake = demo_host(speed=0)
    host = Host(ports=fake.ports)
    site = "{apiVersion: vmhost/v1, name: s, guests: {grows: {image: debian-12, disks: [{size: 4G}], memory: %s}}}"
    host.apply(host.plan(parse_site(site % "{size: 1G, max: 3G}")))
    async with on_stage(fake, size=(200, 40)) as stage:
        start = stage.rows[1].index("  MAX") + 2
        assert stage.row("grows")[start - 2 : start + 3].strip() == "3G"


async def test_the_cursor_moves_and_stays_on_its_guest() -> None:
    async with on_stage() as stage:
        await stage.press("down", "j", "k")
        assert stage.row("cache-01").startswith("▸")
        await stage.press("end")
        assert stage.row("web-03").startswith("▸")
        await stage.press("home")
        assert stage.row("build-01").startswith("▸")
        await stage.goto("lab-01")
        await stage.press("o", "o")
        assert stage.row("lab-01").startswith("▸")
        stage.fake.hypervisor.undefine(stage.fake.domain("legacy-nas").uuid)
        await stage.until(lambda: "legacy-nas" not in stage.text)
        assert stage.row("lab-01").startswith("▸")


async def test_a_guest_that_leaves_from_under_the_cursor_gives_it_to_the_next() -> None:
    async with on_stage() as stage:
        await stage.goto("legacy-nas")
        stage.fake.hypervisor.undefine(stage.fake.domain("legacy-nas").uuid)
        await stage.until(lambda: "legacy-nas" not in stage.text)
        assert stage.row("mail-01").startswith("▸")


async def test_sorting_goes_through_all_columns_and_turns() -> None:
    async with on_stage() as stage:
        await stage.press("o")
        assert "STATE▲" in stage.rows[1]
        assert names(stage)[-5:] == ["lab-03", "legacy-nas", "mail-01", "vpn-01", "web-03"] or set(
            names(stage)[-5:]
        ) == {"lab-03", "legacy-nas", "mail-01", "vpn-01", "web-03"}
        await stage.press("o", "o")
        assert "MEMORY▲" in stage.rows[1]
        assert names(stage)[0] == "build-01"
        await stage.press("O")
        assert "MEMORY▼" in stage.rows[1]
        assert names(stage)[-1] == "build-01"
        await stage.press("o", "o", "o")
        assert "ADDRESS▼" in stage.rows[1]
        assert names(stage)[-1] == "web-01"


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("web", {"web-01", "web-02", "web-03"}),
        ("WEB !03", {"web-01", "web-02"}),
        ("!shop !foreign", {"lab-01", "lab-02", "lab-03", "vpn-01"}),
        ("label=tier", {"web-01", "web-02", "web-03"}),
        ("label=tier=fr running", {"web-01", "web-02"}),
        ("label=tier=back", set()),
        ("10.20.0.14", {"db-01"}),
        ("foreign", {"jenkins", "legacy-nas", "router"}),
    ],
)
async def test_the_filter(query: str, shown: set[str]) -> None:
    async with on_stage() as stage:
        await stage.press("slash")
        await stage.type(query)
        assert set(names(stage)) == shown
        if not shown:
            assert "no guest matches" in stage.text
        await stage.press("enter")
        assert f"/{query}" in stage.rows[0]
        await stage.press("escape")
        assert len(names(stage)) == 15


async def test_marks_are_shown_counted_and_left() -> None:
    async with on_stage() as stage:
        await stage.press("space", "space")
        assert "2 marked" in stage.rows[0]
        assert stage.row("build-01").startswith(" ✓")
        await stage.press("home", "space")
        assert "1 marked" in stage.rows[0]
        await stage.press("asterisk")
        assert "15 marked" in stage.rows[0]
        await stage.press("asterisk")
        assert "marked" not in stage.rows[0]
        await stage.press("space", "escape")
        assert "marked" not in stage.rows[0]


async def test_a_marked_guest_that_is_gone_is_not_marked_any_more() -> None:
    async with on_stage() as stage:
        await stage.goto("legacy-nas")
        await stage.press("space")
        stage.fake.hypervisor.undefine(stage.fake.domain("legacy-nas").uuid)
        await stage.until(lambda: "marked" not in stage.rows[0])


async def test_what_happens_to_guests_is_seen_without_being_asked_for() -> None:
    async with on_stage(interval=60) as stage:
        stage.fake.hypervisor.power_off(stage.fake.domain("web-01").uuid)
        await stage.until(lambda: "○ shut off" in stage.row("web-01"))
        assert "9 running" in stage.rows[0]
        spec = builders.guest("new-01")
        who = builders.identity(spec, number=99)
        stage.fake.hypervisor.define(builders.domain_xml(spec, who, builders.metadata(spec, who)))
        await stage.shows("new-01", "16 guests")


async def test_what_was_changed_past_vmhost_is_marked_as_drift() -> None:
    async with on_stage() as stage:
        assert "drift" not in stage.text
        stage.fake.edit(
            "web-03", lambda xml: xml.replace('current="2">2<', 'current="1">2<').replace(">2</vcpu>", ">1</vcpu>")
        )
        await stage.until(lambda: "⚠ drift" in stage.row("web-03"))


async def test_rates_appear_with_the_second_picture() -> None:
    fake = FakeHost()
    fake.add_image()
    async with on_stage() as stage:
        stage.fake.advance(1)
        await stage.picture()
        stage.fake.advance(1)
        await stage.picture()
        assert "/s" in stage.row("db-01")
        assert "/s" not in stage.row("web-03")


async def test_only_cells_that_changed_are_drawn_again() -> None:
    async with on_stage(interval=60, size=(80, 24)) as stage:
        await stage.picture()
        stage.grid.drawn = 0
        await stage.picture()
        assert stage.grid.drawn == 0, "nothing changed on a host whose time stands still"
        await stage.press("down")
        assert stage.grid.drawn == 2


async def test_a_host_without_guests_says_what_to_do() -> None:
    async with on_stage(FakeHost()) as stage:
        await stage.shows("no guests yet", "0 guests, 0 running")
        for key in ("enter", "d", "y", "l", "space", "asterisk", "u", "S", "R", "D", "e", "ctrl+d", "c", "s", "o", "O"):
            await stage.press(key)
        assert stage.place == "GuestsScreen"


async def test_the_mouse_chooses_opens_and_sorts() -> None:
    async with on_stage() as stage:
        await stage.pilot.click("#guests", offset=(6, 4))
        assert stage.row("db-02").startswith("▸")
        await stage.pilot.click("#guests", offset=(stage.rows[1].index("MEMORY"), 0))
        assert "MEMORY▲" in stage.rows[1]
        await stage.pilot.click("#guests", offset=(6, 1), times=2)
        await stage.until(lambda: stage.place == "GuestScreen")


async def test_a_paused_and_a_saved_guest_can_be_told_without_colour() -> None:
    async with on_stage(unicode=False) as stage:
        assert "= paused" in stage.row("lab-02")
        assert "x crashed" in stage.row("vpn-01")
        assert "* running" in stage.row("web-01")
        assert stage.row("build-01").startswith(">")
        assert all(ord(char) < 128 for row in stage.rows[:-1] for char in row)


async def test_a_state_that_comes_with_the_counters_is_shown() -> None:
    async with on_stage(interval=0.05) as stage:
        stage.fake.world.domains[stage.fake.domain("web-01").uuid].state = DomainState.PAUSED
        await stage.until(lambda: "◐ paused" in stage.row("web-01"))


async def test_what_is_typed_fast_after_a_key_is_neither_lost_nor_a_command() -> None:
    async with on_stage() as stage:
        for key, letter in (("slash", "/"), ("w", "w"), ("e", "e"), ("b", "b")):
            stage.app._driver.process_message(Key(key, letter))  # type: ignore[union-attr]
        await stage.until(lambda: names(stage) == ["web-01", "web-02", "web-03"])
        assert stage.place == "GuestsScreen"
        await stage.press("escape")
        for key, letter in (("colon", ":"), ("h", "h"), ("o", "o"), ("s", "s"), ("t", "t")):
            stage.app._driver.process_message(Key(key, letter))  # type: ignore[union-attr]
        await stage.until(lambda: stage.place == "CommandLine" and ":host" in stage.text)
        await stage.press("enter")
        await stage.until(lambda: stage.place == "HostScreen")


async def test_services_and_verified_points_stand_in_columns_of_their_own() -> None:
    shop = Shop()
    shop.deploy()
    now = shop.fake.ports.clock.now()
    uuid = {name: shop.fake.domain(name).uuid for name in ("web-01", "web-02", "db-01")}
    shop.fake.history.looked([KeptLook(uuid["web-01"], "nginx", probe, now, True, 0.1) for probe in ("http", "unit")])
    shop.fake.history.looked([KeptLook(uuid["web-02"], "nginx", "unit", now, True, 0.1)])
    shop.fake.history.looked([KeptLook(uuid["web-02"], "nginx", "http", now, False, 0.1, "refused")])
    for guest in ("web-01", "db-01"):
        shop.host.backups.run([guest])
    shop.fake.advance(5 * 60)
    shop.host.backups.verify("web-01")
    async with on_stage(shop.fake, size=(200, 60)) as stage:
        await stage.until(lambda: "1/1" in stage.row("web-01"))
        head = stage.rows[1]
        where = [(head.index(title) + len(title), width) for title, width in (("SVC", 5), ("PROT", 5))]

        def told(name: str) -> list[str]:
            return [stage.row(name)[end - width : end].strip() for end, width in where]

        assert told("web-01") == ["1/1", "5m"]
        assert told("web-02") == ["0/1", "none"]
        assert told("db-01") == ["-", "never"]
        assert told("jenkins") == ["-", "-"]
        shop.fake.advance(3600)  # the watch is not at work any more
        shop.host.backups.verify("db-01")
        stage.app.wake()
        await stage.until(lambda: told("web-01") == ["?/1", "1h"] and told("db-01") == ["-", "1h"])


async def test_a_repository_that_does_not_answer_delays_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    fake, go_on = demo_host(speed=0), threading.Event()
    Host(ports=fake.ports).backups.run(["web-01"])
    repositories = type(fake.ports.repositories)
    points = repositories.points
    asked: list[str] = []

    def hangs(repository: object, path: str, guest: str = "") -> object:
        asked.append(guest)
        assert go_on.wait(60)
        return points(repository, path, guest)  # type: ignore[arg-type]

    monkeypatch.setattr(repositories, "points", hangs)
    async with on_stage(fake, size=(200, 60)) as stage:
        try:
            await stage.until(lambda: asked)
            await stage.press("slash", *"web-01", "enter")
            await stage.picture()
            assert names(stage) == ["web-01"]
        finally:
            go_on.set()
        await stage.until(lambda: "never" in stage.row("10.20.0.11"))


async def test_only_guests_on_the_screen_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = demo_host(speed=0)
    host = Host(ports=fake.ports)
    host.backups.run(["web-03", "build-01"])
    repositories = type(fake.ports.repositories)
    points = repositories.points
    asked: set[str] = set()

    def counted(repository: object, path: str, guest: str = "") -> object:
        asked.add(guest)
        return points(repository, path, guest)  # type: ignore[arg-type]

    async with on_stage(fake, size=(200, 16)) as stage:
        monkeypatch.setattr(repositories, "points", counted)
        stage.app.wake()
        await stage.until(lambda: "never" in stage.row("build-01"))
        assert fake.domain("web-03").uuid not in asked
        await stage.press("end")
        await stage.until(lambda: "never" in stage.row("web-03"))


async def test_what_cannot_be_read_is_not_known_and_never_taken_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = demo_host(speed=0)
    host = Host(ports=fake.ports)
    host.backups.run(["web-01"])
    domains = [domain for domain in host.observe().domains if domain.name in ("web-01", "db-01")]

    def away(*_: object, **__: object) -> None:
        raise Refused("it is not mounted", subject="/backups")

    (first, second) = read_care(host, domains).values()
    assert (first.points, second.points, second.verified) == (0, 1, -1.0)
    with monkeypatch.context() as patch:
        patch.setattr(type(fake.ports.repositories), "look", away)
        patch.setattr(type(fake.history), "last_looks", away)
        assert {care.points for care in read_care(host, domains).values()} == {-1}
    with monkeypatch.context() as patch:
        patch.setattr(type(fake.ports.repositories), "points", away)
        assert {care.points for care in read_care(host, domains).values()} == {-1}
    host.backups.verify("web-01")
    fake.advance(RPO)
    assert [care.late for care in read_care(host, domains).values()] == [False, False]
    fake.advance(1)
    assert [care.late for care in read_care(host, domains).values()] == [False, True]


async def test_what_was_done_is_known_though_nobody_looked_at_that_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vmhost.ops.care._PAUSE", 0.001)
    fake = demo_host(speed=0)
    host, told, rounds = Host(ports=fake.ports), threading.Event(), Rounds(Host(ports=fake.ports))
    (web,) = (domain for domain in host.observe().domains if domain.name == "web-01")
    thread = threading.Thread(target=rounds.run, args=(told.set,), daemon=True)
    thread.start()
    try:
        rounds.of(web)
        assert told.wait(20)
        host.backups.run(["web-01"])
        told.clear()
        rounds.forget()
        for _ in range(20_000):  # until it has gone round while nothing was wanted
            if not rounds._anew:
                break
            await asyncio.sleep(0.001)
        rounds.of(web)
        assert told.wait(20), "it is not taken for fresh"
        found = rounds.of(web)
        assert found is not None
        assert found.points == 1
    finally:
        rounds.stop()
        thread.join(20)


async def test_only_what_is_seen_is_asked_for_memory_and_disks() -> None:
    async with on_stage(crowded(100), size=(120, 20)) as stage:
        watch, grid = stage.app._watch, stage.grid
        await stage.until(lambda: watch._looked_at == set(grid.keys[:17]))
        await stage.press("end")
        await stage.until(lambda: watch._looked_at == set(grid.keys[-17:]))
        await stage.press(*"oooo")
        assert grid.sorted_by == "disk"
        await stage.picture()
        assert watch._looked_at is None, "what they are sorted by has to be known of all"
        await stage.press("enter")
        await stage.until(lambda: stage.place == "GuestScreen" and watch._looked_at == {grid.key})
        await stage.press("escape", "colon", *"jobs", "enter")
        await stage.until(lambda: stage.place == "JobsScreen" and watch._looked_at == frozenset())
        await stage.press("colon", *"host", "enter")
        await stage.until(lambda: stage.place == "HostScreen" and watch._looked_at is None)
