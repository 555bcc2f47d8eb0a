"""Names, consoles, XML and events that a guest or a stranger controls: no control character reaches the terminal."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from tests.tui.stage import Stage, on_stage
from vmhost.model.errors import DriverError
from vmhost.model.text import sanitize
from vmhost.testing import FakeHost, builders
from vmhost.testing.demo import demo_host
from vmhost.tui.guarding import Subject, Work
from vmhost.tui.rows.cells import LONGEST, Line
from vmhost.tui.screens.restoreas import RestoreAsScreen
from vmhost.tui.screens.work import WorkScreen

pytestmark = [pytest.mark.tui, pytest.mark.asyncio]

NASTY = (
    "\x1b]52;c;ZXZpbA==\x07clip",
    "\x1b[2Jcleared",
    "\x9b31mred",
    "\x90qdcs\x9c",
    "[bold red]markup[/]",
    "vm[/x]",
    "\u202egnp.exe",
    "\x00\x07\x08\r",
    "$(id)`id`;%s",
    "名前がとても長い仮想機械",
    "e\u0301\u200d\u2066x",
)


def without_controls(stage: Stage) -> None:
    for row in stage.rows:
        assert row == sanitize(row), f"{row!r} would act on a terminal"


def with_names(names: tuple[str, ...]) -> FakeHost:
    """A host whose foreign guests have such names: libvirt itself allows nearly everything."""
    fake = demo_host(speed=0)
    for number, name in enumerate(names):
        spec = builders.guest(f"stranger-{number}")
        fake.hypervisor.define(builders.domain_xml(spec, builders.identity(spec, number=100 + number), None))
        domain = fake.world.domains[builders.uuid_of(spec.name)]
        domain.name = name
    return fake


async def test_hostile_names_on_every_screen() -> None:
    async with on_stage(with_names(NASTY), size=(200, 40)) as stage:
        await stage.shows("[bold red]markup[/]", "vm[/x]", "\\x1b[2Jcleared")
        without_controls(stage)
        for number in range(len(NASTY)):
            stage.grid.go_to(builders.uuid_of(f"stranger-{number}"))
            await stage.press("enter")
            without_controls(stage)
            await stage.press("escape", "space")
        without_controls(stage)
        stage.grid.marked = frozenset(builders.uuid_of(f"stranger-{number}") for number in range(len(NASTY)))
        await stage.press("S")
        await stage.until(lambda: "this cannot be done" in stage.text)
        without_controls(stage)


async def test_a_hostile_console() -> None:
    fake = demo_host(speed=0)
    domain = fake.world.domains[fake.domain("web-01").uuid]
    lines = fake.world.consoles[next(path for path in fake.world.consoles if domain.uuid in path)]
    lines += [*NASTY, "x" * (10 << 20), "the end"]
    async with on_stage(fake) as stage:
        await stage.goto("web-01")
        await stage.press("l")
        await stage.shows("the end", "[bold red]markup[/]")
        without_controls(stage)
        assert all(cell_len(row) <= 120 for row in stage.rows)
        await stage.press("greater_than_sign", "G", "g")
        without_controls(stage)
    assert domain.up


async def test_hostile_xml_and_description() -> None:
    fake = demo_host(speed=0)
    fake.edit("web-03", lambda xml: xml.replace("</uuid>", "</uuid><description>[/] \u202e \u009b2J</description>", 1))
    async with on_stage(fake) as stage:
        await stage.goto("web-03")
        await stage.press("y")
        await stage.shows("<description>[/]")
        without_controls(stage)


async def test_hostile_jobs_and_errors() -> None:
    fake = demo_host(speed=0)
    from vmhost.model.outcome import JobRecord

    for number, text in enumerate(NASTY):
        fake.history.start(JobRecord(f"2030-{number}", text, text, "running", fake.world.now, user=text))
        fake.history.log(f"2030-{number}", text)
        fake.history.end(f"2030-{number}", state="failed", error=text)
    async with on_stage(fake) as stage:
        stage.app.go("jobs")
        await stage.shows("✗ failed", "[bold red]markup[/]")
        without_controls(stage)
        for _ in NASTY:
            await stage.press("down")
            without_controls(stage)
        for text in NASTY:
            stage.app.tell_error(DriverError(text, subject=text, hint=text))
            await stage.pilot.pause()
            without_controls(stage)


async def test_hostile_work_and_points() -> None:
    """What is told in passing is drawn here; so is a form that begins with a name that a manifest says."""
    async with on_stage(toasts=True) as stage:
        for text in NASTY:
            work = Work(text, f"vmhost {text}", lambda _: [], lambda *_, text=text: ([Line(text)], DriverError(text)))
            stage.app.push_screen(WorkScreen(work))
            await stage.shows("y begins")
            await stage.press("w")
            await stage.shows("copied: vmhost")
            without_controls(stage)
            await stage.press("y")
            await stage.shows(": failed")
            without_controls(stage)
            await stage.press("escape")
            for gone in (True, False):
                stage.app.push_screen(RestoreAsScreen(Subject("uuid", text, gone), ""))
                await stage.shows("new name")
                without_controls(stage)
                await stage.press("escape")
            stage.app.clear_notifications()
            await stage.until(lambda: "copied: vmhost" not in stage.text)


async def test_a_hostile_plan_goes_to_the_clipboard_quoted() -> None:
    async with on_stage(with_names(("a b;id",))) as stage:
        stage.grid.go_to(builders.uuid_of("stranger-0"))
        await stage.press("S", "w")
        assert stage.app.clipboard == "vmhost guest stop 'a b;id'"


async def test_a_line_of_megabytes_is_cut_before_it_is_worked_on() -> None:
    from vmhost.tui.rows.cells import cell

    assert len(cell("\x1b" * (10 << 20)).text) == LONGEST * len("\\x1b")
