"""What a guest writes is never taken away, whatever fails while something is undone or settled."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from tests.contract.backends import volume_xml
from tests.engine.scenes import SCENES, WEB, Scene, shape, stage
from tests.engine.test_sweep import OneAfterAnother
from vmhost.engine import transaction
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


@pytest.fixture(autouse=True)
def in_one_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that run side by side would leave it to chance what a kill finds done."""
    monkeypatch.setattr(transaction, "ThreadPoolExecutor", OneAfterAnother)


class Instead:
    """A port of which some methods are others."""

    def __init__(self, port: object, **methods: Callable[..., Any]) -> None:
        self._port = port
        self._methods = methods

    def __getattr__(self, name: str) -> Any:
        return self._methods.get(name) or getattr(self._port, name)


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


def killed(name: str, fits: Callable[[str, str], bool], at: int = 0, text: str = "") -> tuple[FakeHost, str]:
    """Return the host of a scene whose operation was killed after its call, and the guest that is about."""
    scene = SCENES[name]
    fake = stage(Scene(text, scene.propose, scene.prepare) if text else scene)
    host = Host(ports=FaultyPorts(fake.ports, FaultPlan(at, "after", only=fits)).ports)
    with pytest.raises(SimulatedKill):
        host.apply(scene.propose(host))
    fake.die()
    (domain,) = fake.world.domains.values()
    return fake, domain.uuid


def calls(*methods: str) -> Callable[[str, str], bool]:
    """Return what is true of these calls to the hypervisor, to files and to repositories."""
    return lambda port, called: port in ("hypervisor", "files", "repositories") and called in methods


def sources(fake: FakeHost, uuid: str) -> list[str]:
    """Return the files of a guest's disks, as it would start with them; not its seed."""
    return [disk.source for disk in parse_domain(fake.world.domains[uuid].xml).disks if disk.format == "qcow2"]


def write(fake: FakeHost, uuid: str, at: int = 0) -> str:
    """Let a guest be started, write to one of its disks, and end; return the disk's file."""
    if fake.world.domains[uuid].state.active:
        fake.hypervisor.power_off(uuid)
    fake.hypervisor.start(uuid)
    path = sources(fake, uuid)[at]
    volume = fake.world.volume_at(path)
    assert volume is not None
    volume.data = WRITTEN
    volume.writes += 1
    fake.hypervisor.power_off(uuid)
    return path


def still_there(fake: FakeHost, path: str) -> bool:
    """Whether a disk holds what was written to it."""
    volume = fake.world.volume_at(path)
    return volume is not None and volume.data == WRITTEN


TWO = WEB.replace("{size: 4G}", "{size: 4G}, {size: 1G}")
WRITTEN = b"acknowledged"
GIVEN = [("restore in place", "swap"), ("restore in place with UEFI", "swap"), ("go back to a snapshot", "define")]
GIVEN += [("take a snapshot of a stopped guest", "define"), ("restore in place with UEFI", "put_nvram")]


@pytest.mark.parametrize(("name", "call"), GIVEN)
def test_what_a_guest_wrote_after_a_kill_stays_its_disk(name: str, call: str) -> None:
    """It was started by others, or by libvirt when the host booted, and was ended again before anybody settled it."""
    fake, uuid = killed(name, calls(call))
    path = write(fake, uuid)
    before = files(fake)
    (settled,) = recover_host(fake.ports)
    assert sources(fake, uuid)[0] == path
    assert still_there(fake, path)
    assert {file for file in before if ".restored-" not in file} == files(fake), "nor has anything else gone"
    assert f"web-01 has gone on with {path}, so nothing is put back" in str(settled)
    assert ("vmhost backup confirm web-01" in str(settled)) == ("restore" in name)
    assert settled.leftovers == ()
    assert not fake.ports.journals.any_open()
    assert not fake.world.domains[uuid].state.active, "who ended it wants it to be off"
    host = Host(ports=fake.ports)
    if "snapshot" in name:
        assert [row.present for row in host.snapshots.list("web-01")].count(True) == 1
        host.apply(host.snapshots.plan_create("web-01", "later"))
    else:
        host.apply(host.backups.plan_confirm("web-01"))
        host.apply(host.backups.plan("web-01"))
    assert still_there(fake, path)


@pytest.mark.parametrize(("name", "call"), [("restore in place", "start"), ("go back to a snapshot", "start")])
def test_a_guest_that_runs_with_what_it_was_given_is_left_alone_after_a_kill(name: str, call: str) -> None:
    """All was done but for a line in the journal: whoever has used it since would lose what it holds in memory."""
    fake, uuid = killed(name, calls(call))
    given = sources(fake, uuid)
    (settled,) = recover_host(fake.ports)
    assert fake.world.domains[uuid].state.active
    assert sources(fake, uuid) == given
    assert "has gone on with" in str(settled)
    assert not fake.ports.journals.any_open()


def test_half_of_a_restore_is_put_back_only_when_the_guest_is_off_and_has_not_written() -> None:
    fake, uuid = killed("restore in place", calls("swap"), text=TWO)
    kept = [file for file in files(fake) if ".before-" in file]
    assert len(kept) == 1
    fake.hypervisor.start(uuid)
    present = fake.state()["domains"]
    (settled,) = recover_host(fake.ports)
    assert settled.leftovers[0].startswith("vmhost guest stop web-01, then vmhost recover    # web-01 runs with ")
    assert fake.state()["domains"] == present, "nothing is undone beneath it"
    assert set(kept) < files(fake)
    fake.hypervisor.power_off(uuid)
    (settled,) = recover_host(fake.ports)
    assert settled.leftovers == ()
    assert not [file for file in files(fake) if ".before-" in file or ".restored-" in file]


@pytest.mark.parametrize("at", [0, 1])
def test_half_of_a_restore_stays_when_the_guest_has_written_to_it(at: int) -> None:
    """What it has written to the disk that was not replaced yet is its present state as well."""
    fake, uuid = killed("restore in place", calls("swap"), text=TWO)
    first, second = sources(fake, uuid)
    path = write(fake, uuid, at)
    (settled,) = recover_host(fake.ports)
    assert still_there(fake, path)
    assert sources(fake, uuid) == [first, second]
    if at == 0:
        assert f"{second} is still what it was" in str(settled)
        assert [file.startswith(first) for file in files(fake) if ".before-" in file] == [True]
    assert not [file for file in files(fake) if ".restored-" in file]
    assert not fake.ports.journals.any_open()


def test_a_second_disk_that_was_not_written_is_not_put_back_beneath_one_that_was() -> None:
    fake, uuid = killed("restore in place", calls("swap"), at=1, text=TWO)
    path = write(fake, uuid, at=1)
    recover_host(fake.ports)
    assert still_there(fake, path)
    assert len([file for file in files(fake) if ".before-" in file]) == 2, "both are of one instant"


def test_what_a_guest_has_written_stays_when_the_operation_fails_too() -> None:
    """Somebody starts it between two swaps: the second one is refused, and the first is its disk."""
    scene = SCENES["restore in place"]
    fake = stage(Scene(TWO, scene.propose, scene.prepare))
    (domain,) = fake.world.domains.values()
    swap, swapped = fake.ports.repositories.swap, []

    def interrupted(path: str, new: str, kept: str) -> None:
        swap(path, new, kept)
        swapped.append(write(fake, domain.uuid))
        fake.hypervisor.start(domain.uuid)

    ports = replace(fake.ports, repositories=Instead(fake.ports.repositories, swap=interrupted))
    host = Host(ports=ports)
    with pytest.raises(ApplyError) as failed:
        host.apply(scene.propose(host))
    assert failed.value.undone == ()
    (text,) = failed.value.leftovers
    assert text.startswith("vmhost recover    # web-01 has gone on with ")
    (settled,) = recover_host(fake.ports)
    assert settled.leftovers == ()
    assert fake.world.domains[domain.uuid].state.active
    assert still_there(fake, swapped[0])


def test_nothing_is_put_back_while_nobody_can_see_whether_it_was_written() -> None:
    fake, uuid = killed("take a snapshot of a stopped guest", calls("define"))
    path = write(fake, uuid)
    (settled,) = failing(fake, "written").recover()
    assert settled.leftovers == (f"vmhost recover    # {FULL}",)
    assert still_there(fake, path)
    assert fake.ports.journals.any_open()
    recover_host(fake.ports)
    assert still_there(fake, path)


def test_what_others_have_laid_on_an_overlay_keeps_it() -> None:
    """A snapshot that somebody takes by virsh: nothing was written to our overlay, but it is needed."""
    fake, uuid = killed("take a snapshot of a stopped guest", calls("define"))
    (path,) = sources(fake, uuid)
    volume = fake.world.volume_at(path)
    assert volume is not None
    fake.hypervisor.create_volume("vmhost", volume_xml("other.qcow2", volume.capacity, backing=path))
    fake.hypervisor.define(fake.world.domains[uuid].xml.replace(path, path.rpartition("/")[0] + "/other.qcow2"))
    recover_host(fake.ports)
    disks_are_there(fake)
    assert path in files(fake)


def test_a_new_disk_that_a_guest_has_written_to_stays_and_is_attached_again() -> None:
    fake, uuid = killed("change", calls("define"))
    path = write(fake, uuid, at=1)
    (settled,) = recover_host(fake.ports)
    assert f"web-01 has written to volume {path.rpartition('/')[2]}, so it stays" in str(settled)
    assert settled.leftovers == ()
    assert still_there(fake, path)
    host = Host(ports=fake.ports)
    host.apply(SCENES["change"].propose(host))
    assert sources(fake, uuid)[1] == path
    assert still_there(fake, path)


def test_uefis_variables_and_their_copy_outlive_a_revert_whose_guest_was_started() -> None:
    for ended in (False, True):
        fake, uuid = killed("go back to a snapshot", calls("put_nvram"))
        name = fake.world.domains[uuid].name
        given = sources(fake, uuid)
        fake.hypervisor.start(uuid)
        started = fake.world.nvram[name]
        if ended:
            fake.hypervisor.power_off(uuid)
        (settled,) = recover_host(fake.ports)
        assert "has gone on with" in str(settled), "also if it has written to nothing but its variables"
        assert fake.world.nvram[name] == started
        assert sources(fake, uuid) == given
        assert any(path.endswith("-nvram@3.fd") for path in files(fake)), "what they were is kept"


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
