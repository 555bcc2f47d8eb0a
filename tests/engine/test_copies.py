"""A definition that somebody copied is nobody's of vmhost, and what others have is never deleted."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.engine.scenes import HARM, OFF, site
from vmhost.model.errors import NotFound, Refused, VmhostError
from vmhost.model.permit import Permit
from vmhost.model.plan import Plan
from vmhost.model.steps import DeleteVolume, ForgetConsole
from vmhost.ops.host import Host
from vmhost.testing import FakeHost
from vmhost.testing.world import Pool, Volume

COPY = "00000000-0000-4000-8000-00000000c0b1"
RESCUE = "00000000-0000-4000-8000-0000000e5c0e"


@pytest.fixture
def fake() -> FakeHost:
    made = FakeHost(seed=7)
    made.add_image("debian-12")
    Host(ports=made.ports).apply(Host(ports=made.ports).plan(site(OFF)))
    return made


@pytest.fixture
def host(fake: FakeHost) -> Host:
    return Host(ports=fake.ports)


def copy(fake: FakeHost, *, disks: bool) -> str:
    """Do what virt-clone does: another name, UUID, MAC and, if ``disks``, its own disk; the metadata as they were."""
    xml, old = fake.domain("web-01").xml, fake.domain("web-01").uuid
    xml = xml.replace("<name>web-01</name>", "<name>copy</name>").replace(f"<uuid>{old}<", f"<uuid>{COPY}<")
    xml = re.sub(r'(<mac address=")[^"]+', r"\g<1>52:54:00:99:99:99", xml)
    if disks:
        xml = re.sub(rf'(<source file="[^"]*/){old}-', r"\g<1>copied-", xml)
        for volume in [volume for pool, volume in fake.world.volumes() if volume.name.startswith(old)]:
            fake.add_volume("vmhost", Volume(volume.name.replace(old, "copied"), volume.capacity, volume.format))
    fake.ports.hypervisor.define(xml)
    return old


def rescue(fake: FakeHost, path: str) -> None:
    """Let a foreign, shut-off guest have a file as its disk."""
    disk = f"<disk type='file' device='disk'><source file='{path}'/><target dev='vda' bus='virtio'/></disk>"
    fake.ports.hypervisor.define(
        f"<domain type='kvm'><name>rescue</name><uuid>{RESCUE}</uuid><memory unit='MiB'>64</memory><vcpu>1</vcpu>"
        f"<os><type arch='x86_64' machine='q35'>hvm</type></os><devices>{disk}</devices></domain>"
    )


def path_of(fake: FakeHost, end: str) -> str:
    return next(pool.path_of(one.name) for pool, one in fake.world.volumes() if one.name.endswith(end))


def deleted(plan: Plan) -> set[str]:
    """The volumes that a plan deletes, without the guest's UUID."""
    return {item.do.name[37:] for item in (*plan.steps, *plan.after) if isinstance(item.do, DeleteVolume)}


def notes(plan: Plan) -> str:
    return "\n".join(note.text for note in plan.notes)


ACTS: dict[str, Callable[[Host], object]] = {
    "delete": lambda host: host.plan_delete(["copy"], HARM),
    "prune": lambda host: host.plan(site(OFF), Permit(power_off=True, disks=True, prune=frozenset({"copy"}))),
    "apply": lambda host: host.plan(site(OFF, OFF.replace("web-01", "copy"))),
    "replace": lambda host: host.plan(
        site(OFF, OFF.replace("web-01", "copy")), Permit(replace=frozenset({"copy"}), power_off=True)
    ),
    "snapshot": lambda host: host.snapshots.plan_create("copy", "now"),
    "backup": lambda host: host.backups.plan("copy"),
    "restore": lambda host: host.backups.plan_restore("copy", power_off=True),
    "resize": lambda host: host.plan_resize("copy", cpus=2),
    "stop": lambda host: host.plan_power(["copy"], "stop"),
}


@pytest.mark.parametrize("running", [False, True], ids=["stopped", "running"])
@pytest.mark.parametrize("act", ACTS)
def test_a_copied_definition_is_foreign_to_everything(fake: FakeHost, host: Host, act: str, running: bool) -> None:
    host.apply(host.backups.plan("web-01"))
    copy(fake, disks=True)
    if running:
        fake.ports.hypervisor.start(COPY)
    before = fake.state()
    with pytest.raises(VmhostError) as caught:
        ACTS[act](host)
    assert isinstance(caught.value, Refused | NotFound)
    assert fake.state() == before
    if act == "delete":
        assert f"foreign, made of a copy of the definition of guest {fake.domain('web-01').uuid}" in str(caught.value)


def test_a_copy_is_flagged_counted_and_found_by_the_doctor(fake: FakeHost, host: Host) -> None:
    host.apply(host.snapshots.plan_create("web-01", "one"))
    old = copy(fake, disks=True)
    row = {row.name: row for row in host.guests()}["copy"]
    assert (row.site, row.flags, row.addresses) == ("", ("foreign", "copy"), ())
    assert {claim.name: claim.policy for claim in host.capacity().guests}["copy"] == "foreign"
    assert [row.guest for row in host.snapshots.list()] == ["web-01"], "its records are those of web-01"
    assert not host.plan(site(OFF)).plan.steps, "and web-01 is as it was"
    (finding,) = [one for one in host.doctor(only="guests") if one.id == "guest-copied"]
    assert old in finding.why
    assert "virsh metadata copy https://vmhost.dev/xmlns/guest --remove --config" in finding.mend


def test_what_another_definition_has_is_not_deleted(fake: FakeHost, host: Host) -> None:
    rescue(fake, path_of(fake, "-root.qcow2"))
    plan = host.plan_delete(["web-01"], HARM).plan
    assert deleted(plan) == {"seed.iso"}
    assert "-root.qcow2 stays: rescue has it, too" in notes(plan)
    replaced = host.plan(site(OFF), Permit(replace=frozenset({"web-01"}))).plan
    assert deleted(replaced) == {"seed.iso"}
    assert "-root.qcow2 stays: rescue has it, too" in notes(replaced)
    pruned = host.plan(site(), Permit(prune=frozenset({"web-01"}), disks=True)).plan
    assert deleted(pruned) == {"seed.iso"}


def test_what_others_lie_on_is_not_deleted(fake: FakeHost, host: Host) -> None:
    """A volume of a snapshot below the disk of another, and a volume that no definition names at all."""
    host.apply(host.snapshots.plan_create("web-01", "one"))
    rescue(fake, "/srv/fast/rescue.qcow2")
    fake.world.pools["fast"] = Pool("fast", "fast", "/srv/fast")
    fake.add_volume("fast", Volume("rescue.qcow2", 4 << 30, "qcow2", path_of(fake, "-root@1.qcow2")))
    plan = host.plan_delete(["web-01"], HARM).plan
    assert deleted(plan) == {"seed.iso"}, "its first disk is below the overlay"
    assert notes(plan).count("stays: rescue has it, too") == 2
    fake.ports.hypervisor.undefine(RESCUE)
    plan = host.plan_delete(["web-01"], HARM).plan
    assert deleted(plan) == {"seed.iso"}
    assert notes(plan).count("stays: rescue.qcow2 has it, too") == 2
    fake.ports.hypervisor.delete_volume("fast", "rescue.qcow2")
    assert deleted(host.plan_delete(["web-01"], HARM).plan) == {"seed.iso", "root.qcow2", "root@1.qcow2"}


@pytest.mark.parametrize("end", ["-root.qcow2", "-root@1.qcow2"], ids=["written", "deleted"])
def test_a_merge_leaves_alone_what_others_have(fake: FakeHost, host: Host, end: str) -> None:
    host.apply(host.snapshots.plan_create("web-01", "one"))
    rescue(fake, path_of(fake, end))
    with pytest.raises(Refused, match=r"rescue has .*-root\.qcow2, a file of snapshot one"):
        host.snapshots.plan_delete("web-01", "one")


def test_a_restore_is_not_confirmed_while_another_has_what_it_keeps(fake: FakeHost, host: Host) -> None:
    host.apply(host.backups.plan("web-01"))
    host.apply(host.backups.plan_restore("web-01"))
    assert host.backups.plan_confirm("web-01").plan.after
    (kept,) = fake.ports.repositories.kept(path_of(fake, "-root.qcow2"))
    rescue(fake, kept)
    with pytest.raises(Refused, match=r"rescue has .*, which would be deleted"):
        host.backups.plan_confirm("web-01")


def test_a_restore_is_not_confirmed_while_the_guest_itself_has_what_it_keeps(fake: FakeHost, host: Host) -> None:
    """Somebody let what runs go back by hand; the definition names the restored disk again."""
    host.apply(host.backups.plan("web-01"))
    host.apply(host.backups.plan_restore("web-01"))
    now = path_of(fake, "-root.qcow2")
    (kept,) = fake.ports.repositories.kept(now)
    domain = fake.world.domains[fake.domain("web-01").uuid]
    domain.live_xml = domain.xml.replace(now, kept)
    with pytest.raises(Refused, match=r"web-01 has .*before-.*, which would be deleted"):
        host.backups.plan_confirm("web-01")


def test_metadata_alone_make_no_volume_the_guests(fake: FakeHost, host: Host) -> None:
    fake.world.pools["other"] = Pool("other", "other", "/srv/other")
    fake.add_volume("other", Volume("nas.qcow2", 4 << 30, "qcow2"))
    mark = "<vmhost:volume>"
    fake.edit("web-01", lambda xml: xml.replace(mark, f"{mark}other/nas.qcow2</vmhost:volume>{mark}", 1))
    plan = host.plan_delete(["web-01"], HARM).plan
    assert deleted(plan) == {"seed.iso", "root.qcow2"}
    assert "other/nas.qcow2 stays" in notes(plan)


def test_only_our_own_console_log_is_deleted(fake: FakeHost, host: Host) -> None:
    ours = host.plan_delete(["web-01"]).plan
    assert [item.do for item in ours.after if isinstance(item.do, ForgetConsole)]
    fake.edit("web-01", lambda xml: re.sub(r'(<log file=")[^"]+', r"\g<1>/etc/passwd", xml))
    plan = host.plan_delete(["web-01"]).plan
    assert not [item.do for item in plan.after if isinstance(item.do, ForgetConsole)]
    assert "its console log stays: /etc/passwd" in notes(plan)


@pytest.mark.parametrize("path", ["", "/home/ann/rescue.qcow2"], ids=["is its disk", "below a disk in no pool"])
def test_an_image_is_in_use(fake: FakeHost, host: Host, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (image,) = host.images.list()
    assert image.guests == ("web-01",)
    file = str(image.image.path)
    monkeypatch.setattr(type(fake.ports.files), "backing", lambda _, at: file if path and at == path else "")
    rescue(fake, path or file)
    assert host.images.list()[0].guests == ("rescue", "web-01")
