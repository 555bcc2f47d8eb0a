"""Overlays that others lay over a real guest's disks with virsh: nothing that was written is lost sight of."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.labfixture import InLab
from tests.snapshots.written import SITE, Written, contents
from vmhost.model.permit import Permit
from vmhost.ops.host import Host
from vmhost.ops.sites import parse_site

pytestmark = [pytest.mark.backup, pytest.mark.timeout(180)]


def lay_over(guest: Written) -> dict[str, str]:
    """Let all disks go on in overlays that vmhost knows nothing of; return these."""
    guest.lab.virsh("snapshot-create-as", guest.name, "tp", "--disk-only", "--no-metadata")
    tops = guest.sources()
    assert all(path.endswith(f"-{disk}.tp") for disk, path in tops.items()), tops
    return tops


def below(host: Host, path: str) -> str:
    """Return what a file lies on."""
    return next(volume.backing for pool in host.observe().pools for volume in pool.volumes if volume.path == path)


def test_what_others_lay_over_disks_stays_until_it_is_merged(snaphost: Host, lab: InLab) -> None:
    guest = Written(snaphost, lab, "over")
    guest.create()
    site = parse_site(SITE % (guest.name, "bios"))
    first = guest.sources()
    image = below(snaphost, first["root"])
    guest.write("root", 0, 1)
    tops = lay_over(guest)
    guest.write("root", 1, 2)
    assert snaphost.plan(site).empty
    assert snaphost.drift(site) == ()

    lab.virsh("destroy", guest.name)
    snaphost.apply(snaphost.plan(site))
    guest.pause()
    assert guest.sources() == tops, "it was started with what it had"
    for note in snaphost.plan(site).plan.notes:
        found = re.search(r"virsh (blockcommit .*) merges it", note.text)
        assert found is not None, note.text
        lab.virsh(*shlex.split(found[1]))
    assert guest.sources() == first
    assert below(snaphost, first["root"]) == image, "it was not merged into its image"
    assert snaphost.plan(site).plan.notes == ()
    for path in tops.values():
        Path(path).unlink()
    guest.check("merged")

    before = {disk: bytes(data) for disk, data in guest.now.items()}
    tops = lay_over(guest)
    guest.write("data1", 3, 4)
    lab.virsh("destroy", guest.name)
    snaphost.apply(snaphost.plan(site, Permit(overwrite=frozenset({guest.name}))))
    guest.pause()
    assert guest.running, "no disk lies on itself"
    assert guest.sources() == first
    assert contents(first) == before
    assert contents(tops)["data1"] == bytes(guest.now["data1"]), "what was written is still there"
