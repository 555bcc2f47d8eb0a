"""Files of snapshots that others have merged, taken, or redefined guests onto: nothing that a guest has is deleted."""

from __future__ import annotations

import pytest

from tests.engine.scenes import WEB, site, standing
from vmhost.model.errors import ApplyError, Refused, Unreachable
from vmhost.model.permit import Permit
from vmhost.model.steps import DeleteVolume
from vmhost.ops.host import Host
from vmhost.render.parse.domain import parse_domain
from vmhost.render.snapshots import with_sources
from vmhost.testing.world import Pool, Volume

OFF = Permit(power_off=True)
TWO = WEB.replace("disks: [{size: 4G}]", "disks: [{size: 4G}, {size: 1G}]")
STOP = Permit(stop=True)


class Scene:
    """A guest that runs, with two disks, and what others do to its files."""

    def __init__(self) -> None:
        self.fake = standing(TWO, seed=7)
        self.host = Host(ports=self.fake.ports)
        self.uuid = self.host.guest("web-01").row.uuid
        self.place = self.fake.world.pools["vmhost"].path

    def path(self, name: str) -> str:
        """Return where a file of the guest lies, by the end of its name."""
        return f"{self.place}/{self.uuid}-{name}.qcow2"

    def take(self, *names: str) -> None:
        """Take snapshots."""
        for name in names:
            self.host.apply(self.host.snapshots.plan_create("web-01", name))

    def merge(self, target: str, top: str, base: str, *gone: str) -> None:
        """What ``virsh blockcommit`` does, and ``rm`` of overlays after it."""
        self.fake.hypervisor.commit_disk(self.uuid, target, self.path(top), self.path(base))
        for name in gone:
            self.lose(name)

    def lose(self, name: str) -> None:
        """``rm``."""
        del self.fake.world.pools["vmhost"].volumes[f"{self.uuid}-{name}.qcow2"]

    def redefine(self, **files: str) -> None:
        """``virsh define`` with other files for disks."""
        xml = self.fake.hypervisor.domain(self.uuid).xml
        self.fake.hypervisor.define(with_sources(xml, {target: self.path(name) for target, name in files.items()}))

    def states(self) -> dict[str, tuple[str, bool]]:
        """Return what the list says of each snapshot."""
        return {row.name: (row.state, row.present) for row in self.host.snapshots.list("web-01")}

    def delete(self, name: str) -> list[str]:
        """Delete a snapshot; return the files that this deletes, by the ends of their names."""
        proposal = self.host.snapshots.plan_delete("web-01", name)
        self.host.apply(proposal)
        deleted = [one.do.name for one in proposal.plan.after if isinstance(one.do, DeleteVolume)]
        return [volume.removeprefix(f"{self.uuid}-").removesuffix(".qcow2") for volume in deleted]

    def whole(self) -> None:
        """Every file that the guest has by a definition is there."""
        domain = self.fake.world.domains[self.uuid]
        for xml in filter(None, (domain.xml, domain.live_xml)):
            for disk in parse_domain(xml).disks:
                assert self.fake.world.volume_at(disk.source) is not None, disk.source


def cut_off(_pool: str, name: str) -> None:
    """A connection that breaks."""
    raise Unreachable("it does not answer", subject=name)


@pytest.fixture
def scene() -> Scene:
    """A guest."""
    return Scene()


def test_what_somebody_else_merged_is_the_guests_and_its_record_alone_goes(scene: Scene) -> None:
    scene.take("one")
    scene.merge("vda", "root@1", "root", "root@1")
    assert scene.states() == {"one": ("overwritten", False)}
    for plan in (
        lambda: scene.host.snapshots.plan_create("web-01", "two"),
        lambda: scene.host.snapshots.plan_revert("web-01", "one", OFF),
    ):
        with pytest.raises(Refused, match=r"very file of snapshot one|one is overwritten") as refused:
            plan()
        assert refused.value.hint == "vmhost snapshot delete web-01 one"
    notes = scene.host.snapshots.plan_delete("web-01", "one").plan.notes
    assert [note.text.partition(":")[0] for note in notes] == ["snapshot one of disk root is lost"]
    assert scene.delete("one") == ["data1@1"]
    scene.whole()
    assert scene.states() == {}
    scene.take("two")
    assert scene.states() == {"two": ("whole", True)}


def test_an_overlay_that_was_merged_and_left_stays(scene: Scene) -> None:
    scene.take("one")
    scene.merge("vda", "root@1", "root")
    scene.merge("vdb", "data1@1", "data1")
    assert scene.delete("one") == []
    scene.whole()
    assert scene.fake.world.volume_at(scene.path("root@1")) is not None


def test_old_files_are_not_merged_into_what_a_guest_writes_to(scene: Scene) -> None:
    scene.take("one", "two")
    scene.merge("vda", "root@2", "root", "root@2")
    assert scene.states() == {"one": ("overwritten", False), "two": ("overwritten", False)}
    with pytest.raises(Refused, match="snapshot two rests on it, and both are overwritten") as refused:
        scene.delete("one")
    assert refused.value.hint == "vmhost snapshot delete web-01 two"
    assert scene.delete("two") == ["root@1", "data1@2"]
    assert scene.delete("one") == ["data1@1"]
    scene.whole()


def test_what_was_merged_below_is_doubtful(scene: Scene) -> None:
    scene.take("one", "two", "three")
    scene.merge("vda", "root@2", "root@1")
    assert scene.states() == {"one": ("whole", False), "two": ("doubtful", False), "three": ("whole", False)}
    (note,) = scene.host.snapshots.plan_revert("web-01", "two", OFF).plan.notes
    assert note.text.startswith("snapshot two is doubtful")
    scene.lose("root@2")
    assert scene.states()["three"] == ("damaged", False)
    assert scene.delete("three") == ["data1@3"]
    assert scene.delete("two") == ["root@3", "data1@2"]
    assert scene.delete("one") == ["root@1", "data1@1"]
    scene.whole()


def test_a_guest_that_is_redefined_onto_a_file_of_a_snapshot_keeps_it(scene: Scene) -> None:
    scene.take("one")
    scene.redefine(vda="root")
    assert scene.states() == {"one": ("overwritten", True)}
    for plan in (
        lambda: scene.host.snapshots.plan_create("web-01", "two"),
        lambda: scene.host.snapshots.plan_delete("web-01", "one"),
    ):
        with pytest.raises(Refused, match=r"disk root is .*root@1.qcow2 while it runs, and .*root.qcow2 at its next"):
            plan()
    with pytest.raises(Refused, match="the next start would go without what was written since"):
        scene.host.plan_power(["web-01"], "power-off")
    scene.fake.hypervisor.power_off(scene.uuid)  # as by virsh destroy
    assert scene.states() == {"one": ("overwritten", False)}
    assert scene.delete("one") == ["data1@1"], "root@1 may hold all that was written since: it stays"
    scene.whole()
    assert scene.fake.world.volume_at(scene.path("root@1")) is not None


def test_a_file_that_another_guest_writes_to_is_no_snapshot(scene: Scene) -> None:
    scene.take("one")
    xml = scene.fake.hypervisor.domain(scene.uuid).xml
    other = xml.replace(scene.uuid, "5b0d2c5e-0000-4000-8000-000000000001").replace(">web-01<", ">other<")
    (source,) = [disk.source for disk in parse_domain(xml).disks if disk.target == "vda"]
    other = other.replace(source.replace(scene.uuid, "5b0d2c5e-0000-4000-8000-000000000001"), scene.path("root"))
    scene.fake.hypervisor.define(other)
    assert scene.states() == {"one": ("overwritten", True)}
    with pytest.raises(Refused, match=r"one is overwritten: other writes to .*-root.qcow2"):
        scene.host.snapshots.plan_revert("web-01", "one", OFF)
    with pytest.raises(Refused, match="other has"):
        scene.host.snapshots.plan_delete("web-01", "one")


def test_a_volume_that_has_become_a_guests_since_the_plan_is_not_deleted_by_the_recovery_either(scene: Scene) -> None:
    scene.take("one", "two")
    scene.host.apply(scene.host.snapshots.plan_revert("web-01", "one", OFF))
    scene.delete("two")  # nothing of now rests on what was before
    proposal = scene.host.snapshots.plan_delete("web-01", "before-revert-3")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(scene.fake.hypervisor, "delete_volume", cut_off)
        with pytest.raises(ApplyError):
            scene.host.apply(proposal)
    scene.fake.hypervisor.power_off(scene.uuid)
    goes = next(one.do.name for one in proposal.plan.after if isinstance(one.do, DeleteVolume))
    scene.redefine(vda=goes.removeprefix(f"{scene.uuid}-").removesuffix(".qcow2"))
    (settled,) = scene.host.recover()
    assert f"vmhost/{goes}: it stays: web-01 has it by its definition" in settled.stays
    assert settled.leftovers == ()
    assert not scene.host.interrupted()
    scene.whole()


def test_a_disk_that_a_snapshot_keeps_is_not_detached(scene: Scene) -> None:
    scene.take("one")
    for permit in (Permit(), STOP):
        with pytest.raises(Refused, match="disk data1 is not detached: snapshot one keeps it") as refused:
            scene.host.plan(site(WEB), permit)
        assert refused.value.hint == "vmhost snapshot delete web-01 one"
    scene.take("two")
    with pytest.raises(Refused, match="snapshots one and two keep it"):
        scene.host.plan(site(WEB), STOP)
    scene.delete("two")
    scene.delete("one")
    scene.host.apply(scene.host.plan(site(WEB), STOP))
    scene.host.apply(scene.host.plan(site(TWO), STOP))
    assert scene.host.plan(site(TWO)).empty


def test_a_disk_that_was_detached_by_others_is_not_attached_by_what_it_rests_on(scene: Scene) -> None:
    scene.take("one")
    scene.host.power(["web-01"], "power-off")
    before = scene.fake.hypervisor.domain(scene.uuid).xml
    start, end = before.rindex("<disk", 0, before.index("data1@1")), before.index("</disk>", before.index("data1@1"))
    scene.fake.hypervisor.define(before[:start] + before[end + len("</disk>") :])
    with pytest.raises(Refused, match=r"data1.qcow2 is not attached as disk data1: snapshot one keeps it") as refused:
        scene.host.plan(site(TWO))
    words = f"virsh attach-disk web-01 {scene.path('data1@1')} vdb --subdriver qcow2 --alias ua-disk-data1 --config"
    assert refused.value.hint == words
    assert "lies on it" in str(refused.value)
    with pytest.raises(Refused, match="none of its snapshots, lies on snapshot one"):
        scene.delete("one")
    scene.lose("data1@1")
    assert scene.delete("one") == ["root@1"], "what is all that there is of a disk stays"
    scene.host.apply(scene.host.plan(site(TWO)))
    scene.whole()


def test_a_disk_that_moves_to_a_volume_which_others_lie_on_is_refused(scene: Scene) -> None:
    """The site names another pool, and a volume of the disk's name is there already, below somebody's own."""
    fast = Pool("fast", "fast", "/srv/fast")
    scene.fake.world.pools["fast"] = fast
    name = f"{scene.uuid}-data1.qcow2"
    scene.fake.add_volume("fast", Volume(name, 1 << 30, "qcow2"))
    moved = site(TWO.replace("{size: 1G}", "{size: 1G, pool: fast}"))
    scene.host.plan(moved)
    scene.fake.add_volume("fast", Volume("strange.qcow2", 1 << 30, "qcow2", f"/srv/fast/{name}"))
    with pytest.raises(Refused, match=r"data1.qcow2 is not attached as disk data1: strange.qcow2 lies on it"):
        scene.host.plan(moved)
