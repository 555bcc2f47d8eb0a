"""Protection: who is unprotected comes first; what changes goes through a plan, what reads is work of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest

from tests.tui.stage import Stage, on_stage
from vmhost.model.drills import DrillRecord
from vmhost.model.errors import Refused
from vmhost.model.events import Progress
from vmhost.model.nightly import Protection
from vmhost.model.objectives import Objectives
from vmhost.model.permit import Permit
from vmhost.model.points import Point, PointRef
from vmhost.ops.host import Host
from vmhost.ops.protectionview import Guarded, ProtectionView
from vmhost.ops.snapshots import SnapshotRow
from vmhost.testing import FakeHost
from vmhost.testing.demo import demo_host
from vmhost.tui.rows.cells import ASCII, UNICODE, Cell, Tone
from vmhost.tui.rows.kept import COLUMNS as KEPT
from vmhost.tui.rows.kept import kept_cells, kept_of
from vmhost.tui.rows.protection import COLUMNS, protection_cells, protection_lines
from vmhost.tui.rows.work import progress_line
from vmhost.tui.screens.work import WorkScreen
from vmhost.tui.widgets.grid import Grid

pytestmark = [pytest.mark.tui]

DAY = 86_400.0


async def opened(stage: Stage) -> None:
    await stage.press("colon", *"backup", "enter")
    await stage.until(lambda: stage.place == "ProtectionScreen" and bool(stage.grid.keys))


def names(stage: Stage) -> list[str]:
    """The guests in their order."""
    called = {domain.uuid: domain.name for domain in Host(ports=stage.fake.ports).observe().domains}
    return [called.get(key, key) for key in stage.grid.keys]


def kept(stage: Stage) -> list[str]:
    """What is kept of the guest under the cursor."""
    return list(stage.app.screen.query_one("#kept", Grid).keys)


def backed_up(*guests: str, times: int = 1, every: float = 3600) -> FakeHost:
    """The demonstration's host, some of whose guests have points."""
    fake = demo_host(speed=0)
    for _ in range(times):
        for result in Host(ports=fake.ports).backups.run(guests):
            assert result.error is None
        fake.advance(every)
    return fake


async def at(stage: Stage, name: str) -> None:
    """Go to a guest on the screen of protection."""
    await opened(stage)
    await stage.goto(name)
    await stage.until(lambda: name in stage.lines("#about"))


async def read_back(stage: Stage, name: str) -> None:
    """Go to a guest there, and begin to read back all its points."""
    await at(stage, name)
    await stage.press("v")
    await stage.shows("y begins")
    await stage.press("y")


@pytest.mark.asyncio
async def test_a_point_is_planned_taken_and_seen() -> None:
    fake = demo_host(speed=0)
    fake.world.timer = True
    async with on_stage(fake) as stage:
        await opened(stage)
        count = len(stage.grid.keys)
        await stage.shows(f"{count} of {count} guests are not protected")
        assert "jenkins" not in names(stage), "nobody asked us to protect a foreign guest"
        assert "⚠ unprotected" in stage.row("web-01 ")
        await stage.goto("web-01")
        await stage.until(lambda: "web-01: it has no point: b plans one" in stage.lines("#about"))
        await stage.press("b")
        await stage.shows("vmhost backup run web-01", "y yes, apply")
        assert Host(ports=stage.fake.ports).backups.list() == ()
        await stage.press("y")
        await stage.shows("back up web-01: done")
        await stage.press("escape")
        await stage.until(lambda: "web-01: it never was found whole" in stage.lines("#about"))
        Host(ports=stage.fake.ports).backups.verify("web-01")
        await stage.press("r")
        await stage.until(lambda: "✓ protected" in stage.row("web-01 "))
        await stage.shows(f"{count - 1} of {count} guests are not protected")
        (point,) = Host(ports=stage.fake.ports).backups.list("web-01")
        assert names(stage)[-1] == "web-01", "who is protected comes last"
        await stage.until(lambda: kept(stage) == [f"point {point.ref.host} {point.id}"])
        assert "never" in stage.row(point.id)
        assert "0s/26h" in stage.row("web-01 ")
        stage.fake.advance(27 * 3600)
        await stage.press("r")
        await stage.shows(
            "27h/26h", "web-01: its newest point is 27 h old", f"{count} of {count} guests are not protected"
        )


@pytest.mark.asyncio
async def test_a_full_point_is_asked_for_by_name() -> None:
    async with on_stage() as stage:
        await opened(stage)
        await stage.goto("web-01")
        await stage.press("b")
        await stage.shows("vmhost backup run web-01", "y yes, apply")
        await stage.press("x")
        await stage.shows("vmhost backup run web-01 --full")


@pytest.mark.asyncio
async def test_a_snapshot_is_planned_made_and_seen() -> None:
    async with on_stage() as stage:
        await opened(stage)
        await stage.goto("web-01")
        await stage.press("N")
        await stage.shows("vmhost snapshot create web-01", "y yes, apply")
        await stage.press("y")
        await stage.shows("snapshot of web-01: done")
        await stage.press("escape")
        (made,) = Host(ports=stage.fake.ports).snapshots.list("web-01")
        await stage.until(lambda: kept(stage) == [f"snapshot {made.name}"])
        assert "its disks rest on it" in stage.row(made.name)


@pytest.mark.asyncio
async def test_enter_opens_the_guest_and_a_host_without_guests_says_so() -> None:
    async with on_stage() as stage:
        await opened(stage)
        await stage.goto("web-01")
        await stage.press("enter")
        await stage.until(lambda: stage.place == "GuestScreen")
        await stage.press("escape")
        assert stage.place == "ProtectionScreen"
    async with on_stage(FakeHost()) as stage:
        await stage.press("colon", *"backup", "enter")
        await stage.shows("this host has no guests of vmhost")
        await stage.press(*"bNvBinopzX", "enter", "tab", "escape", "escape")
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


@pytest.mark.asyncio
async def test_points_are_read_back_by_work_that_is_looked_at_first() -> None:
    async with on_stage(backed_up("web-01", "db-01", times=2)) as stage:
        await at(stage, "web-01")
        await stage.press("v")
        await stage.shows("y begins", "$ vmhost backup verify web-01", "every byte of these is read", "incremental")
        host = Host(ports=stage.fake.ports)
        assert not any(point.verified for point in host.backups.list()), "nothing has begun yet"
        await stage.press("y")
        await stage.shows("verify all points of web-01: done", "as it was")
        assert all(point.verified for point in host.backups.list("web-01"))
        assert not any(point.verified for point in host.backups.list("db-01"))
        assert (host.jobs()[0].kind, host.jobs()[0].state) == ("backup verify", "done")
        await stage.press("y", "x", "w")
        await stage.tells("copied: vmhost backup verify web-01")
        await stage.press("escape")
        await stage.until(lambda: stage.place == "ProtectionScreen" and "never" not in stage.row("web-01 ")[:46])


@pytest.mark.asyncio
async def test_a_damaged_point_is_named_and_stays_marked() -> None:
    fake = backed_up("web-01", times=2)
    bad = Host(ports=fake.ports).backups.list("web-01")[-1]
    stored = fake.world.repositories[bad.ref.repository].points[f"{bad.ref.guest}/{bad.id}"]
    stored.files[bad.disks[0].file] = "another text"
    async with on_stage(fake) as stage:
        await at(stage, "web-01")
        await stage.until(lambda: len(kept(stage)) == 2)
        await stage.press("tab", "v")
        await stage.shows(f"$ vmhost backup verify web-01 --point {bad.id}", "y begins")
        await stage.press("y")
        await stage.shows(
            f"verify {bad.id}: failed", "DAMAGED: ", "its hash is another one", "1 of 1 points are damaged"
        )
        await stage.press("escape")
        await stage.until(lambda: "✗ bad" in stage.row(bad.id))
        assert "DAMAGED" in stage.row(bad.id)


@pytest.mark.asyncio
async def test_a_point_is_drilled_and_how_long_that_took_stays_seen() -> None:
    async with on_stage(backed_up("web-01"), size=(200, 60)) as stage:
        await at(stage, "web-01")
        before = len(Host(ports=stage.fake.ports).observe().domains)
        await stage.press("B")
        await stage.shows("$ vmhost backup drill web-01", "a network that leads nowhere", "y begins")
        await stage.press("y")
        await stage.shows("drill the newest point of web-01: done", "it came back after", "the last that it said")
        assert len(Host(ports=stage.fake.ports).observe().domains) == before
        await stage.press("escape")
        await stage.until(lambda: "its last drill took" in stage.lines("#about"))
        (point,) = Host(ports=stage.fake.ports).backups.list("web-01")
        assert "never" in stage.row("db-01 ")
        await stage.press("tab", "B")
        await stage.shows(f"vmhost backup drill web-01 --point {point.id}")


@pytest.mark.asyncio
async def test_what_cannot_be_done_says_so_before_it_begins() -> None:
    async with on_stage() as stage:
        await at(stage, "web-01")
        await stage.press("B")
        await stage.shows("this cannot be done", "there is no point of this guest")
        await stage.press("y")
        assert "this cannot be done" in stage.text
        assert Host(ports=stage.fake.ports).backups.drills.history() == ()
        await stage.press("escape", "v")
        await stage.shows("it has no points: there is nothing to read")
        await stage.press("escape", "i")
        await stage.shows("this cannot be done", "there is no point of this guest")
        await stage.press("escape", "o")
        await stage.shows("this cannot be done", "nothing of a restore waits to be confirmed")


@pytest.mark.asyncio
async def test_work_goes_on_when_its_screen_is_left_and_nobody_leaves_it_unawares(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake, go_on = backed_up("web-01"), Event()
    repositories = type(fake.ports.repositories)
    verify = repositories.verify

    def slowly(*args: object) -> object:
        assert go_on.wait(60)
        return verify(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(repositories, "verify", slowly)
    async with on_stage(fake) as stage:
        try:
            await read_back(stage, "web-01")
            await stage.shows("at work; esc leaves it to itself")
            await stage.press("escape")
            assert stage.place == "ProtectionScreen"
            await stage.press("q")
            await stage.tells("work is under way")
            await stage.press("colon", *"jobs", "enter")
            await stage.shows("backup verify", "running")
        finally:
            go_on.set()
        await stage.tells("verify all points of web-01: done")
        assert stage.app.beside == 0


@pytest.mark.asyncio
async def test_work_that_is_asked_to_end_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    fake, began, go_on = backed_up("web-01", times=3), Event(), Event()
    repositories = type(fake.ports.repositories)
    verify = repositories.verify

    def slowly(*args: object) -> object:
        began.set()
        assert go_on.wait(60)
        return verify(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(repositories, "verify", slowly)
    async with on_stage(fake) as stage:
        try:
            await read_back(stage, "web-01")
            await stage.until(began.is_set)
            await stage.press("r", "x")
            await stage.shows("all points of web-01: ending")
        finally:
            go_on.set()
        await stage.shows("ended early, as it was asked to")
        assert isinstance(stage.app.screen, WorkScreen)
        assert Host(ports=fake.ports).jobs()[0].state == "cancelled"


@pytest.mark.asyncio
async def test_a_restore_in_place_needs_its_flag_and_is_kept_by_a_plan_of_its_own() -> None:
    async with on_stage(backed_up("web-01", times=2)) as stage:
        await at(stage, "web-01")
        first = Host(ports=stage.fake.ports).backups.list("web-01")[0]
        await stage.until(lambda: len(kept(stage)) == 2)
        await stage.press("tab", "end", "i")
        await stage.shows(f"$ vmhost backup restore web-01 --point {first.id} --in-place", "it runs")
        await stage.press("b")
        await stage.shows("--in-place --allow-stop", "y yes, apply")
        await stage.press("b", "p")
        await stage.shows("--in-place --power-off", "y yes, apply")
        await stage.press("y")
        await stage.shows(f"restore web-01 to {first.id}: done", "look whether the guest is well")
        await stage.press("escape", "o")
        await stage.shows("vmhost backup confirm web-01", "y yes, apply")
        await stage.press("y")
        await stage.shows("keep what web-01 has now: done")


@pytest.mark.asyncio
async def test_a_point_becomes_a_new_guest_by_a_form(tmp_path: Path) -> None:
    site = tmp_path / "shop.yaml"
    site.write_text(
        "apiVersion: vmhost/v1\nname: shop\nnetworks:\n  lan: {bridge: br0, subnet: 10.20.0.0/24}\nguests: {}\n",
        encoding="utf-8",
    )
    async with on_stage(backed_up("web-01")) as stage:
        await at(stage, "web-01")
        await stage.press("n")
        await stage.shows("a new guest of web-01", "web-01-copy", "latest", "a site file has to say what these are now")
        await stage.press("tab", "end", "ctrl+u")
        await stage.type("db-01")
        await stage.shows("there is a guest of this name")
        await stage.press("end", "ctrl+u")
        await stage.type("no such name")
        await stage.press("ctrl+s")
        await stage.shows("1 to mend first")
        await stage.press("end", "ctrl+u")
        await stage.type("web-09")
        await stage.press("shift+tab", "end", "ctrl+u")
        await stage.type("1999")
        await stage.shows("there is no such point of it")
        await stage.press("end", "ctrl+u")
        await stage.type("latest")
        await stage.press("tab", "tab", "end", "ctrl+u")
        await stage.type(str(tmp_path / "none.yaml"))
        await stage.shows("it cannot be done")
        await stage.press("end", "ctrl+u")
        await stage.type(str(site))
        await stage.shows("it can be done")
        await stage.press("ctrl+s")
        await stage.shows("restore as web-09", "--as web-09 --site", "y yes, apply")
        await stage.press("y")
        await stage.shows("restore as web-09: done")
        assert Host(ports=stage.fake.ports).observe().domain("web-09") is not None


@pytest.mark.asyncio
async def test_of_a_guest_that_is_gone_its_points_are_left() -> None:
    fake = backed_up("web-01")
    host, uuid = Host(ports=fake.ports), fake.domain("web-01").uuid
    host.apply(host.plan_delete(["web-01"], Permit(power_off=True, disks=True)))
    async with on_stage(fake) as stage:
        await opened(stage)
        await stage.press("end")
        await stage.until(lambda: "is gone; what is left of it are 1 points" in stage.lines("#about"))
        assert "○ gone" in stage.row("web-01 ")
        assert stage.grid.keys[-1] == uuid
        for key in "bNiozX":
            await stage.press(key)
            assert stage.place == "ProtectionScreen"
        await stage.tells("web-01 is gone: n makes a new guest")
        await stage.press("enter")
        assert stage.place == "ProtectionScreen"
        await stage.press("n")
        await stage.until(lambda: "a new guest of web-01" in stage.text and "web-01-copy" not in stage.text)
        await stage.press("escape", "v")
        await stage.shows(f"vmhost backup verify {uuid}", "y begins")


@pytest.mark.asyncio
async def test_a_snapshot_is_gone_back_to_and_deleted() -> None:
    async with on_stage() as stage:
        host = Host(ports=stage.fake.ports)
        for name in ("first", "second"):
            host.apply(host.snapshots.plan_create("web-01", name))
            stage.fake.advance(60)
        await at(stage, "web-01")
        await stage.until(lambda: kept(stage) == ["snapshot second", "snapshot first"])
        await stage.press("z")
        await stage.tells("which snapshot?")
        await stage.press("tab", "v")
        await stage.tells("second is a snapshot; only points are read back")
        await stage.press("down", "z")
        await stage.shows("$ vmhost snapshot revert web-01 first", "it runs")
        await stage.press("p")
        await stage.shows("revert web-01 first --power-off", "y yes, apply")
        await stage.press("y")
        await stage.shows("revert web-01 to first: done")
        await stage.press("escape")
        await stage.until(lambda: len(kept(stage)) == 3)
        assert stage.app.screen.query_one("#kept", Grid).key == "snapshot first", "the cursor stays where it was"
        stage.app.screen.query_one("#kept", Grid).go_to("snapshot second")
        await stage.press("X")
        await stage.shows("vmhost snapshot delete web-01 second", "y yes, apply")
        await stage.press("y")
        await stage.shows("delete snapshot second of web-01: done")
        await stage.press("escape")
        await stage.until(lambda: "snapshot second" not in kept(stage))
        await stage.press("escape")
        assert stage.place == "ProtectionScreen", "the first esc leaves the list"
        await stage.press("escape")
        assert stage.place == "GuestsScreen"


@pytest.mark.asyncio
async def test_old_points_go_by_a_form_that_reads_rules() -> None:
    async with on_stage(backed_up("web-01", times=3)) as stage:
        host = Host(ports=stage.fake.ports)
        for _ in range(2):
            host.backups.run(["web-01"], full=True)
            stage.fake.advance(3600)
        await at(stage, "web-01")
        await stage.press("p")
        await stage.shows("prune web-01", "there is nothing to do")
        await stage.type("last=often")
        await stage.shows("'often' is no whole number")
        await stage.press("ctrl+s")
        assert stage.place == "PruneScreen"
        await stage.press("end", "ctrl+u")
        await stage.type("last=1")
        await stage.shows("it can be done: 4 steps")
        await stage.press("ctrl+s")
        await stage.shows("vmhost backup prune web-01 --keep last=1", "y yes, apply")
        await stage.press("y")
        await stage.shows("prune web-01: done")
        await stage.press("escape")
        await stage.until(lambda: len(kept(stage)) == 1)


def test_each_guest_is_held_against_what_its_site_wants() -> None:
    now, hour = 1_800_000_000.0, 3600.0  # 2027-01-15T08:00:00Z
    wants = Objectives(3 * hour, 40.0, 7 * DAY, 30 * DAY, 42.0, 1.5 * hour, 0.0)
    row = Protection(
        "web-01", 2, "p", 4 * hour, "full", "crash", "too old", "2027-01-14T08:00:00Z", "2027-01-01T08:00:00Z"
    )
    guest = Guarded("uuid", row, wants)

    def told(guest: Guarded) -> dict[str, Cell]:
        ids = (column.id for column in COLUMNS)
        return dict(zip(ids, protection_cells(guest, now, COLUMNS, UNICODE), strict=True))

    cells = told(guest)
    assert (cells["age"], cells["verified"]) == (Cell("4h/3h", Tone.BAD), Cell("24h/7d", Tone.GOOD))
    assert (cells["drilled"].text, cells["rto"], cells["next"].text) == ("14d/30d", Cell("42s/40s", Tone.BAD), "in 2h")
    first, second = (line.text for line in protection_lines(guest, UNICODE))
    assert first == "⚠ web-01: too old"
    assert second.split("; ") == [
        "at most 3h may be lost",
        "verified every 7d",
        "drilled every 30d",
        "back within 40s",
        "its last drill took 42s",
        "a point due in 2h",
        "a drill due now",
    ]
    never = told(replace(guest, protection=Protection("web-01", 0, "", -1, "", "", "it has no point")))
    assert [never[name] for name in ("age", "verified", "drilled")] == [
        Cell("none/3h", Tone.BAD),
        Cell("never/7d", Tone.BAD),
        Cell("never/30d", Tone.BAD),
    ]
    plain = told(replace(guest, objectives=Objectives(26 * hour)))
    assert (plain["drilled"].text, plain["next"].text, plain["rto"].text) == ("14d", "each run", "-")


def test_who_is_frozen_is_told_so() -> None:
    row = Protection("web-01", 0, "", -1, "", "", "its file systems are FROZEN", frozen="2027-01-15T07:00:00Z")
    cells = protection_cells(Guarded("uuid", row, Objectives(3600)), 0.0, COLUMNS, UNICODE)
    assert Cell("⚠ FROZEN", Tone.BAD) in cells


def test_what_is_kept_is_told_with_what_is_wrong_with_it() -> None:
    ref = PointRef("r", "h", "uuid", "20270114T080000Z")
    whole = Point(ref, 2, "2027-01-14T08:00:00Z", "incremental", "web-01", parent="a", pinned=True)
    bad = replace(whole, ref=replace(ref, id="20270113T080000Z"), taken="2027-01-13T08:00:00Z", damaged=True)
    on_bad = replace(bad, ref=replace(ref, id="20270113T090000Z"), damaged=False, parent=bad.id, verified=bad.taken)
    other = replace(whole, ref=replace(ref, guest="another"))
    failed = DrillRecord("uuid", "web-01", whole.id, "2027-01-15T07:00:00Z", failed="it hangs")
    merging = SnapshotRow("web-01", "old", "long ago", "crash", "", 1, 5, (), False, "merging", "to go")
    guest = Guarded("uuid", Protection("web-01", 2, whole.id, 1.0, "full", "crash"), Objectives(3600))
    points = {"uuid": (whole, on_bad, bad), "another": (other,)}
    good = frozenset({whole.ref, other.ref})
    view = ProtectionView((guest,), points, good, (merging,), {("uuid", whole.id): failed}, 1_800_000_000.0)

    found = kept_of(guest, view)
    rows = [dict(zip((column.id for column in KEPT), kept_cells(item, KEPT, ASCII), strict=True)) for item in found]
    assert [row["name"].text for row in rows] == ["old", whole.id, on_bad.id, bad.id]
    assert (rows[0]["notes"].text, rows[0]["age"].text) == ("MERGING, to go", "0s")
    assert (rows[1]["drilled"], rows[1]["verified"]) == (Cell("x 1h", Tone.BAD), Cell("never", Tone.WARN))
    assert rows[1]["notes"].text == "pinned, drill failed: it hangs, since a"
    assert (rows[2]["verified"], rows[2]["notes"].text) == (
        Cell("x bad", Tone.BAD),
        f"LIES ON A DAMAGED POINT, pinned, since {bad.id}",
    )
    assert (rows[3]["verified"], rows[3]["notes"].tone) == (Cell("x bad", Tone.BAD), Tone.BAD)
    assert not [item for item in kept_of(replace(guest, objectives=None), view) if item.snapshot], "not of a namesake"


def test_how_far_work_is_is_a_line() -> None:
    assert progress_line(None, 75, ASCII).text == "1m so far"
    half = Progress("web-01", "verify p", 3 << 20, 6 << 20, 1 << 20)
    assert progress_line(half, 3, ASCII).text == "@@@@@@@@@@__________  50 %  1M/s  3s left  verify p"
    assert progress_line(Progress("web-01", "verify p", 9, 6), 3, ASCII).text == "@@@@@@@@@@@@@@@@@@@@ 100 %  verify p"
