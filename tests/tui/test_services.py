"""Services: what was deployed is there at once, how it is once the guests were asked, the worst first."""

from __future__ import annotations

from threading import Event

import pytest

from tests.services.shop import Shop
from tests.tui.stage import on_stage
from vmhost.model.errors import DriverError
from vmhost.model.services import Health, Look, ServiceDrift, ServiceRow
from vmhost.ops.services import Services
from vmhost.testing import FakeHost
from vmhost.testing.demo import day_host
from vmhost.tui.rows.cells import ASCII, Tone
from vmhost.tui.rows.services import COLUMNS, service_cells, service_lines, worst_first

pytestmark = [pytest.mark.tui]


@pytest.mark.asyncio
async def test_what_was_deployed_is_there_before_the_guests_have_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    shop, answered, ask = Shop(), Event(), Services.list
    shop.deploy()

    def slowly(services: Services, *, look: bool = True) -> tuple[ServiceRow, ...]:
        assert not look or answered.wait(60)
        return ask(services, look=look)

    monkeypatch.setattr(Services, "list", slowly)
    async with on_stage(shop.fake) as stage:
        try:
            await stage.press("colon", *"services", "enter")
            await stage.shows("○ unknown", "asking the guests")
            assert stage.grid.keys == ("web-01/nginx", "web-02/nginx")
        finally:
            answered.set()
        await stage.shows("none of 2 is down")
        assert "● up" in stage.row("web-01")
        assert "it is as it was deployed" in stage.lines("#looks")


@pytest.mark.asyncio
async def test_who_is_not_well_comes_first_with_its_reasons() -> None:
    shop = Shop()
    shop.deploy()
    async with on_stage(shop.fake) as stage:
        await stage.press("colon", *"services", "enter")
        await stage.shows("none of 2 is down")
        with shop.inside("web-02") as system:
            system.land.units["nginx.service"].active = False
            system.files["/etc/nginx/conf.d/shop.conf"] = b"else"
        await stage.press("r")
        await stage.shows("1 of 2 are not well")
        assert stage.grid.keys[0] == "web-02/nginx"
        await stage.press("home")
        await stage.until(lambda: "nginx IN web-02" in stage.lines("#looks"))
        assert "/etc/nginx/conf.d/shop.conf" in stage.lines("#looks")
        await stage.press("enter")
        await stage.until(lambda: stage.place == "GuestScreen")
        await stage.press("escape")
        assert stage.place == "ServicesScreen"


@pytest.mark.asyncio
async def test_the_worst_is_looked_at_unless_somebody_has_chosen_another() -> None:
    for chosen in (False, True):
        async with on_stage(day_host(speed=0)) as stage:
            await stage.press("colon", *"services", "enter")
            await stage.until(lambda: bool(stage.grid.keys))
            if chosen:
                stage.grid.go_to("web-02/nginx")
            await stage.shows("1 of 6 are not well")
            assert stage.grid.keys[:2] == ("cache-01/redis", "db-02/postgres")
            assert stage.grid.key == ("web-02/nginx" if chosen else "cache-01/redis")
            words = ("nginx IN web-02", "40 looks since") if chosen else ("connection refused", "24 bad, the last ")
            await stage.until(lambda words=words: all(word in stage.lines("#looks") for word in words))


@pytest.mark.asyncio
async def test_a_host_without_services_and_one_that_fails_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async with on_stage(FakeHost()) as stage:
        await stage.press("colon", *"services", "enter")
        await stage.shows("no service was deployed to a guest of this host")
        await stage.press("enter")

        def fails(_: Services, *, look: bool = True) -> tuple[ServiceRow, ...]:
            raise DriverError("libvirt said no", subject="host")

        monkeypatch.setattr(Services, "list", fails)
        await stage.press("r")
        await stage.shows("not asked: ", "libvirt said no")
        await stage.press("escape")
        assert stage.place == "GuestsScreen"


def test_rows_and_lines_say_what_is_wrong() -> None:
    up = ServiceRow("a", "one", "1", "", health=Health.UP, looks=(Look("http", True, "200", 0.0123),))
    drift = (ServiceDrift("two", "b", "file /x", "there", ""),)
    down = ServiceRow(
        "b", "two", "1", "prod", "b", health=Health.DOWN, looks=(Look("tcp", False, "refused", 1),), drift=drift
    )
    lost = ServiceRow("c", "three", "1", "", error="no answer")
    assert worst_first((up, down, lost)) == [lost, down, up]
    cells = {row.service: service_cells(row, COLUMNS, ASCII) for row in (up, down, lost)}
    assert [(row[2].text, row[2].tone) for row in cells.values()] == [
        ("* up", Tone.GOOD),
        ("x down", Tone.BAD),
        ("! unreached", Tone.BAD),
    ]
    assert [line.text for line in service_lines(down, ASCII)] == [
        "b IN two, unit b",
        "x tcp: refused (1000 ms)",
        "! file /x is absent, should be there",
    ]
    assert service_lines(up, ASCII)[1].text == "+ http: 200 (12 ms)"
    assert service_lines(lost, ASCII)[1].text == "x no answer"
