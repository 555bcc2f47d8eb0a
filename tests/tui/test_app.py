"""The app around the screens: host and jobs, the command line, help, themes, sizes, trouble, and the way out."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import pytest
from textual.filter import Monochrome

from tests.tui.stage import Stage, on_stage
from vmhost.model.errors import PermissionDenied, Unreachable, UsageError
from vmhost.model.outcome import JobRecord
from vmhost.ops.host import Host
from vmhost.testing import FakeHost
from vmhost.testing.demo import demo_host
from vmhost.tui import keymap, themes
from vmhost.tui.app import VmhostApp
from vmhost.tui.rows.cells import size
from vmhost.tui.screens.columns import ColumnsScreen
from vmhost.tui.screens.form import FormScreen
from vmhost.tui.screens.guest import GuestScreen
from vmhost.tui.screens.guests import GuestsScreen
from vmhost.tui.screens.host import HostScreen
from vmhost.tui.screens.jobs import JobsScreen
from vmhost.tui.screens.network import NetworkScreen
from vmhost.tui.screens.plan import PlanScreen
from vmhost.tui.screens.protection import ProtectionScreen
from vmhost.tui.screens.servicelog import ServiceLogScreen
from vmhost.tui.screens.services import ServicesScreen
from vmhost.tui.screens.work import WorkScreen

pytestmark = [pytest.mark.tui, pytest.mark.asyncio]

SCREENS = {
    "guests": GuestsScreen,
    "guest": GuestScreen,
    "host": HostScreen,
    "jobs": JobsScreen,
    "plan": PlanScreen,
    "form": FormScreen,
    "columns": ColumnsScreen,
    "network": NetworkScreen,
    "protection": ProtectionScreen,
    "services": ServicesScreen,
    "log": ServiceLogScreen,
    "work": WorkScreen,
}


async def obey(stage: Stage, text: str) -> None:
    await stage.press("colon")
    await stage.until(lambda: stage.place == "CommandLine")
    await stage.type(text)
    await stage.press("enter")


async def test_the_host_screen() -> None:
    async with on_stage(size=(120, 50)) as stage:
        await obey(stage, "host")
        await stage.shows("MEMORY AND CPUS", "STORAGE POOLS", "FINDINGS", "KVM runs guests", "promised")
        await stage.until(lambda: "still fits" in stage.lines("#facts"))
        ledger = Host(ports=stage.fake.ports).capacity()
        await stage.until(lambda: f" {size(ledger.promised)} " in stage.row("promised  "))
        await stage.until(lambda: stage.row("still fits").split()[-1] == size(ledger.free))
        assert "volumes may grow to 620G" in stage.row("archive")
        await stage.press("r")
        await stage.until(lambda: "bridge br0 is up" in stage.lines("#findings"))
        await stage.press("escape")
        assert stage.place == "GuestsScreen"


async def test_findings_come_the_worst_first_with_their_remedies() -> None:
    fake = demo_host(speed=0)
    fake.world.pools["archive"].active = False
    fake.world.kvm = False
    async with on_stage(fake) as stage:
        await obey(stage, "host")
        await stage.until(lambda: "WARNING" in stage.lines("#findings"))
        text = stage.lines("#findings")
        assert text.index("WARNING") < text.index("ok ")
        assert "try: virsh pool-start archive" in text
        assert "not active" in stage.lines("#facts")


async def test_jobs_with_their_logs() -> None:
    async with on_stage() as stage:
        await obey(stage, "jobs")
        await stage.shows("✗ failed", "image build", "lab-04: image alpine-3 is not here")
        await stage.press("down", "down")
        await stage.until(lambda: "image build debian-12" in stage.lines("#log"))
        await stage.press("enter", "escape")
        assert stage.place == "JobsScreen"
        await stage.press("x")
        await stage.until(lambda: any("this job is done" in item.message for item in stage.app._notifications))
        await stage.press("escape")
        assert stage.place == "GuestsScreen"


async def test_a_job_of_another_process_is_seen_and_cancelled() -> None:
    async with on_stage() as stage:
        await obey(stage, "jobs")
        history = stage.fake.history
        history.start(JobRecord("20270101-1", "backup", "db-01", "running", stage.fake.world.now, user="bob"))
        history.update("20270101-1", progress="db-01: disk root", done=25, total=100, rate=5)
        await stage.until(lambda: "25%" in stage.row("backup"))
        assert " 15s " in stage.row("backup")
        await stage.press("home", "x")
        await stage.until(lambda: history.cancelled("20270101-1"))
        await stage.shows("was asked to end")


async def test_no_jobs_yet() -> None:
    async with on_stage(FakeHost()) as stage:
        await obey(stage, "jobs")
        await stage.shows("no operation has been recorded yet")
        await stage.press("x", "enter", "escape", "escape")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("guests", "GuestsScreen"),
        ("host", "HostScreen"),
        ("j", "JobsScreen"),
        ("backup", "ProtectionScreen"),
        ("services", "ServicesScreen"),
        ("new", "NewGuestScreen"),
        ("help", "HelpScreen"),
        ("", "GuestsScreen"),
        ("rm -rf /", "GuestsScreen"),
        ("[red]x", "GuestsScreen"),
    ],
)
async def test_the_command_line(text: str, place: str) -> None:
    async with on_stage() as stage:
        await obey(stage, text)
        await stage.until(lambda: stage.place == place)
        if place == "GuestsScreen" and text not in ("", "guests"):
            assert any("there is no command" in item.message for item in stage.app._notifications)


async def test_the_command_line_can_be_left_and_jumps_from_anywhere() -> None:
    async with on_stage() as stage:
        await stage.press("colon", "escape")
        assert stage.place == "GuestsScreen"
        await stage.press("colon", "backspace")
        await stage.until(lambda: stage.place == "GuestsScreen")
        await stage.press("enter")
        await obey(stage, "jobs")
        await obey(stage, "host")
        await stage.until(lambda: stage.place == "HostScreen")
        await obey(stage, "guests")
        await stage.until(lambda: stage.place == "GuestsScreen")


async def test_help_is_the_key_map_of_the_screen() -> None:
    async with on_stage() as stage:
        await stage.press("question_mark")
        text = stage.lines()
        for key in keymap.KEYS:
            if key.where in ("guests", "guests, guest", keymap.EVERYWHERE):
                assert key.words in text
        assert "ask it to end: it undoes" not in text
        await stage.press("question_mark")
        assert stage.place == "GuestsScreen"
        await obey(stage, "jobs")
        await stage.press("question_mark")
        assert "ask it to end: it undoes" in stage.lines()
        await stage.press("escape")
        assert stage.place == "JobsScreen"


@pytest.mark.parametrize("place", sorted(SCREENS))
async def test_every_key_of_the_map_has_an_action_and_no_two_are_one(place: str) -> None:
    seen: dict[str, str] = {}
    for key in sorted(keymap.KEYS, key=lambda key: key.where == keymap.EVERYWHERE):
        if place not in key.where.split(", ") and key.where != keymap.EVERYWHERE:
            continue
        if not key.action:
            continue
        name = key.action.partition("(")[0]
        owner = VmhostApp if name.startswith("app.") else SCREENS[place]
        assert hasattr(owner, f"action_{name.removeprefix('app.')}"), key
        for part in key.keys.split(","):
            assert part not in seen or key.where == keymap.EVERYWHERE, f"{part}: {seen.get(part)} and {key.words}"
            seen.setdefault(part, key.words)


async def test_the_manual_lists_every_key() -> None:
    manual = (Path(__file__).parents[2] / "docs" / "manual" / "tui.md").read_text(encoding="utf-8")
    for key in keymap.KEYS:
        row = f"| `{keymap.shown(key.keys)}` | {key.words} | {f'`{key.name}`' if key.name else '-'} |"
        assert row in manual, f"docs/manual/tui.md lacks: {row}"


@pytest.mark.parametrize("name", themes.NAMES)
async def test_every_theme_shows_every_screen(name: str) -> None:
    async with on_stage(theme=name, size=(80, 24)) as stage:
        for keys in (("enter",), ("escape", "S"), ("escape", "n"), ("escape", "question_mark")):
            await stage.press(*keys)
            assert stage.app.theme == name
            assert len(stage.rows) == 24


async def test_t_goes_through_all_themes_and_the_command_names_one() -> None:
    async with on_stage() as stage:
        seen = []
        for _ in themes.NAMES:
            seen.append(stage.app.theme)
            await stage.press("t")
        assert seen == list(themes.NAMES)
        await obey(stage, "theme contrast")
        await stage.until(lambda: stage.app.theme == "contrast")
        await obey(stage, "theme mauve")
        assert any("there are the themes" in item.message for item in stage.app._notifications)


async def test_a_theme_of_textuals_own_does_no_harm() -> None:
    async with on_stage() as stage:
        stage.app.theme = "nord"
        await stage.press("down", "enter")
        assert stage.place == "GuestScreen"


async def test_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    async with on_stage() as stage:
        await stage.press("down")
        assert stage.app.no_color
        assert any(isinstance(item, Monochrome) for item in stage.app._filters)
        assert stage.row("cache-01").startswith("▸")


@pytest.mark.parametrize("size", [(40, 10), (59, 40), (120, 14), (1, 1)])
async def test_a_terminal_that_is_too_small_says_so_and_still_quits(size: tuple[int, int]) -> None:
    async with on_stage(size=size) as stage:
        assert stage.place == "SmallScreen"
        if size == (40, 10):
            assert "too small: 40x10" in stage.text
        for key in ("enter", "S", "colon", "question_mark", "n", "ctrl+d"):
            await stage.press(key)
            assert stage.place == "SmallScreen"
        await stage.press("q")
        await stage.until(lambda: stage.app._exit)


async def test_it_comes_back_when_there_is_room_again() -> None:
    async with on_stage() as stage:
        await stage.press("enter")
        await stage.pilot.resize_terminal(40, 10)
        await stage.until(lambda: stage.place == "SmallScreen")
        await stage.pilot.resize_terminal(80, 24)
        await stage.until(lambda: stage.place == "GuestScreen")
        await stage.shows("build-01", "q quit")


class Broken:
    """Stands for a hypervisor's place until it is mended."""

    def __init__(self, fake: FakeHost, error: Exception) -> None:
        self.error: Exception | None = error
        self._real = fake.hypervisor

    def __getattr__(self, name: str) -> object:
        if self.error is not None and name != "close":
            raise self.error
        return getattr(self._real, name)


def broken_host(error: Exception) -> tuple[Host, Broken, FakeHost]:
    from dataclasses import replace

    fake = demo_host(speed=0)
    broken = Broken(fake, error)
    return Host(ports=replace(fake.ports, hypervisor=broken)), broken, fake  # type: ignore[arg-type]


async def test_without_permission_there_is_the_remedy() -> None:
    error = PermissionDenied("authentication unavailable", subject="qemu:///system", hint="sudo vmhost host doctor")
    host, broken, fake = broken_host(error)
    app = VmhostApp(host, interval=0.1)
    async with app.run_test(size=(80, 24)) as pilot:
        stage = Stage(app, pilot, fake)
        await stage.shows("This host cannot be read", "authentication unavailable", "sudo vmhost tui", "q quit")
        for key in ("colon", "S", "enter"):
            await stage.press(key)
            assert stage.place == "TroubleScreen"
        broken.error = None
        await stage.shows("15 guests")
        assert stage.place == "GuestsScreen"
        broken.error = Unreachable("the daemon is away", subject="qemu:///system", hint="systemctl start libvirtd")
        app.wake()
        await stage.shows("⚠ STALE: the daemon is away", "build-01")
        await stage.press("down", "enter")
        assert stage.place == "GuestScreen", "the last picture can be looked at"
        broken.error = None
        await stage.until(lambda: "STALE" not in stage.rows[0])


async def test_while_libvirt_is_away_q_still_quits() -> None:
    host, _, fake = broken_host(Unreachable("nobody answers", hint="systemctl start libvirtd"))
    app = VmhostApp(host, interval=0.1)
    async with app.run_test(size=(80, 24)) as pilot:
        stage = Stage(app, pilot, fake)
        await stage.shows("nobody answers", "try: systemctl start libvirtd", "tried again")
        await stage.press("q")
        await stage.until(lambda: app._exit)


async def test_an_interrupted_operation_is_said() -> None:
    fake = demo_host(speed=0)
    fake.journals.begin("x").append({"type": "begin"})
    fake.machine.alive.clear()
    async with on_stage(fake) as stage:
        await stage.shows("an operation was interrupted: vmhost recover")


async def test_the_palette_knows_the_screens() -> None:
    async with on_stage() as stage:
        await stage.press("ctrl+p")
        await stage.shows("Guests", "Jobs")
        await stage.type("Jobs")
        await stage.until(lambda: "Long operations" in stage.text)
        await stage.press("enter")
        await stage.until(lambda: stage.place == "JobsScreen")


async def test_without_a_terminal_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from vmhost.tui import run

    with pytest.raises(UsageError, match="needs a terminal"):
        run("fake:demo")
    from vmhost.tui import terminal

    for stream in ("stdin", "stdout"):
        monkeypatch.setattr(f"sys.{stream}.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "dumb")
    with pytest.raises(UsageError, match="TERM"):
        terminal.check_terminal()
    monkeypatch.setenv("TERM", "xterm")
    terminal.check_terminal()


async def test_the_interpreters_pauses_are_short_while_it_runs_and_as_before_afterwards() -> None:
    before = sys.getswitchinterval(), gc.get_freeze_count()
    async with on_stage() as stage:
        assert sys.getswitchinterval() < before[0]
        frozen = gc.get_freeze_count()
        assert frozen > before[1] + 10_000, "what the first picture brought is not walked again and again"
        await stage.picture()
        assert gc.get_freeze_count() <= frozen, "what comes later is: it goes, too"
    assert (sys.getswitchinterval(), gc.get_freeze_count()) == before
