"""What a guest writes is never taken away, whatever fails while something is undone or settled."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest

from tests.engine.scenes import SCENES, shape, stage
from vmhost.model.errors import ApplyError, DriverError, VmhostError
from vmhost.ops.apply import recover_host
from vmhost.ops.host import Host
from vmhost.render.parse.domain import parse_domain
from vmhost.testing import FakeHost, FaultPlan, FaultyPorts, SimulatedKill
from vmhost.testing.faults import Call

FULL = "No space left on device"


def full(_: Call) -> DriverError:
    return DriverError(FULL)


def failing(fake: FakeHost, *methods: str) -> Host:
    """Return a host on which these calls fail, for as long as it lives."""
    plan = FaultPlan(0, error=full, lasting=True, only=lambda port, called: called in methods)
    return Host(ports=FaultyPorts(fake.ports, plan).ports)


def files(fake: FakeHost) -> set[str]:
    """Return the paths of all volumes."""
    return {pool.path_of(volume.name) for pool, volume in fake.world.volumes()}


def disks_are_there(fake: FakeHost) -> None:
    """Every file that a guest has open, or would have, is there."""
    for domain in fake.world.domains.values():
        for xml in filter(None, (domain.xml, domain.live_xml)):
            for disk in parse_domain(xml).disks:
                assert disk.source == "" or fake.world.volume_at(disk.source) is not None, disk.source


@pytest.mark.parametrize(
    "name", ["delete the newest snapshot", "delete a snapshot below", "delete a snapshot of a stopped guest"]
)
def test_what_could_not_be_merged_is_not_deleted_by_the_recovery_either(name: str) -> None:
    scene = SCENES[name]
    fake = stage(scene)
    before = files(fake)
    for attempt in range(3):
        host = failing(fake, "commit_disk", "commit")
        with suppress(VmhostError):
            if attempt == 0:
                host.apply(scene.propose(host))
            else:
                (settled,) = host.recover()
                assert settled.leftovers == (f"vmhost recover    # {FULL}",)
        disks_are_there(fake)
        assert files(fake) == before, "nothing was deleted"
        assert fake.ports.journals.any_open()
    recover_host(fake.ports)
    reference = stage(scene)
    whole = Host(ports=reference.ports)
    whole.apply(scene.propose(whole))
    assert shape(fake.state()) == shape(reference.state())


def test_the_overlay_that_a_guest_writes_outlives_an_undo_that_fails() -> None:
    """Also after a kill, with which the guest goes on writing until the next command."""
    scene = SCENES["take a snapshot"]
    for kill in (False, True):
        fake = stage(scene)
        before = fake.state()
        if kill:
            only: Callable[[str, str], bool] = lambda port, called: called == "snapshot_disks"  # noqa: E731
            host = Host(ports=FaultyPorts(fake.ports, FaultPlan(0, "after", only=only)).ports)
            with pytest.raises(SimulatedKill):
                host.apply(scene.propose(host))
            fake.die()
        else:
            host = failing(fake, "set_metadata", "commit_disk")
            with pytest.raises(VmhostError) as failed:
                host.apply(scene.propose(host))
            assert any("stays, it may be in use" in text for text in getattr(failed.value, "leftovers", ()))
        disks_are_there(fake)
        (settled,) = failing(fake, "commit_disk").recover()
        assert any("stays, it may be in use" in text for text in settled.leftovers)
        disks_are_there(fake)
        recover_host(fake.ports)
        assert shape(fake.state()) == shape(before)


def test_uefis_variables_and_their_copy_outlive_a_revert_whose_guest_was_started() -> None:
    scene = SCENES["go back to a snapshot"]
    fake = stage(scene)
    (domain,) = fake.world.domains.values()
    only: Callable[[str, str], bool] = lambda port, called: called == "put_nvram"  # noqa: E731
    before = fake.world.nvram[domain.name]
    host = Host(ports=FaultyPorts(fake.ports, FaultPlan(0, "after", only=only)).ports)
    with pytest.raises(SimulatedKill):
        host.apply(scene.propose(host))
    fake.die()
    fake.hypervisor.start(domain.uuid)
    started = fake.world.nvram[domain.name]
    (settled,) = recover_host(fake.ports)
    assert any("it was started meanwhile; its UEFI variables" in text for text in settled.leftovers)
    assert fake.world.nvram[domain.name] == started
    assert any(path.endswith("-nvram@3.fd") for path in files(fake)), "what they were is kept"
    fake.hypervisor.power_off(domain.uuid)
    assert [settled.leftovers for settled in recover_host(fake.ports)] == [()]
    assert fake.world.nvram[domain.name] == before
    assert not any(path.endswith("-nvram@3.fd") for path in files(fake))


def test_a_volume_that_is_open_is_left_to_the_next_recovery_and_to_no_other_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """libvirt would delete it all the same."""
    fake = stage(SCENES["create"])

    def is_open(pool: str, name: str) -> None:
        raise DriverError("a running guest has this volume open; it stays", subject=name, retryable=True)

    monkeypatch.setattr(fake.hypervisor, "delete_volume", is_open)
    plan = FaultPlan(0, error=full, only=lambda port, called: (port, called) == ("hypervisor", "start"))
    host = Host(ports=FaultyPorts(fake.ports, plan).ports)
    with pytest.raises(ApplyError) as failed:
        host.apply(SCENES["create"].propose(host))
    left = {text.partition("    # ")[0] for text in failed.value.leftovers if "volume open" in text}
    assert left == {"vmhost recover"}


def test_a_volume_that_a_guest_has_open_is_not_deleted() -> None:
    fake = stage(SCENES["take a snapshot"])
    (domain,) = fake.world.domains.values()
    source = parse_domain(domain.live_xml).disks[0].source
    with pytest.raises(DriverError, match="has this volume open"):
        fake.hypervisor.delete_volume("vmhost", source.rpartition("/")[2])
    disks_are_there(fake)
