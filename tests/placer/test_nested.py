"""Guests in a machine of two cells: placed by what it said, started by its own libvirtd, asked of its kernel."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.placer.test_captured import host_of
from vmhost.drivers.command import run
from vmhost.drivers.kernel import LinuxKernel
from vmhost.engine.hold import differences
from vmhost.model.tuning import Tuning
from vmhost.ops.sites import parse_site
from vmhost.render.parse.tuning import parse_tuning
from vmhost.render.shape import parse_shape
from vmhost.render.tuning import with_tuning

pytestmark = [pytest.mark.serial, pytest.mark.full, pytest.mark.timeout(400)]

MIB = 1 << 20
SCRIPT = Path(__file__).parents[2] / "scripts" / "captured-hosts"
MACHINE = "two-sockets"
SITE = (
    "{apiVersion: vmhost/v1, name: s, host: {overcommit_memory: 20},"
    " defaults: {image: debian-12, disks: [{size: 4G}]}, guests: {"
    "left: {cpus: {count: 2, policy: dedicated, iothreads: 1}, memory: {size: 64M, hugepages: 2M, cells: 0}},"
    "right: {cpus: {count: 2, policy: isolated, iothreads: 1}, memory: {size: 64M, hugepages: 2M, cells: 1}},"
    "wide: {cpus: {count: 4, policy: dedicated, pins: {0: 4, 1: 5, 2: 16, 3: 17}, topology: host},"
    " memory: {size: 64M, cells: 0-1}}}}"
)
DOMAIN = """\
<domain type='qemu'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <memory unit='MiB'>64</memory>
  <vcpu>{vcpus}</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <features><acpi/></features>
  <devices><controller type='usb' model='none'/></devices>
</domain>
"""


def tunings() -> dict[str, tuple[str, Tuning]]:
    """How vmhost holds the guests on that machine, and what it shows them: by name, with their UUIDs."""
    host = host_of(MACHINE)
    host.apply(host.plan(parse_site(SITE)))
    found = {raw.name: (raw.uuid, parse_tuning(raw.xml)) for raw in host.ports.hypervisor.domains()}
    uuid, tuning = found["wide"]
    shown = parse_shape(host.ports.hypervisor.domain(uuid).xml)
    return {**found, "wide": (uuid, replace(tuning, shape=shown))}


def told(domains: Path, proc: Path) -> None:
    """Start the domains in the machine, and lay out what its kernel says of them as it does itself."""
    text = run([str(SCRIPT), "--start", str(domains), MACHINE], timeout=300).text
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "mountinfo").write_text("")
    sections = text.split("== ")[1:]
    assert sections, text
    for section in sections:
        name, _, content = section.partition("\n")
        path = proc / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.replace("\n", "\0").encode() if path.name == "cmdline" else content.encode())


def test_guests_lie_on_the_hugepages_of_their_own_cells(tmp_path: Path) -> None:
    wanted, domains = tunings(), tmp_path / "domains"
    domains.mkdir()
    for name, (uuid, tuning) in wanted.items():
        bare = DOMAIN.format(name=name, uuid=uuid, vcpus=len(tuning.pins))
        (domains / f"{name}.xml").write_text(with_tuning(bare, tuning))
    told(domains, tmp_path / "proc")
    held = LinuxKernel(proc=tmp_path / "proc").held()
    assert {uuid for uuid, _ in wanted.values()} == set(held)
    for cell, name in enumerate(("left", "right")):
        uuid, tuning = wanted[name]
        assert (tuning.cells, tuning.cell_mode, tuning.page) == (str(cell), "strict", 2 * MIB)
        assert list(differences(tuning, held[uuid])) == []
        maps = (tmp_path / "proc" / str(held[uuid].pid) / "numa_maps").read_text().splitlines()
        (memory,) = (line.split() for line in maps if "kernelpagesize_kB=2048" in line)
        assert memory[1] == f"bind:{cell}"
        assert f"N{cell}=32" in memory, "all of the guest lies in its cell"
        assert not [word for word in memory if word.startswith(f"N{1 - cell}=")]

    # a guest of both cells has two of its own, each with half of its memory, and bound to the host's
    uuid, tuning = wanted["wide"]
    assert tuning.cells == "0-1"
    assert list(differences(tuning, held[uuid])) == []
    proc = tmp_path / "proc" / str(held[uuid].pid)
    words = (proc / "cmdline").read_text().split("\0")
    assert "4,sockets=2,dies=1,cores=1,threads=2" in words
    numa = [words[at + 1] for at, word in enumerate(words) if word == "-numa"]
    assert numa[:2] == ["node,nodeid=0,cpus=0-1,memdev=ram-node0", "node,nodeid=1,cpus=2-3,memdev=ram-node1"]
    assert "dist,src=0,dst=1,val=21" in numa
    policies = [line.split()[1] for line in (proc / "numa_maps").read_text().splitlines()]
    assert {"bind:0", "bind:1"} <= set(policies)
