"""Pictures of the interface, compared: at most 60, every pair of screen, size, theme and data in at least one of them.

``VMHOST_UPDATE_GOLDEN=1 pytest -m tui tests/tui/test_pictures.py`` takes them anew; look at the difference, and at
pictures made by ``scripts/pictures --all``, before you agree to it.
"""

from __future__ import annotations

import asyncio
import difflib
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from textual.widgets import Input

from bench.bench_tui import crowded
from tests.services.shop import Shop
from tests.services.test_watch import HEALED
from tests.tui.gallery import DATA, NEEDS_A_GUEST, SCREENS, SIZES, Case, cases, painted
from tests.tui.stage import Stage
from tests.tui.test_app import Broken
from tests.tui.test_hostile import NASTY, with_names, without_controls
from vmhost.model.errors import Unreachable
from vmhost.ops.host import Host
from vmhost.testing import FakeHost
from vmhost.tui import errands, themes
from vmhost.tui.app import VmhostApp
from vmhost.tui.screens import form

pytestmark = [pytest.mark.tui, pytest.mark.timeout(240)]

HERE = Path(__file__).parent / "pictures"
AWAY = Unreachable("the daemon is away", subject="qemu:///system", hint="systemctl start libvirtd")


def one() -> FakeHost:
    """A host with one guest, in which a service runs."""
    shop = Shop()
    shop.deploy(HEALED)
    world = shop.fake.world
    for uuid in [uuid for uuid, domain in world.domains.items() if domain.name != "web-01"]:
        del world.domains[uuid]
    return shop.fake


def host_of(data: str) -> FakeHost:
    match data:
        case "empty":
            return FakeHost(speed=0.0)
        case "one":
            return one()
        case "many":
            return crowded(500, speed=0.0)
        case "hostile":
            return with_names((*NASTY, "long-" * 60))
        case _:
            shop = Shop()
            shop.deploy()
            return shop.fake


class Errands:
    """Knows when everything that was asked for is there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._threads: list[threading.Thread] = []
        send = errands.send

        def counted(*args: Any) -> threading.Thread:
            self._threads.append(send(*args))
            return self._threads[-1]

        monkeypatch.setattr(errands, "send", counted)

    async def done(self, stage: Stage) -> str:
        """Return the picture, when all that was asked for is on it and it no longer changes."""
        before, now = "", painted(stage.app)
        while before != now or self._threads or not stage.app.rounds.settled:
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            await asyncio.sleep(0.005)
            await stage.pilot.pause()
            before, now = now, painted(stage.app)
        return now


@pytest.mark.asyncio
@pytest.mark.parametrize("data", DATA)
async def test_pictures(data: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(form, "PAUSE", 3600.0)  # what a form tries out is seen elsewhere
    monkeypatch.setattr(Input, "cursor_blink", False)
    fake, asked, different = host_of(data), Errands(monkeypatch), []
    broken = Broken(fake, AWAY)
    broken.error = None
    app = VmhostApp(Host(ports=replace(fake.ports, hypervisor=broken)), interval=3600)  # type: ignore[arg-type]
    app._watch.clock = lambda: fake.world.now
    async with app.run_test(size=SIZES[0]) as pilot:
        stage = Stage(app, pilot, fake)
        await _some_time(stage)
        if data == "down":
            broken.error = AWAY
            app.wake()
            await stage.until(lambda: app.picture is not None and app.picture.stale is not None)
        for case in (case for case in cases() if case.data == data):
            await _go(stage, case, asked)
            now = await asked.done(stage)
            without_controls(stage)
            different += _differs(case, now, app, tmp_path)
    assert not different, "\n".join(different)


async def _some_time(stage: Stage) -> None:
    """Let a little time pass on the host, in which its guests work."""
    for number in range(2, 5):  # two pictures are taken at the beginning
        await stage.until(lambda number=number: stage.app.picture and len(stage.app.picture.samples) == number)
        stage.fake.advance(3)
        stage.app.wake()
    await stage.until(lambda: stage.app.picture and len(stage.app.picture.samples) == 5)


async def _go(stage: Stage, case: Case, asked: Errands) -> None:
    """Show a screen from the list of guests on."""
    while len(stage.app.screen_stack) > 2:
        stage.app.pop_screen()
    await stage.pilot.resize_terminal(*case.size)
    stage.app.theme = case.theme
    stage.grid.action_move(-1_000_000)
    await asked.done(stage)
    way = SCREENS[case.screen]
    if way.startswith(":"):
        stage.app.obey(way)
    elif way:
        await stage.press(way)


def _differs(case: Case, now: str, app: VmhostApp, directory: Path) -> Iterator[str]:
    """Yield in what a picture differs from the one that was agreed on."""
    path = HERE / f"{case.name}.txt"
    if os.environ.get("VMHOST_UPDATE_GOLDEN") == "1":
        path.write_text(now, encoding="utf-8")
        return
    agreed = path.read_text(encoding="utf-8") if path.exists() else ""
    if agreed == now:
        return
    svg = directory / f"{case.name}.svg"
    svg.write_text(app.export_screenshot(title=case.name), encoding="utf-8")
    yield f"{case.name} looks otherwise: {svg} is how it looks now; VMHOST_UPDATE_GOLDEN=1 agrees to it"
    lines = difflib.unified_diff(agreed.splitlines(), now.splitlines(), "agreed", "now", lineterm="", n=1)
    yield from list(lines)[:30]


def test_every_pair_is_in_a_picture_and_every_picture_is_one_of_them() -> None:
    found = tuple(cases())
    assert len(found) <= 60
    assert len(set(found)) == len(found)
    names = {f"{case.name}.txt" for case in found}
    assert {path.name for path in HERE.iterdir()} == names
    values = {"data": DATA, "screen": tuple(SCREENS), "theme": themes.NAMES, "size": SIZES}
    for first, second in combinations(values, 2):
        wanted = {(one, other) for one in values[first] for other in values[second]}
        if (first, second) == ("data", "screen"):
            wanted -= {("empty", screen) for screen in NEEDS_A_GUEST}
        there = {(getattr(case, first), getattr(case, second)) for case in found}
        assert wanted <= there, (first, second, wanted - there)
