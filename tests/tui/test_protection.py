"""Protection: who is unprotected comes first, and points and snapshots are made through a plan."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.tui.stage import Stage, on_stage
from vmhost.model.errors import Refused
from vmhost.model.nightly import Protection
from vmhost.model.points import Point, PointRef
from vmhost.ops.host import Host
from vmhost.testing import FakeHost
from vmhost.testing.demo import demo_host
from vmhost.tui.rows.cells import ASCII, UNICODE, Tone
from vmhost.tui.rows.protection import COLUMNS, Protected, kept_lines, protection_cells

pytestmark = [pytest.mark.tui]


async def opened(stage: Stage) -> None:
    await stage.press("colon", *"backup", "enter")
    await stage.until(lambda: stage.place == "ProtectionScreen" and "web-01" in stage.grid.keys)


@pytest.mark.asyncio
async def test_a_point_is_planned_taken_and_seen() -> None:
    async with on_stage() as stage:
        await opened(stage)
        count = len(stage.grid.keys)
        await stage.shows(f"{count} of {count} guests are not protected")
        assert "jenkins" not in stage.grid.keys, "nobody asked us to protect a foreign guest"
        assert "⚠ unprotected" in stage.row("web-01 ")
        stage.grid.go_to("web-01")
        await stage.until(lambda: "POINTS OF web-01\nit has none: b plans one" in stage.lines("#kept"))
        await stage.press("b")
        await stage.shows("vmhost backup run web-01", "y yes, apply")
        assert Host(ports=stage.fake.ports).backups.list() == ()
        await stage.press("y")
        await stage.shows("back up web-01: done")
        await stage.press("escape")
        await stage.until(lambda: "✓ protected" in stage.row("web-01 "))
        await stage.shows(f"{count - 1} of {count} guests are not protected")
        (point,) = Host(ports=stage.fake.ports).backups.list("web-01")
        assert stage.grid.keys[-1] == "web-01", "who is protected comes last"
        await stage.until(lambda: f"{point.id}  full" in stage.lines("#kept"))
        assert "never verified" in stage.lines("#kept")
        stage.fake.advance(27 * 3600)
        await stage.press("r")
        await stage.shows("its newest point is 27 h old", f"{count} of {count} guests are not protected")


@pytest.mark.asyncio
async def test_a_full_point_is_asked_for_by_name() -> None:
    async with on_stage() as stage:
        await opened(stage)
        stage.grid.go_to("web-01")
        await stage.press("b")
        await stage.shows("vmhost backup run web-01", "y yes, apply")
        await stage.press("x")
        await stage.shows("vmhost backup run web-01 --full")


@pytest.mark.asyncio
async def test_a_snapshot_is_planned_made_and_seen() -> None:
    async with on_stage() as stage:
        await opened(stage)
        stage.grid.go_to("web-01")
        await stage.until(lambda: "SNAPSHOTS OF web-01\nit has none: N plans one" in stage.lines("#kept"))
        await stage.press("N")
        await stage.shows("vmhost snapshot create web-01", "y yes, apply")
        await stage.press("y")
        await stage.shows("snapshot of web-01: done")
        await stage.press("escape")
        await stage.until(lambda: "its disks rest on it" in stage.lines("#kept"))
        (made,) = Host(ports=stage.fake.ports).snapshots.list("web-01")
        assert made.name in stage.lines("#kept")


@pytest.mark.asyncio
async def test_enter_opens_the_guest_and_a_host_without_guests_says_so() -> None:
    async with on_stage() as stage:
        await opened(stage)
        stage.grid.go_to("web-01")
        await stage.press("enter")
        await stage.until(lambda: stage.place == "GuestScreen")
        await stage.press("escape")
        assert stage.place == "ProtectionScreen"
    async with on_stage(FakeHost()) as stage:
        await stage.press("colon", *"backup", "enter")
        await stage.shows("this host has no guests of vmhost")
        await stage.press("b", "N", "enter", "escape")
        assert stage.place == "GuestsScreen"


@pytest.mark.asyncio
async def test_a_repository_that_cannot_be_read_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = demo_host(speed=0)
    repositories = type(fake.ports.repositories)

    def away(_: object, path: str, guest: str = "") -> tuple[Point, ...]:
        raise Refused("it is not mounted", subject=path)

    async with on_stage(fake) as stage:
        with monkeypatch.context() as patch:
            patch.setattr(repositories, "points", away)
            await stage.press("colon", *"backup", "enter")
            await stage.shows("not read: ", "it is not mounted")
        await stage.press("r")
        await stage.shows("guests are not protected")


def test_what_is_damaged_pinned_and_verified_is_told() -> None:
    ref = PointRef("r", "h", "uuid", "20260102T000000Z")
    whole = Point(ref, 2, "2026-01-02T00:00:00Z", "incremental", "web-01", verified="2026-01-02T01:00:00Z", pinned=True)
    bad = Point(
        PointRef("r", "h", "uuid", "20260101T000000Z"), 1, "2026-01-01T00:00:00Z", "full", "web-01", damaged=True
    )
    other = Point(PointRef("r", "h", "another", whole.id), 1, whole.taken, "full", "web-01")
    found = Protected(points=(other, bad, whole))
    first, second = [line for line in kept_lines("web-01", "uuid", found, ASCII) if "T000000Z" in line.text]
    assert first.text.endswith("verified 2026-01-02T01:00:00Z, pinned")
    assert (second.text.startswith("x DAMAGED"), second.tone) == (True, Tone.BAD)
    row = Protection("web-01", 2, whole.id, 3600.0, "incremental", "crash")
    cells = dict(
        zip(
            (column.id for column in COLUMNS),
            protection_cells(row, found.points_of("uuid"), COLUMNS, UNICODE),
            strict=True,
        )
    )
    assert (cells["state"].text, cells["age"].text, cells["points"].text) == ("✓ protected", "1h", "2")
    assert cells["verified"].text == "2026-01-02T01:00:00Z"
    assert cells["drilled"].text == "never"
    drilled = replace(row, drilled="2026-01-03T01:00:00Z")
    told = protection_cells(drilled, found.points_of("uuid"), COLUMNS, UNICODE)
    assert "2026-01-03T01:00:00Z" in [cell.text for cell in told]
