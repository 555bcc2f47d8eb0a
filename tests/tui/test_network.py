"""The network: bridges and ports as rows, VLANs as a matrix, findings below."""

from __future__ import annotations

import pytest

from tests.tui.stage import on_stage
from vmhost.model.vlans import port_vlans
from vmhost.ops.networkview import BridgeRow, PortRow
from vmhost.testing import FakeHost
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
