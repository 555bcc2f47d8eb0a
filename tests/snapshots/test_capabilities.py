"""The table of docs/decisions/0085: what libvirt itself can do, found out by doing it."""

from __future__ import annotations

import pytest

from tests.labfixture import InLab
from tests.snapshots.written import Written
from vmhost.drivers.command import Completed
from vmhost.ops.host import Host

pytestmark = [pytest.mark.backup, pytest.mark.timeout(120)]


@pytest.fixture
def guest(request: pytest.FixtureRequest, snaphost: Host, lab: InLab) -> Written:
    """A guest that does not run, by BIOS or UEFI."""
    made = Written(snaphost, lab, f"cell-{request.param}", request.param)
    made.create()
    snaphost.power([made.name], "power-off")
    return made


def tried(guest: Written, command: str, *words: str) -> str:
    """Do something with virsh; return what it said against it, or nothing."""
    done: Completed = guest.lab.virsh(command, guest.name, *words, check=False)
    return done.stderr.decode().strip() if done.code else ""


def forget(guest: Written, *names: str) -> None:
    """Remove libvirt's records of snapshots; the files of external ones stay."""
    for name in names:
        assert tried(guest, "snapshot-delete", name, "--metadata") == ""


@pytest.mark.parametrize("guest", ["bios"], indirect=True)
def test_cells_of_a_guest_by_bios(guest: Written) -> None:
    # stopped, internal
    guest.write("root", 0, 1)
    assert tried(guest, "snapshot-create-as", "inside") == ""
    guest.write("root", 0, 2)
    assert tried(guest, "snapshot-revert", "inside") == ""
    assert tried(guest, "snapshot-delete", "inside") == ""
    # stopped, external: taken, deleted, but never gone back to, and not deleted with what rests on it
    assert tried(guest, "snapshot-create-as", "outside", "--disk-only") == ""
    assert "not supported" in tried(guest, "snapshot-revert", "outside")
    assert "not supported" in tried(guest, "snapshot-delete", "outside", "--children")
    assert tried(guest, "snapshot-delete", "outside") == ""
    # running, disks only
    guest.host.power([guest.name], "start")
    guest.pause()
    inside = tried(guest, "snapshot-create-as", "x", "--disk-only", "--diskspec", "vda,snapshot=internal")
    assert "require external disk snapshots" in inside
    assert tried(guest, "snapshot-create-as", "live", "--disk-only", "--atomic") == ""
    assert "not supported" in tried(guest, "snapshot-revert", "live")
    # the record outlives the file that it is about
    assert tried(guest, "blockcommit", "vda", "--active", "--pivot", "--shallow") == ""
    assert "live" in guest.lab.virsh("snapshot-list", guest.name, "--name").text
    forget(guest, "live")


@pytest.mark.parametrize("guest", ["uefi"], indirect=True)
def test_cells_of_a_guest_by_uefi(guest: Written) -> None:
    guest.host.power([guest.name], "start")
    guest.pause()
    assert "pflash" in tried(guest, "snapshot-create-as", "inside")
    assert tried(guest, "snapshot-create-as", "live", "--disk-only", "--atomic") == ""
    assert "not supported" in tried(guest, "snapshot-revert", "live")
    forget(guest, "live")


@pytest.mark.parametrize("guest", ["bios"], indirect=True)
def test_an_internal_snapshot_beside_a_checkpoint_breaks_the_guest(guest: Written) -> None:
    guest.host.power([guest.name], "start")
    guest.pause()
    assert tried(guest, "checkpoint-create-as", "c1") == ""
    inside = tried(guest, "snapshot-create-as", "inside")
    back = tried(guest, "snapshot-revert", "inside") if not inside else ""
    assert inside or back or not guest.running, "it would be no reason against internal ones any more"
    forget(guest, *([] if inside else ["inside"]))
    tried(guest, "checkpoint-delete", "c1", "--metadata")
