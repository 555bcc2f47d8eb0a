"""libvirtd stopped, killed and restarted under a command: a clear error or none at all, and nothing left behind."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import cycle
from pathlib import Path

import pytest

from tests.labfixture import InLab
from tests.reliability.scene import ALL, apply, just_before, killed, look, remove, site_file, started, told, vmhost
from vmhost.cli import diagnostics
from vmhost.engine.waves import in_waves
from vmhost.model.errors import ApplyError, Unreachable
from vmhost.model.events import Event, StepStarted
from vmhost.ops.host import Host
from vmhost.ops.sites import load_site

pytestmark = pytest.mark.lab

CALLS = ("create_pool", "create_volume", "upload_volume", "define", "start")


@pytest.fixture(autouse=True)
def running(lab: InLab, real: Host) -> Iterator[None]:
    """libvirtd, whatever a test did to it."""
    yield
    if lab.virsh("uri", check=False).code != 0:
        lab.start_libvirtd()
        real.recover()


def test_every_command_says_that_libvirtd_is_stopped(real: Host, lab: InLab, tmp_path: Path) -> None:
    site = str(site_file(tmp_path, "shop", "web"))
    lab.stop_libvirtd()
    commands = (
        ("guest", "list"),
        ("apply", site, "--yes"),
        ("guest", "stop", "web"),
        ("guest", "delete", "web", "--yes"),
        ("recover",),
    )
    for words in commands:
        done = vmhost(*words)
        assert done.code == diagnostics.UNREACHABLE, (words, told(done))
        assert "try: systemctl start libvirtd" in told(done), words
        assert "Traceback" not in told(done)
        assert done.stdout == b"", words
    lab.start_libvirtd()


def test_a_restart_between_any_two_steps_goes_unnoticed(real: Host, lab: InLab, tmp_path: Path) -> None:
    """By turns it is ended in order and by SIGKILL; steps that go side by side have nothing between them."""
    site = load_site(site_file(tmp_path, "shop", "web"))
    waves = list(in_waves(real.plan(site).plan.steps))
    assert len(waves) > 2
    for wave, kill in zip(waves, cycle([True, False]), strict=False):

        def restart(event: Event, wave: range = wave, kill: bool = kill) -> None:
            if isinstance(event, StepStarted) and event.number == wave[0] + 1:
                lab.restart_libvirtd(kill=kill)

        real.apply(real.plan(site), on_event=restart)
        assert lab.virsh("domstate", "web").text.strip() == "running"
        remove(real, "web")
    assert "web" not in lab.virsh("list", "--all", "--name").text


@pytest.mark.parametrize("method", ["create_volume", "upload_volume", "define"])
def test_a_restart_among_steps_side_by_side_is_unnoticed_or_undone(
    real: Host, lab: InLab, tmp_path: Path, method: str
) -> None:
    before = look(real)
    site = site_file(tmp_path, "shop", "web")
    failed: ApplyError | None = None
    try:
        apply(just_before(real, "hypervisor", method, partial(lab.restart_libvirtd, kill=True)), site)
    except ApplyError as error:
        failed = error
    if failed is not None:
        assert isinstance(failed.__cause__, Unreachable)
        assert failed.leftovers == ()
    else:
        assert lab.virsh("domstate", "web").text.strip() == "running"
        remove(real, "web")
    assert look(real) == before
    assert not real.interrupted()


@pytest.mark.parametrize("method", CALLS)
def test_an_apply_whose_libvirtd_goes_away_is_undone_when_it_is_back(
    real: Host, lab: InLab, tmp_path: Path, method: str
) -> None:
    before = look(real)
    host = just_before(real, "hypervisor", method, lambda: lab.stop_libvirtd(kill=True))
    with pytest.raises(ApplyError) as failed:
        apply(host, site_file(tmp_path, "shop", "web"))
    assert isinstance(failed.value.__cause__, Unreachable)
    assert diagnostics.exit_code(failed.value) == diagnostics.LEFTOVERS
    assert failed.value.leftovers
    assert real.interrupted(), "the journal stays for recovery"

    done = vmhost("recover")
    assert done.code == diagnostics.UNREACHABLE, "libvirtd is still away"
    assert real.interrupted()

    lab.start_libvirtd()
    done = vmhost("recover")
    assert done.code == 0, told(done)
    assert "apply shop" in done.text
    assert not real.interrupted()
    assert look(real) == before


def test_a_delete_whose_libvirtd_goes_away_is_finished_when_it_is_back(real: Host, lab: InLab, tmp_path: Path) -> None:
    """After the commit point a delete goes forward only."""
    before = look(real)
    apply(real, site_file(tmp_path, "shop", "web"))
    host = just_before(real, "hypervisor", "delete_volume", lab.stop_libvirtd)
    with pytest.raises(ApplyError, match="onnect") as failed:
        host.apply(host.plan_delete(["web"], ALL))
    assert failed.value.hint == "vmhost recover"
    lab.start_libvirtd()
    settled = real.recover()
    assert [bool(item.finished) for item in settled] == [True]
    assert look(real) == before


def test_a_killed_apply_is_recovered_only_when_libvirtd_is_back(real: Host, lab: InLab, tmp_path: Path) -> None:
    before = look(real)
    killed(site_file(tmp_path, "shop", "web"), "hypervisor.define")
    lab.stop_libvirtd(kill=True)
    assert vmhost("recover").code == diagnostics.UNREACHABLE
    lab.start_libvirtd()
    assert vmhost("recover").code == 0
    assert look(real) == before


def test_a_restart_while_a_guest_is_awaited(real: Host, lab: InLab, tmp_path: Path) -> None:
    """The waiting goes on with the new daemon, and the time-out is the guest's own."""
    site = site_file(tmp_path, "shop", "web", ready="{by: agent, timeout: 8s}")
    with started("apply", str(site), "--yes") as command:
        command.until("web: agent:")
        lab.restart_libvirtd(kill=True)
        code = command.end()
    assert code == diagnostics.NOT_READY, command.talk
    assert "not ready after 8 s" in command.talk
    assert lab.virsh("domstate", "web").text.strip() == "running"
    remove(real, "web")
