"""A guest whose disk lies in an overlay that others made keeps it, and all that was written to it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path

import pytest

from tests.engine.scenes import HEAD, WEB, site, standing
from tests.plan.happenings import happen, lay_over
from vmhost.cli import main
from vmhost.model.errors import Refused
from vmhost.model.permit import Permit
from vmhost.model.plan import Note
from vmhost.model.steps import DeleteVolume
from vmhost.ops.host import Host
from vmhost.plan.heartbeat import plan_revival
from vmhost.plan.outside import edited, volumes_by_path
from vmhost.render.parse.domain import parse_domain
from vmhost.testing import FakeHost

TWO = WEB.replace("disks: [{size: 4G}]", "disks: [{size: 4G}, {size: 1G}]")
OVERWRITE = Permit(overwrite=frozenset({"web-01"}))
REMOVE = Permit(power_off=True, disks=True)


@pytest.fixture
def fake() -> FakeHost:
    """A host with a guest of two disks that runs."""
    return standing(TWO)


@pytest.fixture
def host(fake: FakeHost) -> Host:
    """The same, as a script has it."""
    return Host(ports=fake.ports)


def source(fake: FakeHost, disk: str = "root") -> str:
    """Return the file that a disk will be at the next start."""
    disks = parse_domain(fake.domain("web-01").xml).disks
    return next(one.source for one in disks if one.alias == f"ua-disk-{disk}")


def power_off(fake: FakeHost) -> None:
    fake.hypervisor.power_off(fake.domain("web-01").uuid)


def test_drift_tells_of_it_and_is_none(host: Host, fake: FakeHost) -> None:
    first = source(fake)
    lay_over(fake, "web-01", "root", "one")
    top = lay_over(fake, "web-01", "root", "two")
    notes: list[Note] = []
    assert host.drift(site(TWO), on_note=notes.append) == ()
    (note,) = notes
    assert note.subject == "web-01"
    assert f"disk root lies in {top}, an overlay that others made over {first}; it is left alone" in note.text
    assert f"virsh blockcommit web-01 vda --base {first} --active --pivot" in note.text, "not down into its image"
    assert host.plan(site(TWO)).plan.notes == (note,)


def test_a_nightly_look_for_drift_does_not_fail_over_it(
    host: Host, fake: FakeHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lay_over(fake, "web-01", "root")
    (tmp_path / "site.yaml").write_text(HEAD + TWO)
    monkeypatch.setattr("vmhost.cli.site.open_host", lambda ctx: nullcontext(host))
    assert main.run(["drift", str(tmp_path / "site.yaml")]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"note: web-01: disk root lies in .*\.tp, .*\nno drift\n", err)


def test_it_is_not_marked_as_changed(host: Host, fake: FakeHost) -> None:
    lay_over(fake, "web-01", "root", "one")
    lay_over(fake, "web-01", "root", "two")
    observed = host.observe()
    (domain,) = observed.domains
    assert edited(domain, observed, volumes_by_path(observed), disks=str(fake.ports.layout.disks)) == ()


def test_what_is_overwritten_lies_on_nothing_that_was_noted_of_the_other(host: Host, fake: FakeHost) -> None:
    first = source(fake)
    lay_over(fake, "web-01", "root", "tp", "noted")
    assert "<backingStore" in fake.domain("web-01").xml
    host.apply(host.plan(site(TWO), OVERWRITE))
    assert source(fake) == first
    assert "<backingStore" not in fake.domain("web-01").xml, "else the disk would lie on itself"
    notes: list[Note] = []
    assert host.drift(site(TWO), on_note=notes.append) == ()
    assert ["its next start goes without what was written since" in note.text for note in notes] == [True]


def test_over_a_snapshot_it_is_put_back_to_that(host: Host, fake: FakeHost) -> None:
    host.apply(host.snapshots.plan_create("web-01", "mine"))
    present = source(fake)
    assert present.endswith("-root@1.qcow2")
    lay_over(fake, "web-01", "root")
    (note,) = host.plan(site(TWO)).plan.notes
    assert f"--base {present} " in note.text
    host.apply(host.plan(site(TWO), OVERWRITE))
    assert source(fake) == present


def test_a_snapshots_file_that_is_gone_is_told_and_not_gone_without(host: Host, fake: FakeHost) -> None:
    host.apply(host.snapshots.plan_create("web-01", "mine"))
    present = source(fake)
    power_off(fake)
    del fake.world.pools["vmhost"].volumes[present.rpartition("/")[2]]
    with pytest.raises(Refused, match=f"the volume of disk root is gone: {present}"):
        host.plan(site(TWO))
    assert source(fake) == present


def test_a_disk_that_was_moved_is_not_put_back_unasked(host: Host, fake: FakeHost) -> None:
    """As by virsh blockcopy: what the guest has written since is in the other file."""
    first = source(fake)
    power_off(fake)
    happen(fake, f"edit web-01 {first} /mnt/fast/web.qcow2")
    with pytest.raises(Refused, match="what it holds now would be left behind") as caught:
        host.plan(site(TWO))
    assert caught.value.hint == "add --overwrite web-01"
    host.apply(host.plan(site(TWO), OVERWRITE))
    assert source(fake) == first


def test_nothing_is_restored_into_it(host: Host, fake: FakeHost) -> None:
    host.backups.run(["web-01"])
    first = source(fake)
    top = lay_over(fake, "web-01", "root")
    merge = f"virsh blockcommit web-01 vda --base {first} --active --pivot"
    with pytest.raises(Refused, match=f"disk vda lies in {top}, an overlay that others made over {first}") as caught:
        host.backups.plan_restore("web-01", stop=True)
    assert caught.value.hint == merge
    power_off(fake)
    with pytest.raises(Refused, match="an overlay that others made") as caught:
        host.backups.plan_restore("web-01")
    assert caught.value.hint == f"vmhost guest start web-01; {merge}"


def gone(host: Host) -> tuple[set[str], str]:
    """Return the disks that would be deleted with the guest, and what the plan notes."""
    plan = host.plan_delete(["web-01"], REMOVE).plan
    volumes = {item.do.name for item in plan.after if isinstance(item.do, DeleteVolume)}
    return {name.split("-", 5)[5] for name in volumes}, "\n".join(note.text for note in plan.notes)


def test_beside_the_disk_it_goes_with_the_guest(host: Host, fake: FakeHost) -> None:
    lay_over(fake, "web-01", "root")
    assert gone(host) == ({"root.qcow2", "root.tp", "data1.qcow2", "seed.iso"}, "")


@pytest.mark.parametrize("noted", ["noted", ""])
@pytest.mark.parametrize("place", ["/mnt/usb", "pool"])
def test_elsewhere_it_stays_with_what_it_lies_on(host: Host, fake: FakeHost, place: str, noted: str) -> None:
    first = source(fake)
    top = f"{first.rpartition('/')[0] if place == 'pool' else place}/web.tp"
    lay_over(fake, "web-01", "root", top, noted)
    power_off(fake)
    volumes, said = gone(host)
    assert volumes == {"data1.qcow2", "seed.iso"}
    knows = "may lie" if (place, noted) == ("/mnt/usb", "") else "lies"
    name = first.rpartition("/")[2]
    assert said == (
        f"vmhost/{name} stays: disk root is {top}, which vmhost did not make and does not delete, "
        f"and which {knows} on it"
    )


ENDS: Mapping[str, Callable[[Host], object]] = {
    "stop": lambda host: host.plan_power(["web-01"], "stop"),
    "power off": lambda host: host.plan_power(["web-01"], "power-off"),
    "restart": lambda host: host.plan_power(["web-01"], "restart"),
    "resize": lambda host: host.plan_resize("web-01", memory=4 << 30, permit=Permit(stop=True)),
    "revive": lambda host: plan_revival("web-01", host.observe(), cause="silent", shutdown=30, power_off=True),
}


@pytest.mark.parametrize("end", ENDS)
def test_who_runs_in_one_that_its_definition_does_not_name_is_not_stopped(host: Host, fake: FakeHost, end: str) -> None:
    """It would start again without what it has written since."""
    assert ENDS[end](host)
    first = source(fake)
    top = lay_over(fake, "web-01", "root")
    assert ENDS[end](host), "its definition names the overlay"
    happen(fake, "defined-back web-01 root")
    before = fake.state()
    with pytest.raises(Refused, match=f"disk root runs in {top}, which its definition does not name") as caught:
        ENDS[end](host)
    assert caught.value.hint == f"virsh blockcommit web-01 vda --base {first} --active --pivot"
    assert fake.state() == before


def test_a_resize_that_waits_for_the_next_boot_stops_nobody(host: Host, fake: FakeHost) -> None:
    lay_over(fake, "web-01", "root")
    happen(fake, "defined-back web-01 root")
    assert host.plan_resize("web-01", memory=4 << 30).plan.steps
    power_off(fake)
    assert host.plan_power(["web-01"], "start")
