"""What a person chose: columns that are remembered, and keys of their own with every fault of their file."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.tui.stage import Stage, on_stage
from vmhost.model.errors import Fault
from vmhost.ops.preferences import OwnKeys, Preferences, View, own_preferences
from vmhost.tui import person
from vmhost.tui.ownkeys import choose
from vmhost.tui.rows.columns import WORDS, chosen, moved, toggled
from vmhost.tui.rows.guests import COLUMNS

pytestmark = [pytest.mark.tui]


@pytest.fixture
def mine(tmp_path: Path) -> Preferences:
    return Preferences(tmp_path / "config" / "keys.yaml", tmp_path / "state" / "tui.json")


def write_keys(mine: Preferences, text: str) -> None:
    mine.keys_file.parent.mkdir(exist_ok=True)
    mine.keys_file.write_text(text, encoding="utf-8")


def head(stage: Stage) -> list[str]:
    return stage.rows[1].split()


@pytest.mark.asyncio
async def test_columns_are_chosen_and_remembered(mine: Preferences) -> None:
    async with on_stage(size=(200, 40), preferences=mine) as stage:
        assert head(stage)[:3] == ["NAME▲", "STATE", "VCPU"]
        await stage.press("C")
        await stage.shows("whether it runs", "space show or not")
        await stage.press("space")
        assert "✓" in stage.row("always shown"), "no row would say whose it is"
        await stage.press("space", "K")
        assert "✓" not in stage.row("whether it runs")
        await stage.press("G")
        await stage.press("k", "k", "K", "K")
        await stage.press("escape")
        assert "STATE" not in head(stage)
        await stage.until(lambda: mine.view().columns and "state" not in mine.view().columns)
        wanted = mine.view()
        await stage.press("o")
        await stage.until(lambda: mine.view().sort != wanted.sort)
        await stage.press("O")
        shown = stage.rows[1]
        await stage.until(lambda: mine.view().reverse)
    async with on_stage(size=(200, 40), preferences=mine) as stage:
        assert stage.rows[1] == shown
        assert "STATE" not in shown
        await stage.press("C", "0", "escape")
        await stage.until(lambda: mine.view().columns == ())
        assert head(stage)[1] == "STATE▼"


def test_the_last_of_several_views_is_remembered_though_the_first_is_written_slowly(
    mine: Preferences, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, last, keep = View(sort="state"), View(sort="memory"), Preferences.keep
    overtaken = threading.Event()

    def slowly(preferences: Preferences, view: View) -> None:
        if view == first:
            overtaken.wait(0.5)
        keep(preferences, view)
        if view == last:
            overtaken.set()

    monkeypatch.setattr(Preferences, "keep", slowly)
    somebody = person.Person(mine)
    for view in (first, last):
        somebody.remember(view, lambda error: pytest.fail(str(error)))
    for thread in threading.enumerate():
        if thread.name == "remember":
            thread.join(30)
    assert mine.view() == last


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"\xff\xfe\x00", b'{"version": 99, "data": {}, "sha256": "0"}', b"[]", b'{"version":1,"data":{}}'],
)
async def test_a_damaged_memory_is_told_and_written_anew(mine: Preferences, damage: bytes) -> None:
    mine.view_file.parent.mkdir()
    mine.view_file.write_bytes(damage)
    async with on_stage(preferences=mine) as stage:
        await stage.tells("the columns are the usual ones")
        assert head(stage)[:2] == ["NAME▲", "STATE"]
        await stage.press("o")
        await stage.until(lambda: mine.view_file.read_bytes() != damage and mine.view().sort == "state")


@pytest.mark.asyncio
async def test_a_memory_of_things_that_are_no_more_is_no_trouble(mine: Preferences) -> None:
    mine.keep(View(("gone", "state", "state"), "gone", reverse=False))
    async with on_stage(preferences=mine) as stage:
        assert head(stage) == ["NAME▲", "STATE"]


@pytest.mark.asyncio
async def test_what_cannot_be_remembered_is_told(mine: Preferences) -> None:
    mine.view_file.parent.write_text("in the way", encoding="utf-8")
    async with on_stage(preferences=mine) as stage:
        await stage.press("o")
        await stage.tells("tui.json")
        assert "STATE▲" in head(stage)


def test_columns_as_values() -> None:
    assert chosen(()) == COLUMNS
    assert [column.id for column in chosen(("state", "nonsense", "name", "state"))] == ["state", "name"]
    assert [column.id for column in chosen(("site",))] == ["name", "site"]
    assert moved(("a", "b", "c"), "a", 1) == ("b", "a", "c")
    assert moved(("a", "b", "c"), "a", -1) == ("a", "b", "c")
    assert moved(("a", "b", "c"), "c", 5) == ("a", "b", "c")
    assert toggled(("name", "x"), frozenset({"name"}), "x") == {"name", "x"}
    assert toggled(("name", "x"), frozenset({"name"}), "name") == {"name"}
    assert set(WORDS) == {column.id for column in COLUMNS}


@pytest.mark.asyncio
async def test_keys_of_ones_own_hold_in_foot_and_help_too(mine: Preferences) -> None:
    write_keys(mine, 'guests.stop: u\nguests.start: S\nguests.filter: [f3, "ctrl+f"]\neverywhere.leave: Q\n')
    async with on_stage(preferences=mine) as stage:
        foot = stage.rows[-1]
        assert "S start" in foot
        assert "u shut down" in foot
        assert "f3 filter" in foot
        assert "Q quit" in foot
        await stage.goto("web-01")
        await stage.press("u")
        await stage.shows("shut down web-01")
        await stage.press("escape")
        await stage.goto("web-03")
        await stage.press("enter", "S")
        await stage.shows("start web-03")
        await stage.press("escape", "escape", "slash", "q")
        assert stage.place == "GuestsScreen"
        assert not stage.app._exit
        await stage.press("question_mark")
        assert "f3 ctrl+f" in stage.row("filter: words")
        await stage.press("escape", "ctrl+f", "w")
        await stage.shows("guests /w")
        await stage.press("escape", "Q")
        await stage.until(lambda: stage.app._exit)


@pytest.mark.asyncio
async def test_what_is_wrong_in_the_file_of_keys_is_told_and_the_rest_holds(mine: Preferences) -> None:
    write_keys(mine, "guests.start: F5\nguests.sart: x\nguests.stop: hyper+x\n")
    async with on_stage(preferences=mine) as stage:
        await stage.tells("2 entries are wrong; ? tells which")
        await stage.shows("f5 start", "S shut down")
        await stage.press("question_mark")
        text = stage.lines()
        assert "line 2: guests.sart: nothing is called so; did you mean guests.start?" in text
        assert "line 3: guests.stop: 'hyper+x' is no key" in text


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("guests.start: S", "line 1: guests.start: S is taken there: plan to shut down"),
        ("guests.start: q", "line 1: guests.start: q is taken there: quit"),
        ("guests.start: j", "line 1: guests.start: j is taken there: one up, one down"),
        ("guests.start: '3'", "line 1: guests.start: 3 is taken there: a tab by its number"),
        ("plan.copy: x", "line 1: plan.copy: x is taken there: what is permitted besides, as the screen says"),
        ("guests.start: escape", "line 1: guests.start: escape cannot be given away: it always leaves or goes back"),
        ("guests.start: ctrl+i", "line 1: guests.start: a terminal cannot tell ctrl+i from tab"),
        ("form.submit: g", "line 1: form.submit: in a form g is text: take ctrl+ something, or f5"),
        ("guests.start: {a: b}", "line 1: guests.start: a key is expected, or a list of keys, each in quotes"),
        ("guests.start: true", "line 1: guests.start: a key is expected, or a list of keys, each in quotes"),
        ("guests.start: []", "line 1: guests.start: a key is expected, or a list of keys, each in quotes"),
        ("guests.start: ''", "line 1: guests.start: '' is no key: write one character, or f5, ctrl+x, alt+x"),
        ("- a", "line 1: a file of keys is a mapping, as guests.start: U"),
        ("guests.start: U\nguests.start: V", "line 2: guests.start: given twice"),
        ("guests.start: [", "line 1"),
        ("plan.back: b", "line 1: plan.back: nothing is called so"),
    ],
)
def test_every_fault_of_a_file_of_keys(mine: Preferences, text: str, fault: str) -> None:
    write_keys(mine, text)
    found = choose(mine.own_keys())
    assert len(found.faults) == 1
    assert str(found.faults[0]).startswith(fault)
    assert found.keys == ({"guests.start": "U"} if "twice" in fault else {})


def test_a_swap_is_no_clash_and_half_a_swap_is() -> None:
    both = choose(OwnKeys({"guests.start": ("S",), "guests.stop": ("u",)}, {}))
    assert both == ({"guests.start": "S", "guests.stop": "u"}, ())
    half = choose(OwnKeys({"guests.start": ("S",), "guests.stop": ("nonsense",), "host.examine": ("/",)}, {}))
    assert half.keys == {"host.examine": "slash"}
    assert {fault.path for fault in half.faults} == {"guests.start", "guests.stop"}


def test_files_that_are_no_text(mine: Preferences, tmp_path: Path) -> None:
    assert mine.own_keys() == OwnKeys({}, {})
    mine.keys_file.mkdir(parents=True)
    assert mine.own_keys().faults == (Fault("", "is a directory"),)
    binary = Preferences(tmp_path / "x", mine.view_file)
    binary.keys_file.write_bytes(b"\xff")
    assert "not UTF-8" in str(binary.own_keys().faults[0])


def test_the_files_lie_where_the_person_has_theirs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "c"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "s"))
    for part in ("STATE", "CONFIG"):
        monkeypatch.delenv(f"VMHOST_{part}_DIR", raising=False)
    found = own_preferences()
    assert found.keys_file == tmp_path / "c" / "vmhost" / "keys.yaml"
    assert found.view_file == tmp_path / "s" / "vmhost" / "tui.json"
