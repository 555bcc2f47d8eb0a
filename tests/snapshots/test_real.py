"""Snapshots of real guests, running and stopped, by BIOS and by UEFI: every byte of every point."""

from __future__ import annotations

import shlex
import sys
import threading
from itertools import count
from pathlib import Path

import pytest

from tests.contract.backends import eventually
from tests.labfixture import InLab
from tests.snapshots.written import SITE, Written, contents
from vmhost.drivers.command import run
from vmhost.model.errors import Conflict, NotFound, Refused
from vmhost.model.permit import Permit
from vmhost.ops.host import Host
from vmhost.ops.sites import parse_site

pytestmark = [pytest.mark.backup, pytest.mark.timeout(180)]

OFF = Permit(power_off=True)


def take(guest: Written, name: str) -> None:
    """Take a snapshot, and remember what it has to hold."""
    guest.host.snapshots.create(guest.name, name)
    guest.keep(name)


def revert(guest: Written, name: str) -> str:
    """Go back; return the name of the snapshot that holds what was there before."""
    before = {row.name for row in guest.host.snapshots.list(guest.name)}
    guest.host.apply(guest.host.snapshots.plan_revert(guest.name, name, OFF))
    (safety,) = {row.name for row in guest.host.snapshots.list(guest.name)} - before
    guest.keep(safety)
    guest.now = {disk: bytearray(data) for disk, data in guest.then[name].items()}
    return safety


def delete(guest: Written, name: str) -> None:
    """Delete a snapshot."""
    guest.host.snapshots.delete(guest.name, name)
    del guest.then[name]


def fill(guest: Written, pattern: int) -> None:
    """Write some blocks of both disks, others each time, and one that is the same."""
    for disk in ("root", "data1"):
        guest.write(disk, 0, pattern)
        guest.write(disk, pattern % 16, pattern)


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_a_running_guest_goes_back_and_forth(snaphost: Host, lab: InLab, firmware: str) -> None:
    guest = Written(snaphost, lab, f"run-{firmware}", firmware)
    guest.create()
    site = parse_site(SITE % (guest.name, firmware))
    fill(guest, 1)
    take(guest, "one")
    fill(guest, 2)
    take(guest, "two")
    fill(guest, 3)
    guest.check("two snapshots")
    assert snaphost.plan(site).empty, "a snapshot is no drift"
    assert [(row.name, row.on, row.depth, row.present) for row in snaphost.snapshots.list(guest.name)] == [
        ("one", "", 1, False),
        ("two", "one", 2, True),
    ]
    with pytest.raises(Refused, match="it runs"):
        snaphost.snapshots.plan_revert(guest.name, "one")

    uuid, mac = guest.host.guest(guest.name).row.uuid, lab.virsh("dumpxml", guest.name).text
    nvram = Path(f"/var/lib/libvirt/qemu/nvram/{guest.name}_VARS.fd")
    variables = nvram.read_bytes() if firmware == "uefi" else b""
    if firmware == "uefi":
        kept = next(Path(snaphost.ports.layout.disks).glob(f"{uuid}-nvram@1.fd"))
        assert len(kept.read_bytes()) == len(variables) > 500_000
        nvram.write_bytes(variables[:-64] + b"\x5a" * 64)  # what somebody does in its set-up
    safety = revert(guest, "one")
    guest.pause()
    guest.check("back to one")
    assert guest.running, "it ran, so it runs"
    assert guest.host.guest(guest.name).row.uuid == uuid
    assert ("<interface" in mac) == ("<interface" in lab.virsh("dumpxml", guest.name).text)
    if firmware == "uefi":
        assert next(Path(snaphost.ports.layout.disks).glob(f"{uuid}-nvram@3.fd")).read_bytes()[-64:] == b"\x5a" * 64
        assert b"\x5a" * 64 not in nvram.read_bytes()[-64:], "its UEFI variables are those of then"
    assert snaphost.plan(site).empty, "nor is a revert"
    fill(guest, 4)
    revert(guest, safety)
    guest.pause()
    guest.check("forth again")

    # both ways rest on one: it cannot go before the other one has gone
    with pytest.raises(Refused, match="rest on snapshot one"):
        snaphost.snapshots.plan_delete(guest.name, "one")
    for name in ("before-revert-4", "two", safety, "one"):
        delete(guest, name)
        guest.check(f"without {name}")
    assert set(guest.sources().values()) == {
        f"{snaphost.ports.layout.disks}/{uuid}-{disk}.qcow2" for disk in ("root", "data1")
    }, "all is in the first files again"
    assert guest.running
    assert lab.virsh("snapshot-list", guest.name).text.strip() == ""
    assert "@" not in lab.virsh("dumpxml", "--inactive", guest.name).text.partition("<devices>")[2]
    assert snaphost.plan(site).empty


def test_a_stopped_guest_goes_back_and_forth(snaphost: Host, lab: InLab) -> None:
    guest = Written(snaphost, lab, "off")
    guest.create()
    fill(guest, 1)
    take(guest, "one")  # while it runs: libvirt notes in the definition what lies on what
    fill(guest, 2)
    take(guest, "two")
    fill(guest, 3)
    snaphost.power(["off"], "power-off")
    delete(guest, "one")
    guest.check("without the first one")
    snaphost.power(["off"], "start")
    guest.pause()
    guest.check("started on what was merged meanwhile")
    snaphost.power(["off"], "power-off")
    delete(guest, "two")
    for number, name in enumerate(("one", "two", "three"), 2):
        take(guest, name)
        fill(guest, number)
    guest.check("three snapshots")
    revert(guest, "two")
    guest.check("back to two")
    assert not guest.running
    delete(guest, "one")  # below what is now, and below what was before
    guest.check("without one")
    delete(guest, "three")  # on a side that nobody is on
    guest.check("without three")
    snaphost.power(["off"], "start")
    guest.pause()
    fill(guest, 6)
    delete(guest, "before-revert-6")
    delete(guest, "two")
    guest.check("running, without any")


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
@pytest.mark.parametrize("operation", ["create", "revert"])
def test_what_a_guest_writes_after_a_kill_stays(snaphost: Host, lab: InLab, operation: str, firmware: str) -> None:
    """It is started by others than vmhost and ended again; then somebody settles what was interrupted."""
    guest = Written(snaphost, lab, f"{operation}-{firmware}", firmware)
    guest.create()
    fill(guest, 1)
    if operation == "revert":
        take(guest, "one")
        fill(guest, 2)
    snaphost.power([guest.name], "power-off")
    name, step = ("new", "it goes on in new files") if operation == "create" else ("one", "is kept as")
    words = (sys.executable, "-P", "-m", "tests.snapshots.victim", operation, guest.name, name, step, "done")

    def kill() -> None:
        done = run(words, timeout=90, check=False)
        assert done.code == -9, done.stderr.decode()

    kill()
    (settled,) = snaphost.recover()
    guest.check("nobody has written: as before")
    assert not settled.stays
    kill()
    guest.keep("new" if operation == "create" else "before-revert-2")
    if operation == "revert":
        guest.now = {disk: bytearray(data) for disk, data in guest.then["one"].items()}
    lab.virsh("start", "--paused", guest.name)
    fill(guest, 3)
    lab.virsh("destroy", guest.name)
    (settled,) = snaphost.recover()
    guest.check("it has written: as after, and with what it has written")
    assert f"{guest.name} has gone on with " in str(settled)
    assert not snaphost.interrupted()
    assert not guest.running
    snaphost.power([guest.name], "start")
    guest.pause()
    fill(guest, 4)
    guest.check("it goes on")


def test_all_disks_are_kept_at_one_instant(snaphost: Host, lab: InLab) -> None:
    guest = Written(snaphost, lab, "writer")
    guest.create()
    stop, written = threading.Event(), 0

    def write() -> None:
        nonlocal written
        for number in count(1):
            for disk in ("root", "data1"):  # each number is on the first disk before it is on the second
                guest.write(disk, 0, number % 250)
            written = number
            if stop.is_set():
                return

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(4):
            assert eventually(lambda before=written: written > before, seconds=60)
            snaphost.apply(snaphost.snapshots.plan_create("writer", f"s{number}"))
    finally:
        stop.set()
        writer.join(60)
    seen = []
    for files in guest.snapshots().values():
        first, second = (data[0] for data in contents(files).values())
        assert (first - second) % 250 in (0, 1), "no disk is ahead of the other by more than one write"
        seen.append(first)
    assert len(set(seen)) > 1, "it wrote between the snapshots"


def test_what_cannot_be_done_is_refused_before_anything_is(snaphost: Host, lab: InLab) -> None:
    guest = Written(snaphost, lab, "no")
    guest.create()
    take(guest, "one")
    snapshots = snaphost.snapshots
    with pytest.raises(NotFound, match="no snapshot two"):
        snapshots.plan_revert("no", "two", OFF)
    with pytest.raises(Conflict, match="has a snapshot one"):
        snapshots.plan_create("no", "one")
    with pytest.raises(Refused, match="whose records go with it"):
        snaphost.plan_delete(["no"], OFF)
    # somebody puts an overlay of his own on what a snapshot keeps
    file = guest.snapshots()["one"]["root"]
    strange = f"{snaphost.ports.layout.disks}/strange.qcow2"
    run(("qemu-img", "create", "-q", "-f", "qcow2", "-b", file, "-F", "qcow2", strange), timeout=30)
    with pytest.raises(Refused, match="none of its snapshots"):
        snapshots.plan_delete("no", "one")
    Path(strange).unlink()
    guest.check("all is as it was")
    lab.virsh("resume", "no")
    lab.virsh("managedsave", "no", timeout=90)
    for plan in (lambda: snapshots.plan_create("no", "two"), lambda: snapshots.plan_delete("no", "one")):
        with pytest.raises(Refused, match="memory is saved"):
            plan()
    with pytest.raises(Refused, match="memory is saved and would be lost"):
        snapshots.plan_revert("no", "one", OFF)
    snaphost.apply(snapshots.plan_revert("no", "one", Permit(discard_saved=True)))
    assert not snaphost.guest("no").domain.raw.managed_save


def in_an_overlay(host: Host, lab: InLab, name: str) -> Written:
    """Make a guest that has written since its snapshot ``one``."""
    guest = Written(host, lab, name)
    guest.create()
    fill(guest, 1)
    take(guest, "one")
    fill(guest, 2)
    return guest


def test_what_somebody_else_has_merged_is_never_deleted(snaphost: Host, lab: InLab) -> None:
    """``virsh blockcommit`` into a snapshot's file, and ``rm`` of the overlay; the disk is that file from then on."""
    guest = in_an_overlay(snaphost, lab, "merged")
    base = guest.snapshots()["one"]["root"]
    overlay = guest.sources()["root"]
    words = ("blockcommit", guest.name, "vda", "--base", base, "--active", "--pivot", "--wait")
    lab.virsh(*words)
    Path(overlay).unlink()
    (row,) = snaphost.snapshots.list(guest.name)
    assert (row.state, row.present) == ("overwritten", False)
    with pytest.raises(Refused, match="one is overwritten"):
        snaphost.snapshots.plan_revert(guest.name, "one", OFF)
    delete(guest, "one")
    guest.check("all that it has written, and the record is gone")
    assert guest.sources()["root"] == base
    pool, name = "vmhost", Path(base).name
    assert snaphost.ports.hypervisor.users(pool, name) == (guest.name,)
    snaphost.power([guest.name], "power-off")
    assert snaphost.ports.hypervisor.users(pool, name) == (guest.name,), "by its definition, too"
    take(guest, "two")
    assert snaphost.ports.hypervisor.users(pool, name) == (guest.name,), "and below its disk"
    guest.check("a snapshot again")
    snaphost.power([guest.name], "start")
    guest.pause()
    delete(guest, "two")
    guest.check("merged by vmhost")


def test_a_disk_that_was_detached_by_others_comes_back_by_its_newest_file(snaphost: Host, lab: InLab) -> None:
    guest = in_an_overlay(snaphost, lab, "detached")
    site = parse_site(SITE % (guest.name, "bios"))
    snaphost.power([guest.name], "power-off")
    newest = guest.sources()["data1"]
    lab.virsh("detach-disk", guest.name, newest, "--config")
    with pytest.raises(Refused, match="not attached as disk data1: snapshot one keeps it") as refused:
        snaphost.plan(site)
    run(("virsh", "--connect", lab.uri, *shlex.split(refused.value.hint)[1:]), timeout=60)
    assert guest.sources()["data1"] == newest
    assert [(one.field, one.want) for one in snaphost.drift(site)] == [("state", "running")], "it is as it was"
    snaphost.apply(snaphost.plan(site))
    guest.pause()
    guest.check("attached again")
    delete(guest, "one")
    guest.check("and merged")
