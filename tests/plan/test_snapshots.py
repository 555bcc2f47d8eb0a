"""Snapshots, planned purely: records that survive XML, and what is refused before anything is done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.engine.scenes import WEB, site, standing
from vmhost.engine.observe import observe
from vmhost.model.errors import Conflict, Protected, Refused
from vmhost.model.observed import Observed
from vmhost.model.permit import Permit
from vmhost.model.snapshots import MOST_DEEP, NO_SNAPSHOTS, KeptDisk, Level, Snapshot, Snapshots, is_overlay_of
from vmhost.model.steps import ResizeDisk
from vmhost.ops.host import Host
from vmhost.plan.restore import disk_files
from vmhost.plan.snapmerge import plan_delete_snapshot
from vmhost.plan.snapshots import plan_create, plan_revert
from vmhost.render.parse.snapshots import parse_snapshots
from vmhost.render.snapshots import snapshots_xml, with_snapshots, with_sources
from vmhost.render.storage import volume_xml
from vmhost.testing import FaultyPorts

NOW = "2026-11-28T22:00:00Z"
OFF = Permit(power_off=True)
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
KEPT = st.builds(KeptDisk, NAMES, NAMES, NAMES)
ONE = st.builds(
    Snapshot,
    number=st.integers(1, 99),
    name=NAMES,
    created=st.just(NOW),
    level=st.sampled_from(Level),
    parent=st.integers(0, 99),
    disks=st.lists(KEPT, max_size=3).map(tuple),
    nvram=st.sampled_from(["", "u-nvram@1.fd"]),
    why=st.sampled_from(["", "before the revert to <\"&'>"]),
    merging=st.booleans(),
)
ALL = st.builds(
    Snapshots, st.lists(ONE, max_size=4).map(tuple), st.integers(0, 99), st.integers(1, 99), st.sampled_from(["", NOW])
)


@given(ALL)
def test_records_survive_xml(records: Snapshots) -> None:
    definition = "<domain><metadata><x xmlns='urn:other'/></metadata></domain>"
    written = with_snapshots(definition, records)
    assert parse_snapshots(written) == records
    assert with_snapshots(written, records) == written
    assert "urn:other" in written
    assert (snapshots_xml(records) == "") == (records == NO_SNAPSHOTS)
    assert parse_snapshots(with_snapshots(written, NO_SNAPSHOTS)) == NO_SNAPSHOTS


@given(ALL)
def test_a_line_ends_whatever_the_records_say(records: Snapshots) -> None:
    assert len({item.number for item in records.line(records.present)}) == records.depth <= len(records.items)


def test_other_files_take_what_was_noted_of_the_old_ones_with_them() -> None:
    xml = (
        "<domain><devices><disk><source file='/a' index='3'/><backingStore/><target dev='vda'/></disk>"
        "<disk><source file='/b'/><backingStore/><target dev='vdb'/></disk></devices></domain>"
    )
    changed = with_sources(xml, {"vda": "/c"})
    assert 'file="/c"/>' in changed
    assert changed.count("backingStore") == 1


def test_only_overlays_of_the_same_disk_are_its_own() -> None:
    assert is_overlay_of("/p/u-root@12.qcow2", "/p/u-root.qcow2")
    for other in ("/q/u-root@1.qcow2", "/p/u-root@x.qcow2", "/p/u-data@1.qcow2", "/p/u-root.qcow2"):
        assert not is_overlay_of(other, "/p/u-root.qcow2")


@pytest.fixture
def host() -> Host:
    """A guest that runs."""
    return Host(ports=standing(WEB, seed=7).ports)


def changed(observed: Observed, **raw: object) -> Observed:
    """Return a host whose guest is otherwise."""
    return replace(observed, domains=tuple(replace(one, raw=replace(one.raw, **raw)) for one in observed.domains))


def test_snapshots_of_others_do_not_mix_with_ours(host: Host) -> None:
    observed = changed(observe(host.ports), snapshots=2)
    for plan in (
        lambda: plan_create("web-01", "one", observed, created=NOW),
        lambda: plan_revert("web-01", "one", observed, OFF, created=NOW),
        lambda: plan_delete_snapshot("web-01", "one", observed),
    ):
        with pytest.raises(Refused, match="2 snapshots that others made"):
            plan()


def test_a_disk_that_cannot_be_kept_is_named(host: Host) -> None:
    observed = observe(host.ports)
    xml = observed.domains[0].raw.live_xml
    raw = changed(observed, live_xml=xml.replace('type="qcow2"', 'type="raw"', 1).replace("type='qcow2'", "type='raw'"))
    with pytest.raises(Refused, match="disk vda is raw"):
        plan_create("web-01", "one", raw, created=NOW)
    with pytest.raises(Refused, match="disk vda lies in no storage pool"):
        plan_create("web-01", "one", replace(observed, pools=()), created=NOW)


def test_the_depth_is_bounded(host: Host) -> None:
    for number in range(MOST_DEEP):
        host.apply(host.snapshots.plan_create("web-01", f"s{number}"))
    with pytest.raises(Refused, match=f"rest on {MOST_DEEP} snapshots") as caught:
        host.snapshots.plan_create("web-01", "more")
    assert caught.value.hint == "vmhost snapshot delete web-01 s0"
    host.apply(host.snapshots.plan_delete("web-01", "s0"))
    host.apply(host.snapshots.plan_create("web-01", "more"))


def test_present_is_no_name_for_a_snapshot(host: Host) -> None:
    with pytest.raises(Conflict):
        host.snapshots.plan_create("web-01", "present")


def test_a_protected_guest_is_not_put_back(host: Host) -> None:
    host.apply(host.plan(site(WEB + "    protect: true\n")))
    host.apply(host.snapshots.plan_create("web-01", "one"))
    with pytest.raises(Protected):
        host.snapshots.plan_revert("web-01", "one", OFF)


def test_a_merge_that_was_left_is_gone_on_with_and_nothing_else(host: Host) -> None:
    for name in ("one", "two"):
        host.apply(host.snapshots.plan_create("web-01", name))
    observed = observe(host.ports)
    have = parse_snapshots(observed.domains[0].raw.xml)
    marked = replace(have, items=(replace(have.items[0], merging=True), have.items[1]))
    left = changed(observed, xml=with_snapshots(observed.domains[0].raw.xml, marked))
    assert plan_delete_snapshot("web-01", "one", left).steps == ()
    with pytest.raises(Refused, match="no longer whole"):
        plan_revert("web-01", "one", left, OFF, created=NOW)
    with pytest.raises(Refused, match="one is being merged away"):
        plan_delete_snapshot("web-01", "two", left)


def test_who_takes_or_merges_one_asks_for_no_more_than_that_needs(host: Host) -> None:
    for operation, asked in (("create", ["named", "holding"]), ("delete", ["domains", "pools"])):
        counted = FaultyPorts(host.ports)
        asking = Host(ports=counted.ports)
        asking.apply(getattr(asking.snapshots, f"plan_{operation}")("web-01", "asked"))
        getattr(asking.snapshots, operation)("web-01", "at-once")
        looks = [call.method for call in counted.calls if call.method in ("named", "holding", "domains", "pools")]
        assert looks == asked * 3, "to plan, under the lock, and at once for both"
        others = {"links", "images", "packet", "reservations", "kernel", "hook"}
        assert not [call for call in counted.calls if call.port in others or call.method in ("look", "look_at", "host")]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda host, _: host.apply(host.snapshots.plan_create("web-01", "between")), Conflict),
        (lambda host, _: host.apply(host.snapshots.plan_revert("web-01", "one", OFF)), Refused),
        (lambda host, uuid: host.ports.hypervisor.set_metadata(uuid, ""), Refused),
    ],
)
def test_what_changed_since_the_plan_was_shown_is_seen_by_a_narrow_look(
    host: Host, change: Callable[[Host, str], object], error: type[Exception]
) -> None:
    host.apply(host.snapshots.plan_create("web-01", "one"))
    take, merge = host.snapshots.plan_create("web-01", "two"), host.snapshots.plan_delete("web-01", "one")
    change(host, host.guest("web-01").row.uuid)
    before = host.snapshots.list()
    for proposal in (take, merge):
        with pytest.raises(error):
            host.apply(proposal)
    assert host.snapshots.list() == before


def test_what_others_lie_on_is_refused_whoever_they_are(host: Host) -> None:
    host.apply(host.snapshots.plan_create("web-01", "one"))
    merge = host.snapshots.plan_delete("web-01", "one")
    (disk,) = {disk for disk in disk_files(host.guest("web-01").domain) if disk.endswith("-root@1.qcow2")}
    below = disk.replace("@1", "")
    strange = volume_xml("strange.qcow2", 1 << 30, format="qcow2", backing=below, backing_format="qcow2")
    host.ports.hypervisor.create_volume("vmhost", strange)
    with pytest.raises(Refused, match="which is none of its snapshots, lies on"):
        host.apply(merge)


def test_a_file_that_is_gone_is_named(host: Host) -> None:
    host.apply(host.snapshots.plan_create("web-01", "one"))
    uuid = host.guest("web-01").row.uuid
    host.power(["web-01"], "power-off")  # the file of one that runs would stay
    host.ports.hypervisor.delete_volume("vmhost", f"{uuid}-root.qcow2")
    with pytest.raises(Refused, match="the volume of disk root is gone"):
        host.snapshots.plan_revert("web-01", "one", OFF)
    assert [row.state for row in host.snapshots.list("web-01")] == ["damaged"]


def test_a_disk_grows_where_the_guest_writes(host: Host) -> None:
    host.apply(host.snapshots.plan_create("web-01", "one"))
    proposal = host.plan(site(WEB.replace("4G", "5G")))
    (step,) = [item.do for item in proposal.plan.after if isinstance(item.do, ResizeDisk)]
    assert step.source.endswith("-root@1.qcow2")


def test_a_disk_that_came_later_stays_as_it_is(host: Host) -> None:
    more = WEB.replace("disks: [{size: 4G}]", "disks: [{size: 4G}, {size: 1G}]")
    host.apply(host.snapshots.plan_create("web-01", "one"))
    host.apply(host.plan(site(more), Permit(stop=True)))
    host.apply(host.snapshots.plan_create("web-01", "two"))
    proposal = host.snapshots.plan_revert("web-01", "one", OFF)
    assert [note.text for note in proposal.plan.notes] == ["disk data1 was not there then; it stays as it is"]
    host.apply(proposal)
    # "two" is beside what is now, but its file of the second disk lies below what the guest writes
    host.apply(host.snapshots.plan_delete("web-01", "two"))
    sources = {disk.target: disk.source.rpartition("/")[2][36:] for disk in host.guest("web-01").domain.facts.disks}
    assert (sources["vda"], sources["vdb"]) == ("-root@3.qcow2", "-data1.qcow2")
    assert host.plan(site(more)).empty


def test_names_of_safety_snapshots_are_kept_for_them(host: Host) -> None:
    with pytest.raises(Conflict, match="those of the snapshots that a revert takes"):
        host.snapshots.plan_create("web-01", "before-revert-3")
