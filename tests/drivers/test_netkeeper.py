"""What is kept of the network, the change that waits, our unit, and who else manages a link."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from vmhost.drivers import netunit
from vmhost.drivers.netkeeper import KEPT, NetworkKeeper, PendingFile, helper
from vmhost.drivers.netmanagers import link_managers
from vmhost.model.errors import Absent, AlreadyThere, Conflict, DamagedData, DriverError, Refused
from vmhost.model.netsteps import AttachUplink, CreateBridge, DeleteBridge, GuardNetwork, KeepNetwork
from vmhost.testing.host import layout_in

STEPS = (CreateBridge("br0", "shop", 1500), AttachUplink("eno1", "br0"))
SHOP, NOTHING = KeepNetwork("shop", STEPS), KeepNetwork("shop")
# A bridge that no machine has: undoing it changes nothing wherever the tests run.
CHANGE = GuardNetwork("shop", 30, (DeleteBridge("vhnone", "shop"),), SHOP, NOTHING)


@pytest.fixture
def keeper(tmp_path: Path) -> NetworkKeeper:
    return NetworkKeeper(layout_in(tmp_path), tmp_path)


@pytest.fixture
def pending(tmp_path: Path) -> PendingFile:
    return PendingFile(layout_in(tmp_path).state / "state" / "network-pending.json")


def _watchdog(pending: PendingFile) -> int:
    data = pending.read()
    assert data is not None
    return int(data["watchdog"])


def _ends(pid: int) -> None:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return  # it has ended before we could look
    try:
        import select

        assert select.select([handle], [], [], 30)[0], "the watchdog goes on"
    finally:
        os.close(handle)


def test_networks_are_kept_by_site(keeper: NetworkKeeper) -> None:
    other = KeepNetwork("lab", (CreateBridge("br1", "lab", 1400, "10.0.0.1/24", True, True),))
    assert keeper.state().kept == ()
    keeper.keep(SHOP)
    keeper.keep(other)
    assert keeper.state().kept == (other, SHOP)
    keeper.keep(NOTHING)
    assert keeper.state().kept == (other,)


def test_a_damaged_file_is_not_believed(keeper: NetworkKeeper, tmp_path: Path) -> None:
    keeper.keep(SHOP)
    file = layout_in(tmp_path).state / "state" / KEPT
    file.write_text(file.read_text().replace("eno1", "eno2"))
    with pytest.raises(DamagedData):
        keeper.state()


def test_a_change_waits_and_is_confirmed(keeper: NetworkKeeper, pending: PendingFile) -> None:
    keeper.guard(CHANGE)
    watchdog = _watchdog(pending)
    assert os.getsid(watchdog) != os.getsid(0)
    with pytest.raises(Conflict):
        keeper.guard(CHANGE)
    with pytest.raises(Refused):
        keeper.dismiss(confirmed=True)
    keeper.await_confirmation()
    change = keeper.state().pending
    assert change is not None
    assert (change.site, change.state, change.keep, change.open) == ("shop", "waiting", SHOP, True)
    keeper.dismiss(confirmed=True)
    assert (keeper.state().pending, keeper.state().kept) == (None, (SHOP,))
    _ends(watchdog)
    with pytest.raises(Absent):
        keeper.dismiss(confirmed=False)


def test_the_seconds_that_are_left_are_those_of_the_watchdogs_clock(
    keeper: NetworkKeeper, pending: PendingFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper.guard(CHANGE)
    change = keeper.state().pending
    assert change is not None
    assert (change.state, change.left) == ("applying", 0.0)
    keeper.await_confirmation()
    data = pending.read()
    assert data is not None
    for boot_time, left in ((data["until"] - 12, 12.0), (data["until"] + 5, 0.0)):
        monkeypatch.setattr("vmhost.drivers.netkeeper.boot_time", lambda now=boot_time: now)
        change = keeper.state().pending
        assert change is not None
        assert change.left == pytest.approx(left)
    keeper.dismiss(confirmed=True)
    _ends(int(data["watchdog"]))


def test_a_change_that_was_undone_is_dismissed(keeper: NetworkKeeper, pending: PendingFile) -> None:
    keeper.guard(CHANGE)
    watchdog = _watchdog(pending)
    keeper.dismiss(confirmed=False)
    _ends(watchdog)
    assert (keeper.state().pending, keeper.state().kept) == (None, ())


def test_a_change_whose_maker_was_killed_is_taken_back(
    keeper: NetworkKeeper, pending: PendingFile, tmp_path: Path
) -> None:
    child = os.fork()
    if not child:
        keeper.guard(CHANGE)
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    _ends(_watchdog(pending))
    change = keeper.state().pending
    assert change is not None
    assert (change.state, change.failures) == ("restored", ())
    with pytest.raises(Refused):
        keeper.await_confirmation()
    with pytest.raises(Refused):
        keeper.dismiss(confirmed=True)
    keeper.guard(CHANGE)
    keeper.dismiss(confirmed=False)


def test_a_change_of_an_earlier_boot_is_forgotten(keeper: NetworkKeeper, pending: PendingFile) -> None:
    keeper.guard(CHANGE)
    watchdog, data = _watchdog(pending), pending.read()
    assert data is not None
    pending.write({**data, "boot": "another"})
    assert keeper.state().pending is None
    _ends(watchdog)


def test_without_its_watchdog_a_change_is_not_begun(
    keeper: NetworkKeeper, pending: PendingFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmhost.drivers.netkeeper._START", 0.2)
    monkeypatch.setattr("vmhost.drivers.netkeeper.helper", lambda *words: ["true"])
    with pytest.raises(DriverError, match="nothing was changed"):
        keeper.guard(CHANGE)
    assert pending.read() is None


def test_our_unit_is_one_that_systemd_reads(tmp_path: Path) -> None:
    text = netunit.unit(tmp_path / "a b%c" / KEPT)
    file = tmp_path / netunit.NAME
    file.write_text(text)
    done = subprocess.run(["systemd-analyze", "verify", str(file)], capture_output=True, text=True, check=False)
    assert [line for line in done.stderr.splitlines() if netunit.NAME in line] == []
    broken = tmp_path / "broken.service"
    broken.write_text(text.replace("Type=oneshot", "Type=once").replace("ExecStart=", "ExecStrat="))
    done = subprocess.run(["systemd-analyze", "verify", str(broken)], capture_output=True, text=True, check=False)
    assert [line for line in done.stderr.splitlines() if broken.name in line]


def test_our_unit_comes_before_libvirt_and_its_sockets(tmp_path: Path) -> None:
    before = [
        word
        for line in netunit.unit(tmp_path).splitlines()
        if line.startswith("Before=")
        for word in line.removeprefix("Before=").split()
    ]
    assert {"libvirtd.service", "virtqemud.service", "libvirtd.socket", "virtqemud.socket"} <= set(before)


def test_a_unit_of_another_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / netunit.NAME
    file.write_text("[Unit]\n")
    monkeypatch.setattr(netunit, "FILE", file)
    for act in (lambda: netunit.install(tmp_path / KEPT), netunit.remove):
        with pytest.raises(AlreadyThere):
            act()
    assert file.read_text() == "[Unit]\n"


def test_the_helper_starts_and_does_nothing_where_nothing_is_kept(tmp_path: Path) -> None:
    done = subprocess.run(helper("boot", str(tmp_path / KEPT)), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def _write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def test_who_else_manages_a_link_is_found(tmp_path: Path) -> None:
    links = [(number, f"eno{number}") for number in range(1, 7)]
    assert link_managers(links, tmp_path) == ()
    _write(
        tmp_path, "run/systemd/netif/links/1", "ADMIN_STATE=configured\nNETWORK_FILE=/etc/systemd/network/a.network\n"
    )
    _write(tmp_path, "run/systemd/netif/links/2", "ADMIN_STATE=unmanaged\nOPER_STATE=routable\n")
    network = "/run/systemd/network/10-netplan-eno3.network"
    _write(tmp_path, "run/systemd/netif/links/3", f"ADMIN_STATE=configured\nNETWORK_FILE={network}\n")
    _write(tmp_path, "etc/netplan/50-host.yaml", "network: {ethernets: {eno3: {dhcp4: true}}}")
    _write(tmp_path, "run/NetworkManager/devices/4", "[device]\nmanaged=true\nconnection-uuid=12-34\n")
    _write(tmp_path, "run/NetworkManager/devices/5", "[device]\nmanaged=false\n")
    _write(tmp_path, "run/network/ifstate", "lo=lo\neno6=eno6\n")
    found = {manager.link: manager for manager in link_managers(links, tmp_path)}
    assert {link: manager.name for link, manager in found.items()} == {
        "eno1": "systemd-networkd",
        "eno3": "netplan",
        "eno4": "NetworkManager",
        "eno6": "ifupdown",
    }
    assert all(manager.hand_over for manager in found.values())
    assert "/etc/netplan/50-host.yaml" in found["eno3"].hand_over[0]
    assert "nmcli device set eno4 managed no" in found["eno4"].hand_over
    _write(tmp_path, "run/NetworkManager/system-connections/netplan-eno4.nmconnection", "uuid=12-34")
    assert {manager.name for manager in link_managers(links[3:4], tmp_path)} == {"netplan"}


def test_the_state_is_plain_json(keeper: NetworkKeeper, tmp_path: Path) -> None:
    keeper.keep(SHOP)
    document = json.loads((layout_in(tmp_path).state / "state" / KEPT).read_text())
    assert [step["kind"] for step in document["data"]["sites"]["shop"]] == ["create-bridge", "attach-uplink"]
