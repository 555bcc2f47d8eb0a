"""Several vmhost at once: locks, no duplicates, and nobody is harmed by another's end."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from tests.labfixture import InLab
from tests.reliability.scene import ALL, apply, dying, killed, look, remove, site_file, started, told, vmhost
from vmhost.cli import diagnostics
from vmhost.drivers.command import Completed, run
from vmhost.drivers.locks import FileLocks
from vmhost.model.errors import Conflict, GuestError, PartlyDone
from vmhost.ops.host import Host
from vmhost.ops.power import raise_failures
from vmhost.ops.sites import load_site

pytestmark = pytest.mark.lab

BRIDGE = "br-both"


@pytest.fixture
def pool(real: Host, tmp_path: Path) -> Iterator[None]:
    """A guest that keeps our storage pool there, so that plans do not differ in making it."""
    apply(real, site_file(tmp_path, "keeper", "keeper", state="stopped"))
    yield
    remove(real, "keeper")


@pytest.fixture
def bridge() -> Iterator[str]:
    """A bridge that is there already and that several sites share."""
    run(["ip", "link", "add", BRIDGE, "type", "bridge"], timeout=10)
    run(["ip", "address", "add", "10.95.0.1/24", "dev", BRIDGE], timeout=10)
    run(["ip", "link", "set", BRIDGE, "up"], timeout=10)
    yield BRIDGE
    run(["ip", "link", "delete", BRIDGE], timeout=10)


def at_once(sites: list[Path]) -> list[Completed]:
    """Apply sites by as many processes at once."""
    with ThreadPoolExecutor(len(sites)) as threads:
        return list(threads.map(lambda site: vmhost("apply", str(site), "--yes"), sites))


def names(lab: InLab) -> list[str]:
    """The names of all domains, as virsh lists them."""
    return sorted(lab.virsh("list", "--all", "--name").text.split())


def test_two_applies_of_one_site_make_one_guest(real: Host, lab: InLab, tmp_path: Path) -> None:
    site = site_file(tmp_path, "shop", "web")
    for _ in range(2):
        codes = [done.code for done in at_once([site, site])]
        assert 0 in codes
        assert set(codes) <= {0, diagnostics.REFUSED}
        assert names(lab) == ["web"]
        volumes = [volume.name for item in real.observe().pools for volume in item.volumes]
        assert sorted(name[36:] for name in volumes) == ["-root.qcow2", "-seed.iso"]
        assert vmhost("plan", str(site), "--exit-code").code == 0
        remove(real, "web")


def test_the_later_of_two_applies_is_told_that_the_host_changed(real: Host, lab: InLab, tmp_path: Path) -> None:
    site = load_site(site_file(tmp_path, "shop", "web"))
    first, second = real.plan(site), real.plan(site)
    real.apply(first)
    with pytest.raises(Conflict, match="the host changed since the plan was shown; nothing was done") as refused:
        real.apply(second)
    assert refused.value.hint.startswith("vmhost plan")
    assert names(lab) == ["web"]
    remove(real, "web")


def test_two_sites_on_one_bridge_never_share_an_address(
    real: Host, pool: None, bridge: str, lab: InLab, tmp_path: Path
) -> None:
    sites = [
        site_file(
            tmp_path,
            name,
            f"{name}-1",
            f"{name}-2",
            networks=f"{{lan: {{bridge: {bridge}, subnet: 10.95.0.0/24}}}}",
            nics="[{network: lan, address: auto}]",
        )
        for name in ("left", "right")
    ]
    done = at_once(sites)
    assert any(item.code == 0 for item in done), [told(item) for item in done]
    for site, item in zip(sites, done, strict=True):
        if item.code != 0:
            assert item.code == diagnostics.REFUSED
            assert "the host changed" in told(item)
            assert vmhost("apply", str(site), "--yes").code == 0
    rows = json.loads(vmhost("guest", "list", "-o", "json").text)["data"]
    addresses = [address for row in rows for address in row["addresses"]]
    assert len(addresses) == len(set(addresses)) == 4
    assert "10.95.0.1" not in addresses
    remove(real, "left-1", "left-2", "right-1", "right-2")


def test_two_starts_at_once_do_not_both_get_the_room_of_one(real: Host, tmp_path: Path) -> None:
    both = ["left", "right"]
    apply(real, site_file(tmp_path, "pair", *both, state="stopped"))
    room = real.observe().host.memory - sum(share.memory for share in real.capacity().guests) * 3 // 4
    own = real.ports.layout.config / "host.yaml"
    own.parent.mkdir(exist_ok=True)
    own.write_text(f"{{apiVersion: vmhost/v1, name: host, host: {{reserve_memory: {room}}}}}")
    try:
        for _ in range(3):
            with ThreadPoolExecutor(2) as threads:
                done = list(threads.map(lambda name: vmhost("guest", "start", name), both))
            assert sorted(item.code for item in done) == [0, diagnostics.REFUSED], [told(item) for item in done]
            assert any("guests that run have" in told(item) for item in done)
            won = [name for name, item in zip(both, done, strict=True) if item.code == 0]
            assert [row.name for row in real.guests() if row.state == "running"] == won
            vmhost("guest", "stop", *won, "--power-off")
    finally:
        own.unlink()
    remove(real, *both)


def test_six_guests_by_six_processes_on_a_host_without_anything(real: Host, lab: InLab, tmp_path: Path) -> None:
    """One of them makes the pool; to the others, that is no change."""
    sites = [site_file(tmp_path, f"site-{number}", f"guest-{number}") for number in range(6)]
    done = at_once(sites)
    assert [item.code for item in done] == [0] * 6, [told(item) for item in done]
    assert names(lab) == [f"guest-{number}" for number in range(6)]
    assert len(lab.virsh("list", "--state-running", "--name").text.split()) == 6
    remove(real, *(f"guest-{number}" for number in range(6)))


@pytest.mark.parametrize("what", ["host", "guest"])
def test_ctrl_c_ends_the_waiting_for_a_lock(real: Host, tmp_path: Path, what: str) -> None:
    apply(real, site_file(tmp_path, "shop", "web"))
    before = look(real)
    locks = FileLocks(real.ports.layout, command="vmhost nightly run")
    uuid = real.guest("web").row.uuid
    changed = site_file(tmp_path, "shop", "web", memory="80M")
    with locks.host() if what == "host" else locks.guests([uuid]), started("apply", str(changed), "--yes") as command:
        command.until("waiting")
        command.send(signal.SIGINT)
        sent = time.monotonic()
        assert command.end() == diagnostics.INTERRUPTED, command.talk
        assert time.monotonic() - sent < 10
    assert f"is held by vmhost nightly run, pid {os.getpid()}" in command.talk
    assert "nothing was done" in command.talk
    assert look(real) == before
    remove(real, "web")


def test_sigkill_of_one_apply_does_not_harm_another(real: Host, pool: None, lab: InLab, tmp_path: Path) -> None:
    before = look(real)
    doomed, other = site_file(tmp_path, "doomed", "doomed"), site_file(tmp_path, "other", "other")
    with dying(doomed, "hypervisor.define") as first, started("apply", str(other), "--yes") as second:
        assert first.wait(90) == -signal.SIGKILL
        assert second.end() == 0, second.talk
    assert [name for name in names(lab) if name != "keeper"] in (["other"], ["doomed", "other"])
    assert vmhost("recover").code == 0
    assert names(lab) == ["keeper", "other"]
    assert lab.virsh("domstate", "other").text.strip() == "running"
    remove(real, "other")
    assert look(real) == before


def test_recover_when_nothing_is_interrupted_and_twice(real: Host, tmp_path: Path) -> None:
    for _ in range(2):
        done = vmhost("recover")
        assert (done.code, done.stdout) == (0, b"")
        assert "nothing was interrupted" in told(done)
    interrupt(tmp_path)
    assert "undid" in vmhost("recover").text
    assert "nothing was interrupted" in told(vmhost("recover"))


def interrupt(directory: Path) -> None:
    """Leave a half-made guest behind."""
    killed(site_file(directory, "shop", "web"), "hypervisor.define")


def test_two_recoveries_at_once_settle_each_operation_once(real: Host, tmp_path: Path) -> None:
    before = look(real)
    interrupt(tmp_path)
    with ThreadPoolExecutor(2) as threads:
        done = list(threads.map(lambda _: vmhost("recover"), range(2)))
    assert [item.code for item in done] == [0, 0], [told(item) for item in done]
    assert sum(item.text.count("undid") for item in done) == 1
    assert look(real) == before


def test_guests_that_ignore_their_shut_down_run_on(real: Host, lab: InLab, tmp_path: Path) -> None:
    deaf = [f"deaf-{number}" for number in range(4)]
    apply(real, site_file(tmp_path, "shop", *deaf))
    began = time.monotonic()
    done = vmhost("guest", "stop", *deaf, "--timeout", "1s")
    assert time.monotonic() - began < 20, "they are asked side by side"
    assert done.code == diagnostics.PARTLY
    for name in deaf:
        assert f"{name}: still running 1 s after it was asked to shut down" in told(done)
        assert lab.virsh("domstate", name).text.strip() == "running"

    one = vmhost("guest", "stop", deaf[0], "--timeout", "1s")
    assert one.code == diagnostics.NOT_READY
    assert f"try: vmhost guest console {deaf[0]}, or vmhost guest stop {deaf[0]} --power-off" in told(one)

    done = vmhost("guest", "stop", *deaf, "--power-off", "--yes")
    assert done.code == 0, told(done)
    assert {lab.virsh("domstate", name).text.strip() for name in deaf} == {"shut off"}
    again = vmhost("guest", "stop", *deaf)
    assert (again.code, again.text.count("it does not run")) == (0, 4)
    remove(real, *deaf)


def test_a_partly_failing_stop_names_those_that_failed(real: Host, lab: InLab, tmp_path: Path) -> None:
    apply(real, site_file(tmp_path, "shop", "deaf", "off"))
    lab.virsh("destroy", "off")
    results = real.power(["deaf", "off"], "stop", timeout=1)
    assert [type(result.error) for result in results] == [GuestError, type(None)]
    with pytest.raises(PartlyDone) as failed:
        raise_failures(results)
    assert list(failed.value.failures) == ["deaf"]
    remove(real, "deaf", "off")


def test_a_guest_that_is_awaited_is_not_deleted_meanwhile(real: Host, lab: InLab, tmp_path: Path) -> None:
    impatient = Host(ports=replace(real.ports, locks=FileLocks(real.ports.layout, timeout=1)))
    with ExitStack() as stack:
        site = site_file(tmp_path, "shop", "web", ready="{by: agent, timeout: 5m}")
        command = stack.enter_context(started("apply", str(site), "--yes"))
        command.until("web: agent:")
        with pytest.raises(Conflict, match=r"held by vmhost apply \S+, pid \d+") as refused:
            impatient.apply(impatient.plan_delete(["web"], ALL))
        assert refused.value.hint == f"ps -fp {command.process.pid}"
        assert lab.virsh("domstate", "web").text.strip() == "running"
        other = site_file(tmp_path, "other", "other")
        assert vmhost("apply", str(other), "--yes").code == 0, "others' guests are not held up"
        command.send(signal.SIGINT)
        assert command.end() == diagnostics.INTERRUPTED
    remove(real, "web", "other")
