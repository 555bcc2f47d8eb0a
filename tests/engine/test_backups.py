"""Backups on a fake host: what faces and scripts get, and a point as a guest of its own."""

from __future__ import annotations

import json
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from tests.engine.scenes import HEAD, UEFI, WEB, site, standing
from vmhost.backupports import Tell
from vmhost.cli import main
from vmhost.engine import backup
from vmhost.engine.context import Context
from vmhost.model.backupsteps import BackupStep, BeginBackup, CopyDisks
from vmhost.model.errors import (
    ApplyError,
    Cancelled,
    Conflict,
    DriverError,
    NoCapacity,
    NotFound,
    PartlyDone,
    Protected,
    Refused,
    UsageError,
)
from vmhost.model.events import Event, Notice, Progress, StepDone
from vmhost.model.permit import Permit
from vmhost.model.points import BackupProgress, Damage, PointRef, beneath
from vmhost.model.retention import Keep
from vmhost.model.spec import HostSpec
from vmhost.ops.backups import raise_failures
from vmhost.ops.host import Host
from vmhost.ops.jobs import Job, described
from vmhost.ops.sites import parse_site
from vmhost.testing import FakeHost, FaultPlan, FaultyPorts, SimulatedKill
from vmhost.testing.faults import driver_error
from vmhost.testing.repository import FakeRepositories
from vmhost.testing.seed import read_seed
from vmhost.testing.world import Volume

TWO = WEB.replace("disks: [{size: 4G}]", "disks: [{size: 4G}, {size: 1G}]") + WEB.replace("web-01", "db-01")


@pytest.fixture
def fake() -> FakeHost:
    """A host with two guests, the first of two disks."""
    return standing(TWO)


@pytest.fixture
def host(fake: FakeHost) -> Host:
    """The same, as a script has it."""
    return Host(ports=fake.ports)


def test_all_guests_are_backed_up_and_one_that_fails_stops_no_other(host: Host, fake: FakeHost) -> None:
    results = host.backups.run()
    assert [result.point.because for result in results if result.point] == ["it is the first one"] * 2
    foreign = fake.domain("db-01")
    fake.hypervisor.power_off(foreign.uuid)
    fake.hypervisor.undefine(foreign.uuid)
    results = host.backups.run(["web-01", "db-01", "none"])
    with pytest.raises(PartlyDone, match="2 of 3"):
        raise_failures(results)
    assert results[0].point is not None
    assert results[0].point.kind == "incremental"
    assert {type(result.error) for result in results[1:]} == {NotFound}
    assert [point.name for point in host.backups.list("db-01")] == ["db-01"], "points outlive their guest"
    with pytest.raises(NotFound):
        host.backups.list("nobody")


def test_every_piece_of_a_copy_is_heard_and_the_history_gets_one_line_for_all(fake: FakeHost) -> None:
    heard: list[Event] = []
    with Job(fake.ports, "backup", "web-01", heard.append, None) as job:
        for done in range(1, 1001):
            job.tell(Progress("web-01", "copy vda", done, 1000))
        (record,) = [one for one in fake.ports.history.jobs(limit=100) if one.id == job.id]
        assert (record.progress, record.done, record.total) == ("web-01: copy vda", 1000, 1000)
        job.tell(Progress("web-01", "copy vdb", 1, 1000))
        assert fake.ports.history.lines(job.id) == ("web-01: copy vda", "web-01: copy vdb")
    assert len(heard) == 1001


def test_a_copy_ends_before_what_the_guest_overwrites_fills_the_place_of_its_disks(
    host: Host, fake: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = [512 << 20]
    monkeypatch.setattr(FakeRepositories, "room", lambda *_: free[0])

    def write(event: Event) -> None:
        if isinstance(event, Progress):
            free[0] = (256 << 20) - 1

    proposal = host.backups.plan("web-01", rate=1 << 20)
    assert proposal.plan.notes == (), "all of its disks would have room again"
    with pytest.raises(ApplyError, match=r"copy root, data1.*has left 256.0M in /") as caught:
        host.apply(proposal, on_event=write)
    assert caught.value.hint == "vmhost backup run web-01 --rate 0"
    assert caught.value.leftovers == ()
    assert host.backups.list("web-01") == ()
    free[:] = [1 << 20]
    (note,) = host.backups.plan("web-01").plan.notes
    assert "which has 1M free, and its disks take 2M" in note.text


def rates(monkeypatch: pytest.MonkeyPatch, host: Host, **how: int) -> list[tuple[str, int]]:
    """Take a point of both guests, and return what each step that copies may copy a second, by guest."""
    seen: list[tuple[str, int]] = []
    execute = backup.execute_backup

    def noted(step: BackupStep, context: Context) -> str:
        if isinstance(step, BeginBackup | CopyDisks):
            seen.append((step.name, step.rate))
        return execute(step, context)

    with monkeypatch.context() as patch:
        patch.setattr("vmhost.engine.execute.execute_backup", noted)
        raise_failures(host.backups.run(["web-01", "db-01"], **how))
    return sorted(seen)


def test_guests_side_by_side_share_what_may_be_copied_a_second(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a copier reads has the guest's share; QEMU, which writes all disks of a guest at once, a part for each."""
    assert rates(monkeypatch, host) == [("db-01", 0)] * 2 + [("web-01", 0)] * 2
    assert rates(monkeypatch, host, rate=8 << 20) == [
        *(("db-01", 0), ("db-01", 4 << 20)),
        *(("web-01", 0), ("web-01", 2 << 20)),
    ]
    assert rates(monkeypatch, host, rate=8 << 20, at_once=1, full=True) == [
        *(("db-01", 0), ("db-01", 8 << 20)),
        *(("web-01", 0), ("web-01", 8 << 20)),
    ]
    monkeypatch.setattr("vmhost.ops.hostfile.host_spec", lambda _: HostSpec.model_validate({"backup_rate": "2M"}))
    assert {rate for _, rate in rates(monkeypatch, host)} == {0, 1 << 20, 1 << 19}
    alone = host.backups.plan("db-01", full=True).plan
    assert [step.do.rate for step in alone.steps if isinstance(step.do, CopyDisks)] == [2 << 20]
    assert "copy root, 2M a second at most" in str(alone)


def test_a_repository_that_another_host_made_meanwhile_is_taken(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    make, theirs = FakeRepositories.make, "99999999-0000-4000-8000-000000000000"

    def overtaken(port: FakeRepositories, path: str, id: str) -> None:  # noqa: A002 - the port's word
        make(port, path, theirs)
        make(port, path, id)

    monkeypatch.setattr(FakeRepositories, "make", overtaken)
    raise_failures(host.backups.run(["web-01"]))
    assert host.backups.repository().id == theirs
    assert [point.checkpoint[:15] for point in host.backups.list()] == [f"vmhost-{theirs[:8]}"]


def test_points_are_compressed_as_the_hosts_own_file_says_or_who_asks(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(**how: Any) -> set[str]:
        plan = host.backups.plan("web-01", **how).plan
        assert ("compressed by zstd" in str(plan)) == ("zstd" in str([step.do for step in plan.steps]))
        return {step.do.compression for step in plan.steps if isinstance(step.do, CopyDisks)}

    assert asked() == {"none"}
    assert asked(compression="zstd") == {"zstd"}
    raise_failures(host.backups.run(["web-01"], compression="zstd"))
    monkeypatch.setattr("vmhost.ops.hostfile.host_spec", lambda _: HostSpec(backup_compression="zstd"))
    assert asked() == asked(full=True) == {"zstd"}
    assert asked(compression="none") == {"none"}
    (result,) = host.backups.run(["web-01"])
    assert result.point is not None
    assert result.point.kind == "incremental"


def test_an_increment_is_compressed_within_the_rate(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    pack, rates = FakeRepositories.pack, list[int]()

    def noted(*words: Any, rate: int = 0) -> None:
        rates.append(rate)
        pack(*words, rate=rate)

    monkeypatch.setattr(FakeRepositories, "pack", noted)
    for _ in range(2):
        raise_failures(host.backups.run(["web-01"], compression="zstd", rate=2 << 20))
    assert rates == [2 << 20] * 2, "one disk after the other, each with all of it"


def test_an_increment_that_cannot_be_compressed_is_kept_as_it_is(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise DriverError("there is no room", hint="df -h")

    raise_failures(host.backups.run(["web-01"], compression="zstd"))
    monkeypatch.setattr(FakeRepositories, "pack", full)
    notices: list[str] = []
    (result,) = host.backups.run(["web-01"], compression="zstd", on_event=lambda event: notices.append(str(event)))
    assert result.error is None
    assert result.point is not None
    assert result.point.kind == "incremental"
    assert any("vda stays as it is, not compressed: there is no room" in said for said in notices), notices


def test_a_point_waits_while_others_copy_what_all_may(host: Host, fake: FakeHost) -> None:
    plain, limited = host.backups.plan("web-01"), host.backups.plan("web-01", rate=8 << 20)
    assert (plain.share, limited.share, limited.whole) == (0, 8 << 20, 8 << 20)
    notices: list[str] = []
    with fake.ports.locks.budget(6 << 20, 8 << 20):
        raise_failures(host.backups.run(["db-01"], rate=0))
        asked = iter([False, True])
        (result,) = host.backups.run(
            ["web-01"],
            rate=8 << 20,
            on_event=lambda event: notices.append(event.text) if isinstance(event, Notice) else None,
            cancelled=lambda: next(asked, True),
        )
        assert isinstance(result.error, Cancelled)
        assert host.backups.list("web-01") == ()
    assert any("waiting" in text for text in notices)
    raise_failures(host.backups.run(["web-01"], rate=8 << 20))
    raise_failures(host.backups.run(["web-01", "db-01"], rate=8 << 20))


@pytest.mark.parametrize("shown", [False, True])
def test_the_time_of_a_point_that_waited_is_that_of_its_instant(host: Host, fake: FakeHost, shown: bool) -> None:
    others, free = ExitStack(), list[float]()

    def after_hours(event: Event) -> None:
        if isinstance(event, Notice) and "waiting" in event.text:
            fake.advance(6 * 3600.0)
            free.append(fake.ports.clock.now())
            others.close()

    others.enter_context(fake.ports.locks.budget(1 << 20, 1 << 20))
    if shown:
        host.apply(host.backups.plan("web-01", rate=1 << 20), on_event=after_hours)
    else:
        raise_failures(host.backups.run(["web-01"], rate=1 << 20, on_event=after_hours))
    (point,) = host.backups.list("web-01")
    assert len(free) == 1, "it has waited once"
    assert datetime.fromisoformat(point.taken).timestamp() >= int(free[0])


def test_what_is_wrong_in_the_hosts_own_file_keeps_no_guest_from_its_point(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(_: object) -> HostSpec:
        raise UsageError("host.yaml has faults")

    monkeypatch.setattr("vmhost.ops.hostfile.host_spec", wrong)
    raise_failures(host.backups.run(["web-01", "db-01"]))
    with pytest.raises(UsageError):
        host.backups.run(["web-01"], rate=-1)


def test_a_job_that_libvirt_keeps_and_qemu_lost_is_ended_and_the_next_run_is_well(
    fake: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host(ports=fake.ports)
    host.backups.run(["web-01"])
    with monkeypatch.context() as patch:
        patch.setattr(fake.hypervisor, "backup_progress", lambda _: BackupProgress("running"))
        began = fake.machine.monotonic()
        (result,) = host.backups.run(["web-01"])
        assert "libvirt has told nothing of the backup job for 30 s" in str(result.error)
        assert 30 <= fake.machine.monotonic() - began < 60
    uuid = fake.domain("web-01").uuid
    assert (fake.hypervisor.tracking(uuid).job, host.interrupted()) == ("", False)
    assert len(host.backups.list("web-01")) == 1
    (again,) = host.backups.run(["web-01"])
    assert again.point is not None
    assert again.point.kind == "incremental"


def test_the_journal_and_the_plan_hold_no_secret_and_say_why(host: Host) -> None:
    proposal = host.backups.plan("web-01")
    assert "full, because it is the first one" in str(proposal)
    assert "PRIVATE" not in json.dumps(proposal.as_json())


def test_a_foreign_guest_is_refused(host: Host, fake: FakeHost) -> None:
    fake.edit("web-01", lambda xml: xml[: xml.index("<metadata>")] + xml[xml.index("</metadata>") + 11 :])
    with pytest.raises(Refused, match="foreign"):
        host.backups.plan("web-01")


def test_another_program_that_backs_up_is_not_disturbed(host: Host, fake: FakeHost) -> None:
    fake.world.domains[fake.domain("web-01").uuid].backup = "<domainbackup mode='pull'><server name='localhost'/>"
    with pytest.raises(Conflict, match="another program"):
        host.backups.plan("web-01")


def test_bitmaps_that_nobody_needs_are_dropped(host: Host, fake: FakeHost) -> None:
    host.apply(host.backups.plan("web-01"))
    uuid, source = fake.domain("web-01").uuid, host.observe().domain("web-01").facts.disks[0].source  # type: ignore[union-attr]
    ours = f"vmhost-{host.backups.repository().id[:8]}-long-ago"
    fake.world.domains[uuid].orphaned_bitmaps = [[source, ours], [source, "of-somebody-else"]]
    host.apply(host.backups.plan("web-01"))
    assert fake.world.domains[uuid].orphaned_bitmaps == [[source, "of-somebody-else"]]


def test_a_point_becomes_a_guest_of_its_own(host: Host, fake: FakeHost) -> None:
    disks = {disk.alias: disk.source for disk in host.observe().domain("web-01").facts.disks}  # type: ignore[union-attr]
    _volume(fake, disks["ua-disk-root"]).data = b"then"
    host.apply(host.backups.plan("web-01"))
    _volume(fake, disks["ua-disk-root"]).data = b"now"
    networks = parse_site(HEAD + " {}")
    with pytest.raises(UsageError, match="it was on lan"):
        host.backups.plan_restore_as("web-01", "copy")
    with pytest.raises(Conflict):
        host.backups.plan_restore_as("web-01", "db-01", site=networks)
    proposal = host.backups.plan_restore_as("web-01", "copy", site=networks)
    host.apply(proposal)
    old, new = host.observe().domain("web-01"), host.observe().domain("copy")
    assert old is not None
    assert new is not None
    assert old.metadata is not None
    assert new.metadata is not None
    one, other = old.metadata.identity, new.metadata.identity
    assert other.uuid == new.uuid != one.uuid
    assert other.instance_id != one.instance_id
    assert other.host_key != one.host_key
    assert {nic.mac for nic in one.nics}.isdisjoint(nic.mac for nic in other.nics)
    assert {nic.address for nic in one.nics}.isdisjoint(nic.address for nic in other.nics)
    assert "machine-id" in new.metadata.spec
    copied = {disk.alias: disk.source for disk in new.facts.disks}
    assert copied["ua-disk-root"] != disks["ua-disk-root"]
    assert _volume(fake, copied["ua-disk-root"]).data == b"then"
    assert _volume(fake, copied["ua-disk-root"]).backing == ""
    assert _volume(fake, copied["ua-disk-data1"]).capacity == 1 << 30
    assert host.backups.plan("copy").plan.steps, "it is a guest like any other"


def _volume(fake: FakeHost, path: str) -> Volume:
    found = fake.world.volume_at(path)
    assert found is not None
    return found


def test_what_no_rule_keeps_goes_and_what_is_pinned_or_needed_stays(host: Host, fake: FakeHost) -> None:
    for full in (False, False, True, False, True):
        fake.advance(3600)
        host.apply(host.backups.plan("web-01", full=full))
    one, two, three, four, five = host.backups.list("web-01")
    assert host.backups.plan_prune(["web-01"]).empty, "no rule says what may go"
    host.apply(host.backups.plan_pin("web-01", one.id))
    assert host.backups.plan_pin("web-01", one.id).empty
    host.backups.verify("web-01", point=four.id)
    proposal = host.backups.plan_prune(["web-01"], Keep(last=1))
    assert f"{four.id} stays: the newest verified" in str(proposal)
    assert f"{three.id} stays: needed by {four.id}" in str(proposal)
    host.apply(proposal)
    assert [point.id for point in host.backups.list("web-01")] == [one.id, three.id, four.id, five.id]
    assert two.id in str(proposal)
    assert host.backups.plan_prune(["web-01"], Keep(last=1)).empty
    host.apply(host.backups.plan_pin("web-01", one.id, on=False))
    host.apply(host.backups.plan_prune(["web-01"], Keep(last=1)))
    assert [point.id for point in host.backups.list("web-01")] == [three.id, four.id, five.id]


def test_the_site_says_what_is_kept_and_a_change_of_it_is_noted_while_the_guest_runs(host: Host) -> None:
    for _ in range(2):
        host.apply(host.backups.plan("web-01", full=True))
    proposal = host.plan(site(TWO.replace("image: debian-12", "image: debian-12\n    backup: {keep: {last: 1}}")))
    assert "backup" in str(proposal)
    assert {str(item.change) for item in proposal.plan.steps} == {"live"}
    host.apply(proposal)
    host.apply(host.backups.plan_prune(["web-01"]))
    assert len(host.backups.list("web-01")) == 1


def test_the_file_systems_of_a_guest_with_an_agent_are_frozen_for_the_instant(host: Host, fake: FakeHost) -> None:
    proposal = host.backups.plan("web-01")
    told = [item.why.removeprefix("web-01: ") for item in proposal.plan.steps]
    at = told.index("the instant that the point holds")
    assert told[at - 1 : at + 2 : 2] == ["freeze its file systems", "thaw its file systems"]
    host.apply(proposal)
    assert host.backups.list("web-01")[0].level in ("filesystem", "application")
    assert not fake.world.domains[fake.domain("web-01").uuid].frozen

    fake.behave("db-01", agent=False)
    assert "freeze" not in str(host.backups.plan("db-01"))
    host.apply(host.backups.plan("db-01"))
    assert host.backups.list("db-01")[0].level == "crash"


def _sources(host: Host, name: str) -> dict[str, str]:
    domain = host.observe().domain(name)
    assert domain is not None
    return {disk.target: disk.source for disk in domain.facts.disks if not disk.readonly}


@pytest.fixture
def stopped(host: Host, fake: FakeHost) -> dict[str, str]:
    """The files of the first guest, which has a point of other content and is shut off."""
    disks = _sources(host, "web-01")
    for path in disks.values():
        _volume(fake, path).data = b"then"
    host.apply(host.backups.plan("web-01"))
    for path in disks.values():
        _volume(fake, path).data = b"now"
    fake.hypervisor.power_off(fake.domain("web-01").uuid)
    return disks


def test_a_guest_that_is_started_meanwhile_keeps_its_disks(host: Host, fake: FakeHost, stopped: dict[str, str]) -> None:
    def start(event: Event) -> None:
        if isinstance(event, StepDone) and "verify disk data1" in event.why:
            fake.hypervisor.start(fake.domain("web-01").uuid)

    with pytest.raises(ApplyError, match="it was started meanwhile") as caught:
        host.apply(host.backups.plan_restore("web-01"), on_event=start)
    assert caught.value.leftovers == ()
    assert fake.domain("web-01").state.active
    assert [_volume(fake, path).data for path in stopped.values()] == [b"now", b"now"]
    assert not any(".restored-" in volume.name for _, volume in fake.world.volumes())


def test_a_swapped_disk_is_not_put_back_under_a_guest_that_was_started(
    host: Host, fake: FakeHost, stopped: dict[str, str]
) -> None:
    uuid = fake.domain("web-01").uuid

    def start(event: Event) -> None:
        if isinstance(event, StepDone) and "replace" in event.why and not fake.domain("web-01").state.active:
            fake.hypervisor.start(uuid)

    with pytest.raises(ApplyError) as caught:
        host.apply(host.backups.plan_restore("web-01"), on_event=start)
    (left,) = caught.value.leftovers
    assert left.startswith("vmhost guest stop web-01, then vmhost recover    # web-01 runs with ")
    assert [_volume(fake, path).data for path in stopped.values()] == [b"then", b"now"]
    assert host.interrupted()
    fake.hypervisor.power_off(uuid)
    host.recover()
    assert [_volume(fake, path).data for path in stopped.values()] == [b"now", b"now"]
    assert not any(fake.ports.repositories.kept(path) for path in stopped.values())


def test_disks_with_snapshots_are_not_replaced_and_replaced_ones_get_none(host: Host, stopped: dict[str, str]) -> None:
    host.apply(host.snapshots.plan_create("web-01", "one"))
    with pytest.raises(Refused, match="it has 1 snapshot, on which") as caught:
        host.backups.plan_restore("web-01")
    assert caught.value.hint == "vmhost snapshot list web-01"
    host.apply(host.snapshots.plan_delete("web-01", "one"))
    proposal = host.backups.plan_restore("web-01")
    host.apply(proposal)
    for plan in (host.snapshots.plan_create, host.snapshots.plan_revert):
        with pytest.raises(Refused, match="was not confirmed"):
            plan("web-01", "two")  # type: ignore[operator]
    host.apply(host.backups.plan_confirm("web-01"))
    host.apply(host.snapshots.plan_create("web-01", "two"))


def test_what_libvirt_noted_of_files_below_a_disk_goes_before_the_disk(
    host: Host, fake: FakeHost, stopped: dict[str, str]
) -> None:
    before = fake.domain("web-01").xml
    noted = before.replace("</disk>", '<backingStore type="file"><source file="/old"/></backingStore></disk>', 1)
    fake.world.domains[fake.domain("web-01").uuid].xml = noted
    proposal = host.backups.plan_restore("web-01")
    told = [item.why for item in proposal.plan.steps]
    assert told[2:3] == ["web-01: forget what its present disks lie on"]
    host.apply(proposal)
    assert "backingStore" not in fake.domain("web-01").xml
    assert _sources(host, "web-01") == stopped


def test_uefis_variables_go_back_with_the_disks_and_are_kept_with_them(fake: FakeHost, host: Host) -> None:
    host.apply(host.plan(site(TWO, UEFI.replace("web-01", "efi-01"))))
    fake.world.nvram["efi-01"] = b"7"
    host.apply(host.backups.plan("efi-01"))
    fake.hypervisor.power_off(fake.domain("efi-01").uuid)
    fake.world.nvram["efi-01"] = b"8"
    host.apply(host.backups.plan_restore("efi-01"))
    assert fake.world.nvram["efi-01"] == b"7"
    (path,) = _sources(host, "efi-01").values()
    kept = fake.ports.repositories.kept(path)
    assert [_volume(fake, found).data for found in kept if found.endswith(".nvram")] == [b"8"]
    assert not any(".restored-" in volume.name for _, volume in fake.world.volumes())
    host.apply(host.backups.plan_confirm("efi-01"))
    assert fake.ports.repositories.kept(path) == ()


@pytest.fixture
def other_variables(fake: FakeHost, host: Host) -> str:
    """A guest with UEFI that is shut off, with variables ``8``, and a point of it, with ``7``; its UUID."""
    host.apply(host.plan(site(TWO, UEFI.replace("web-01", "efi-01"))))
    fake.world.nvram["efi-01"] = b"7"
    host.apply(host.backups.plan("efi-01"))
    uuid = fake.domain("efi-01").uuid
    fake.hypervisor.power_off(uuid)
    fake.world.nvram["efi-01"] = b"8"
    return uuid


def they_stay(fake: FakeHost, uuid: str, variables: bytes) -> None:
    """A guest has the variables of its own start, with the restored disks; those from before are kept with the old."""
    host = Host(ports=fake.ports)
    (path,) = _sources(host, "efi-01").values()
    kept = [found for found in fake.ports.repositories.kept(path) if found.endswith(".nvram")]
    assert fake.world.nvram["efi-01"] == variables, "its UEFI goes on with what it started with"
    assert [_volume(fake, found).data for found in kept] == [b"8"]
    assert not any(".restored-" in volume.name for _, volume in fake.world.volumes())
    fake.hypervisor.power_off(uuid)
    host.apply(host.backups.plan_confirm("efi-01"))
    assert fake.ports.repositories.kept(path) == ()
    assert fake.world.nvram["efi-01"] == variables


def test_uefis_variables_are_not_replaced_under_a_guest_that_was_started(
    fake: FakeHost, host: Host, other_variables: str
) -> None:
    def start(event: Event) -> None:
        if isinstance(event, StepDone) and ", kept as" in event.why:
            fake.hypervisor.start(other_variables)

    with pytest.raises(ApplyError, match="it was started meanwhile; its UEFI variables were not touched") as caught:
        host.apply(host.backups.plan_restore("efi-01"), on_event=start)
    (left,) = caught.value.leftovers
    assert left.startswith("vmhost recover    # efi-01 has gone on with ")
    assert [settled.leftovers for settled in host.recover()] == [()]
    they_stay(fake, other_variables, b"%08d" % 9)


def test_uefis_variables_are_not_put_back_under_a_guest_that_was_started(fake: FakeHost, other_variables: str) -> None:
    plan = FaultPlan(0, "after", only=lambda _, called: called == "put_nvram")
    killed = Host(ports=FaultyPorts(fake.ports, plan).ports)
    with pytest.raises(SimulatedKill):
        killed.apply(killed.backups.plan_restore("efi-01"))
    fake.die()
    fake.hypervisor.start(other_variables)
    (settled,) = Host(ports=fake.ports).recover()
    assert settled.leftovers == ()
    they_stay(fake, other_variables, b"%08d" % 8)


def test_a_point_holds_a_seed_that_says_who_the_guest_is_and_nothing_else(host: Host, fake: FakeHost) -> None:
    host.backups.run(["web-01"])
    (point,) = host.backups.list("web-01")
    files = read_seed(fake.ports.repositories.read(point.ref, "seed.iso").encode())
    assert files is not None
    known = host.guest("web-01").domain.metadata
    assert known is not None
    said = {"instance-id": known.identity.instance_id, "local-hostname": "web-01"}
    assert json.loads(files["meta-data"]) == said
    assert files["user-data"].split() == [b"#cloud-config", b"{}"]


class Reader:
    """Hears which points are read, one list for each verification."""

    def __init__(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        self.read: list[list[str]] = []
        repositories = host.ports.repositories
        verify = repositories.verify

        def heard(ref: PointRef, tell: Tell, known: Collection[str]) -> tuple[Damage, ...]:
            points = {one.ref: one for one in repositories.points(ref.repository, ref.guest)}
            links = (points[ref], *beneath(points[ref], points))
            self.read.append([link.id for link in links if link.id not in known])
            return verify(ref, tell, known)

        monkeypatch.setattr(repositories, "verify", heard)


def test_points_are_read_once_however_many_lie_on_them(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    points = [result.point for _ in range(4) for result in host.backups.run(["web-01"]) if result.point]
    assert [point.kind for point in points] == ["full", *["incremental"] * 3]
    reader = Reader(host, monkeypatch)
    assert [found.damages for found in host.backups.verify("web-01")] == [()] * 4
    assert reader.read == [[point.id] for point in points]
    reader.read.clear()
    assert host.backups.verify("web-01", point=points[-1].id)[0].damages == ()
    assert reader.read == [[point.id for point in reversed(points)]], "who asks for it has all of it read"


def test_of_what_a_new_point_lies_on_only_that_is_read_which_was_not_lately(
    host: Host, fake: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = Reader(host, monkeypatch)
    for days in (0, 1, 5, 2):
        fake.advance(days * 86400)
        night = host.backups.nightly.run(["web-01"])
        assert night.failures == ()
    first, second, third, fourth = (point.id for point in host.backups.list("web-01"))
    assert reader.read == [[first], [second], [third], [fourth, second, first]]
    seen = {point.id: point.verified for point in host.backups.list("web-01")}
    assert seen[first] == seen[second] == seen[fourth] > seen[third]


def test_what_is_damaged_below_a_point_is_noted_where_it_is(host: Host, fake: FakeHost) -> None:
    points = [result.point for _ in range(3) for result in host.backups.run(["web-01"]) if result.point]
    stored = fake.world.repositories[points[1].ref.repository].points[f"{points[1].ref.guest}/{points[1].id}"]
    stored.files[points[1].disks[0].file] = "another text"
    (found,) = host.backups.verify("web-01", point=points[2].id)
    assert [damage.point for damage in found.damages] == [points[1].id]
    noted = {point.id: (bool(point.verified), point.damaged) for point in host.backups.list("web-01")}
    assert [noted[point.id] for point in points] == [(True, False), (False, True), (False, True)]
    assert [bool(found.damages) for found in host.backups.verify("web-01")] == [False, True, True]


def test_a_protected_guest_keeps_its_disks_whatever_the_flags(host: Host) -> None:
    host.apply(host.plan(site(f"{TWO}    protect: true\n")))
    host.backups.run(["db-01"])
    for may in ({}, {"stop": True}, {"power_off": True}):
        with pytest.raises(Protected, match="it is protected"):
            host.backups.plan_restore("db-01", **may)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("run web-01 --rate=", "--rate"),
        ("verify --all --point latest", "--point is for one guest"),
        ("verify web-01 --point=", "names no point"),
        ("restore web-01 --in-place --point=", "names no point"),
        ("restore web-01 --in-place --site x.yaml", "--site is for a new guest"),
        ("pin web-01 --point=", "names no point"),
        ("drill web-01 --point=", "names no point"),
        ("drill web-01 --budget 2h", "--budget is for all guests"),
    ],
)
def test_words_that_would_be_passed_over_are_refused(capsys: pytest.CaptureFixture[str], words: str, said: str) -> None:
    assert main.run(["-c", "fake:demo", "backup", *words.split()]) == 2
    assert said in capsys.readouterr().err


def test_what_has_no_room_is_refused_before_anything_is_begun(
    host: Host, fake: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.backups.run(["web-01"])
    fake.hypervisor.power_off(fake.domain("web-01").uuid)
    before, (point,) = fake.state(), host.backups.list("web-01")
    needs = sum(disk.capacity for disk in point.disks)
    monkeypatch.setattr(FakeRepositories, "room", lambda *_: needs - 1)
    for plan in (
        lambda: host.backups.plan_restore("web-01"),
        lambda: host.backups.plan_restore_as("web-01", "copy", site=site(TWO)),
    ):
        with pytest.raises(NoCapacity, match="its disks need 5G") as caught:
            plan()
        assert caught.value.hint.startswith("df -h ")
    assert fake.state() == before
    monkeypatch.setattr(FakeRepositories, "room", lambda *_: needs)
    assert not host.backups.plan_restore("web-01").empty


def test_what_cannot_be_noted_is_said_and_verified_all_the_same(host: Host, fake: FakeHost) -> None:
    host.backups.run(["web-01"])
    unwritable = FaultPlan(0, error=driver_error, only=lambda _, called: called == "note")
    told: list[str] = []
    backups = Host(ports=FaultyPorts(fake.ports, unwritable).ports).backups
    (found,) = backups.verify("web-01", on_event=lambda event: told.append(described(event)[0]))
    assert found.damages == ()
    assert "the outcome could not be noted" in told[-1]
    assert host.backups.list("web-01")[0].verified == ""


def test_one_point_that_cannot_be_understood_keeps_all_of_its_guest(host: Host, fake: FakeHost) -> None:
    for _ in range(3):
        host.backups.run(full=True)
    first, *_ = host.backups.list("web-01")
    (repository,) = fake.world.repositories.values()
    repository.points[f"{first.ref.guest}/{first.id}"].text = ""
    proposal = host.backups.plan_prune([], Keep(last=1))
    assert f"note: web-01: all its points stay: {first.id}/manifest.json: is missing" in str(proposal)
    assert {item.subject for item in proposal.plan.after} == {"db-01"}


def test_a_run_tells_of_the_point_that_it_took(host: Host, fake: FakeHost) -> None:
    """Whatever other hosts have counted in the same repository."""
    (first,) = host.backups.run(["web-01"])
    assert first.point is not None
    (repository,) = fake.world.repositories.values()
    stored = repository.points[f"{first.point.ref.guest}/{first.point.id}"]
    text = json.loads(stored.text)
    text["ref"] |= {"host": "another", "id": "20200101T000000Z-000099"}
    other = replace(stored, text=json.dumps(text | {"generation": 99, "taken": "2020-01-01T00:00:00Z"}))
    repository.points[f"{first.point.ref.guest}/20200101T000000Z-000099"] = other
    (second,) = host.backups.run(["web-01"])
    assert second.point is not None
    assert second.point.generation == 2
    assert second.point.ref.host == first.point.ref.host


def test_a_guest_that_was_made_anew_has_its_own_latest_point(host: Host) -> None:
    for _ in range(3):
        host.backups.run(["web-01"], full=True)
    old = host.backups.list("web-01")[-1].ref.guest
    host.apply(host.plan_delete(["web-01"], Permit(power_off=True, disks=True)))
    with_one = host.backups.plan_pin("web-01", "latest")
    assert [item.do.ref.guest for item in with_one.plan.steps] == [old]  # type: ignore[union-attr]
    host.apply(host.plan(site(TWO)))
    host.backups.run(["web-01"])
    (step,) = host.backups.plan_pin("web-01", "latest").plan.steps
    assert step.do.ref.guest != old  # type: ignore[union-attr]
    host.apply(host.plan_delete(["web-01"], Permit(power_off=True, disks=True)))
    with pytest.raises(Refused, match="2 guests had this name"):
        host.backups.plan_pin("web-01", "latest")
