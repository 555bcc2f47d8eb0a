"""What a real libvirtd says of large machines (scripts/captured-hosts), and guests placed on them."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest

from vmhost.model.topology import Pages, Topology
from vmhost.ops.host import Host
from vmhost.ops.sites import parse_site
from vmhost.render.parse.topology import parse_topology
from vmhost.testing import FakeHost

CAPTURED = Path(__file__).parent / "captured"
NAMES = sorted(path.stem for path in CAPTURED.glob("*.txt"))
MIB2 = 2 << 20


def captured(name: str) -> tuple[str, dict[str, str]]:
    """The capabilities, and the kernel's files below /sys/devices/system by their path."""
    parts = (CAPTURED / f"{name}.txt").read_text().split("\n== ")
    found = {part.partition("\n")[0]: part.partition("\n")[2].strip() for part in parts[1:]}
    return found.pop("capabilities"), found


def topology(name: str) -> Topology:
    return parse_topology(*captured(name))


def host_of(name: str) -> Host:
    """A fake host that says of itself what the real one said."""
    fake = FakeHost(seed=3)
    fake.add_image("debian-12")
    fake.world.capabilities, fake.world.kernel = captured(name)
    fake.world.memory = topology(name).memory
    return Host(ports=fake.ports)


def test_every_machine_is_there_and_says_how_it_was_made() -> None:
    assert NAMES == ["asymmetric", "eight-cells", "offline-and-isolated", "one-socket", "two-sockets"]
    for name in NAMES:
        head = (CAPTURED / f"{name}.txt").read_text().splitlines()[:4]
        assert head[0].startswith(f"# Made by scripts/captured-hosts {name}")
        assert "-smp " in head[1]
        assert "libvirt" in head[3]


def test_one_socket_with_threads() -> None:
    found = topology("one-socket")
    assert found.cores() == tuple(frozenset({number, number + 1}) for number in (0, 2, 4, 6))
    assert {cpu.socket for cpu in found.cpus} == {0}
    assert len(found.cells) == 1


def test_two_sockets_with_threads_and_hugepages() -> None:
    found = topology("two-sockets")
    assert [cpu.socket for cpu in found.cpus] == [0] * 12 + [1] * 12
    assert len(found.cores()) == 12
    assert found.in_cells([1]) == frozenset(range(12, 24))
    assert found.cells[0].distances == ((0, 10), (1, 21))
    assert [cell.pages_of(MIB2) for cell in found.cells] == [Pages(MIB2, 64, 64), Pages(MIB2, 32, 32)]


def test_eight_cells_in_two_sockets_with_their_distances() -> None:
    found = topology("eight-cells")
    assert [cell.cpus for cell in found.cells] == [(cpu, cpu + 1) for cpu in range(0, 16, 2)]
    assert [cpu.socket for cpu in found.cpus] == [0] * 8 + [1] * 8
    assert len(found.cores()) == 8
    assert found.cells[3].distances == tuple((cell, (12, 32)[cell > 3] if cell != 3 else 10) for cell in range(8))
    assert [cell.id for cell in found.cells if cell.pages_of(MIB2).free] == [2, 5]


def test_offline_and_isolated_pcpus() -> None:
    found = topology("offline-and-isolated")
    assert found.online == frozenset(range(16)) - {5, 12}
    assert found.isolated == {2, 3, 10, 11}
    assert {frozenset({4}), frozenset({13})} <= set(found.cores()), "the other thread of their cores is off"


def test_cells_of_different_size() -> None:
    found = topology("asymmetric")
    assert [len(cell.cpus) for cell in found.cells] == [2, 10, 0]
    sizes = [cell.memory for cell in found.cells]
    assert sizes == sorted(sizes, reverse=True), (
        "the cell with the fewest pCPUs has most of the memory, one has nothing else"
    )


@pytest.mark.parametrize("name", NAMES)
def test_guests_are_placed_there_and_no_pcpu_is_given_away_twice(name: str) -> None:
    host = host_of(name)
    site = parse_site(
        "{apiVersion: vmhost/v1, name: s, host: {overcommit_memory: 20},"
        " defaults: {image: debian-12, memory: 64M, disks: [{size: 4G}]}, guests: {"
        "a: {cpus: {count: 2, policy: isolated}}, b: {cpus: {count: 2, policy: dedicated, threads: prefer}},"
        " c: {cpus: 2}, d: {cpus: {count: 1, policy: dedicated}}}}"
    )
    host.apply(host.plan(site))
    assert host.plan(site).empty
    assert host.drift(site) == ()
    observed, found = host.observe(), host.capacity(fits=["1x64M:dedicated"])
    own = {row.name: {row_id.id for row_id in found.cpus if row.name in row_id.guests} for row in found.guests}
    exclusive = {guest: own[guest] for guest in "abd"}
    assert all(not one & other for one, other in combinations(exclusive.values(), 2))
    assert all(cpus and cpus <= observed.topology.online for cpus in exclusive.values())
    for core in observed.topology.cores():
        assert not (core & exclusive["a"]) or not (core & (exclusive["b"] | exclusive["d"]))
    assert found.fits[0].count > 0 or "of memory" in found.fits[0].then
