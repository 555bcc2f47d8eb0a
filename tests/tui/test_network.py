"""The network: bridges and ports as rows, VLANs as a matrix, findings below."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from textual.widgets import Input

from tests.tui.stage import Stage, on_stage
from vmhost.model.errors import DamagedData
from vmhost.model.netsteps import HostRoute
from vmhost.model.network import ObservedNetwork
from vmhost.model.vlans import port_vlans
from vmhost.ops.host import Host
from vmhost.ops.networkview import BridgeRow, PortRow
from vmhost.testing import FakeHost
from vmhost.testing.demo import demo_host
from vmhost.testing.world import Link
from vmhost.tui.rows.cells import Line
from vmhost.tui.rows.network import vlan_groups, vlan_lines

pytestmark = [pytest.mark.tui]


@pytest.mark.asyncio
async def test_it_shows_bridges_ports_and_who_is_in_which_vlan() -> None:
    async with on_stage() as stage:
        await stage.press("colon", "n", "e", "t", "enter")
        assert stage.place == "NetworkScreen"
        assert "vlan-aware" in stage.row("br1")
        assert "foreign" in stage.row("docker0")
        assert "jenkins" in stage.text
        below = stage.lines("#vlans").splitlines()
        head = next(line for line in below if line.startswith("br1"))
        assert head.split() == ["br1", "300", "310"]
        assert next(line for line in below if line.startswith("eno1")).split()[1:] == ["T", "T"]
        assert next(line for line in below if "lab-01" in line).split()[2:] == [".", "U"]
        await stage.until(lambda: "libvirt calls the hook" in stage.lines("#vlans"))


@pytest.mark.asyncio
async def test_enter_opens_the_guest_of_a_port_and_esc_comes_back() -> None:
    async with on_stage() as stage:
        await stage.press("colon", "n", "e", "t", "enter")
        await stage.press("down", "enter")
        assert stage.place == "GuestScreen"
        await stage.shows("received")
        await stage.press("escape")
        assert stage.place == "NetworkScreen"
        await stage.press("home", "enter")
        assert stage.place == "NetworkScreen", "a bridge is no guest"
        await stage.press("escape")
        assert stage.place == "GuestsScreen"


@pytest.mark.asyncio
async def test_a_port_that_somebody_else_changed_is_seen_and_found() -> None:
    async with on_stage() as stage:
        await stage.press("colon", "n", "e", "t", "enter")
        tap = next(word for row in stage.rows if "lab-01" in row for word in row.split() if word.startswith("vh"))
        stage.fake.links.set_port_vlans(tap, port_vlans(0))
        stage.app.wake()
        await stage.until(lambda: "none" in stage.row(tap))
        await stage.press("r")
        await stage.until(lambda: "has no VLAN" in stage.lines("#vlans"))


@pytest.mark.asyncio
async def test_the_matrix_is_made_anew_only_when_bridges_or_the_width_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def counted(bridges: Sequence[BridgeRow], width: int) -> list[Line]:
        made.append(width)
        return vlan_lines(bridges, width)

    monkeypatch.setattr("vmhost.tui.screens.network.vlan_lines", counted)
    async with on_stage() as stage:
        await stage.press("colon", "n", "e", "t", "enter")
        await stage.until(lambda: "br1" in stage.lines("#vlans"))
        before = len(made)
        await stage.picture()
        await stage.picture()
        assert len(made) == before
        tap = next(word for row in stage.rows if "lab-01" in row for word in row.split() if word.startswith("vh"))
        stage.fake.links.set_port_vlans(tap, port_vlans(320))
        await stage.picture()
        await stage.until(lambda: " 320" in stage.lines("#vlans"))


@pytest.mark.asyncio
async def test_a_host_without_bridges_says_so() -> None:
    async with on_stage(FakeHost()) as stage:
        await stage.press("colon", "n", "e", "t", "enter")
        await stage.shows("this host has no bridges")


def port(name: str, untagged: tuple[int, ...] = (), tagged: tuple[int, ...] = ()) -> PortRow:
    return PortRow(name, "guest", True, 1500, untagged[0] if untagged else 0, untagged, tagged)


def bridge(*ports: PortRow) -> BridgeRow:
    return BridgeRow("br0", "shop", True, True, 1500, (), (), ports)


def test_vlans_that_nobody_tells_apart_share_a_column() -> None:
    trunk = port("up", tagged=tuple(range(1, 4095)))
    assert vlan_groups((trunk,)) == [tuple(range(1, 4095))]
    groups = vlan_groups((trunk, port("one", untagged=(100,)), port("some", tagged=(200, 201))))
    assert [(group[0], group[-1]) for group in groups] == [(1, 99), (100, 100), (101, 199), (200, 201), (202, 4094)]
    assert vlan_groups(()) == []


def test_columns_without_room_are_counted() -> None:
    ports = [port(f"p{vid}", untagged=(vid,)) for vid in range(10, 40, 2)]
    head = vlan_lines((bridge(*ports),), 80)[0].text
    assert head.split()[-3:] == ["and", "11", "more"]
    assert all(len(line.text) <= 80 for line in vlan_lines((bridge(*ports),), 80)[1:])


@pytest.mark.asyncio
async def test_who_has_which_vlan_ids_and_addresses() -> None:
    fake = demo_host(speed=0)
    host = Host(ports=fake.ports)
    host.vlans.allocate("1000-1999", owner="spare")
    host.apply(host.plan_delete(["web-03"]))
    async with on_stage(fake, size=(120, 60)) as stage:
        await stage.press("colon", "n", "e", "t", "enter")
        await stage.until(lambda: "VLAN IDS" in stage.lines("#vlans"))
        lines = stage.lines("#vlans").splitlines()
        assert next(line for line in lines if "  1000 " in line).split() == ["1000", "idle", "spare", "1000-1999", "-"]
        assert "lab-01" in next(line for line in lines if "   310 " in line)
        assert "used     web-01 of shop" in next(line for line in lines if "10.20.0.11 " in line)
        assert "resting  web-03 of shop  until 2026-" in next(line for line in lines if "10.20.0.13 " in line)
        assert "DIFFERENCES FROM WHAT WAS APPLIED TO THE GUESTS" in lines
        assert lines[lines.index("DIFFERENCES FROM WHAT WAS APPLIED TO THE GUESTS") + 1] == "there are none"
        assert "FINDINGS" in lines
        tap = next(word for row in stage.rows if "lab-01" in row for word in row.split() if word.startswith("vh"))
        fake.links.set_port_vlans(tap, port_vlans(0))
        await stage.press("r")
        await stage.until(lambda: "⚠ kernel: lab-01" in stage.lines("#vlans"))


SITE = """apiVersion: vmhost/v1
name: shop
bridges:
  br0: {mode: vlan-aware, uplink: eno1, native: 10}
networks:
  mgmt: {bridge: br0, vlan: 10, address: 192.0.2.5/24, routes: [{to: default, via: 192.0.2.1}]}
  prod: {bridge: br0, vlan: 100, reach: agent}
"""


def uplinked() -> FakeHost:
    fake = FakeHost(speed=0)
    fake.add_link(Link("eno1", kind="", mac="52:54:00:00:00:01", addresses=["192.0.2.5/24"]))
    fake.world.routes.append(HostRoute("0.0.0.0/0", "192.0.2.1", "eno1", "", 0, 3, 0))
    return fake


async def apply_network(stage: Stage, file: Path) -> None:
    await stage.press("colon", "n", "e", "t", "enter")
    await stage.press("a")
    stage.app.screen.query_one("#file", Input).value = str(file)
    stage.app.screen.query_one("#confirm", Input).value = "90"
    await stage.pilot.pause()
    await stage.press("ctrl+s")
    await stage.shows(f"vmhost net apply {file} --confirm 90", "nothing is done yet")


@pytest.mark.asyncio
async def test_a_sites_network_is_applied_and_confirmed_before_the_countdown_ends(tmp_path: Path) -> None:
    fake, file = uplinked(), tmp_path / "site.yaml"
    file.write_text(SITE, encoding="utf-8")
    async with on_stage(fake, size=(140, 50)) as stage:
        await apply_network(stage, file)
        told = {}
        for key in stage.grid.keys:
            stage.grid.go_to(key)
            await stage.pilot.pause()
            told[stage.lines().splitlines()[0]] = stage.lines()
        created = next(text for why, text in told.items() if why.startswith("br0: new bridge"))
        assert "+ name: br0" in created
        assert "+ vlan aware: yes" in created
        guarded = next(text for text in told.values() if "without a confirmation within 90 s" in text)
        assert "  delete bridge name br0" in guarded
        assert any("- address: 192.0.2.5/24" in text for text in told.values())
        assert any("at the host's boot: attach uplink link eno1, bridge br0" in text for text in told.values())
        await stage.press("y")
        await stage.shows(": done", "then esc, and y on :net")
        await stage.press("escape")
        await stage.shows("the network of site shop is taken back in 90 s: look around, then y confirms", "y confirm")
        fake.advance(30)
        await stage.shows("taken back in 60 s")
        await stage.until(lambda: f"DIFFERENCES FROM {file}\nthere are none" in stage.lines("#vlans"))
        await stage.press("y")
        await stage.shows("vmhost net confirm", "nothing is done yet")
        await stage.press("y")
        await stage.shows("confirm the network: done")
        await stage.press("escape")
        await stage.until(lambda: "taken back" not in stage.text)
        fake.advance(500)
        assert any(link.name == "br0" for link in fake.links.links())
        file.write_text(SITE.replace("vlan: 100", "vlan: 101"), encoding="utf-8")
        await stage.press("r")
        await stage.until(lambda: "⚠" in stage.lines("#vlans") and "101" in stage.lines("#vlans"))


@pytest.mark.asyncio
async def test_a_network_that_nobody_confirms_is_taken_back_and_that_is_said(tmp_path: Path) -> None:
    fake, file = uplinked(), tmp_path / "site.yaml"
    file.write_text(SITE, encoding="utf-8")
    async with on_stage(fake, size=(140, 50)) as stage:
        await apply_network(stage, file)
        await stage.press("y")
        await stage.shows("network of", "then esc, and y on :net")
        await stage.press("escape")
        await stage.shows("taken back in 90 s")
        await stage.until(lambda: "br0" in stage.grid.keys)
        fake.advance(91)
        await stage.shows("was taken back: nobody confirmed it in time")
        await stage.until(lambda: "br0" not in stage.grid.keys)
        await stage.press("y")
        assert stage.place == "NetworkScreen"


@pytest.mark.asyncio
async def test_that_nobody_knows_whether_a_change_waits_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = uplinked()
    state = fake.keeper.state

    def damaged() -> ObservedNetwork:
        raise DamagedData("its checksum is wrong", subject="network-pending.json")

    async with on_stage(fake, size=(140, 50)) as stage:
        await stage.press("colon", "n", "e", "t", "enter")
        monkeypatch.setattr(fake.keeper, "state", damaged)
        await stage.shows("nobody knows whether a change waits: network-pending.json: its checksum is wrong")
        monkeypatch.setattr(fake.keeper, "state", state)
        await stage.until(lambda: "nobody knows" not in stage.text)


@pytest.mark.asyncio
async def test_seconds_to_confirm_in_are_checked(tmp_path: Path) -> None:
    async with on_stage() as stage:
        await stage.press("colon", "n", "e", "t", "enter")
        await stage.press("a")
        for text in ("1", "soon", "99999"):
            stage.app.screen.query_one("#confirm", Input).value = text
            await stage.shows("a whole number of seconds is expected, 5 to 3600")
