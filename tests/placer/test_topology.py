"""Processors and memory of hosts, from capabilities that are captured and from such that are built."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.placer.hosts import GIB, topology
from vmhost.drivers.kernel import LinuxKernel
from vmhost.model.topology import Pages
from vmhost.render.parse.topology import parse_topology
from vmhost.testing.topologies import Shape, capabilities, kernel

CAPTURED = Path(__file__).parents[1] / "render" / "captured"
MIB2 = 2 << 20


def test_a_captured_host() -> None:
    found = parse_topology((CAPTURED / "capabilities.xml").read_text(), {})
    assert [cpu.id for cpu in found.cpus] == [0, 1]
    assert found.cores() == (frozenset({0}), frozenset({1}))
    assert {cpu.cache for cpu in found.cpus} == {0}
    assert found.cells[0].memory > GIB
    assert found.cells[0].pages == (Pages(MIB2, 0, -1), Pages(1 << 30, 0, -1))


def test_the_test_drivers_host_is_read_too() -> None:
    found = parse_topology((CAPTURED / "capabilities-test-driver.xml").read_text(), {})
    assert len(found.online) == 16
    assert len(found.cells) == 2


def test_sockets_threads_caches_and_cells() -> None:
    shape = Shape(cells=4, sockets=2, cores=4, threads=2, caches=2, pages=((MIB2, 8),))
    found = topology(shape)
    assert len(found.online) == 32
    assert found.cores()[0] == {0, 16}
    assert [cpu.socket for cpu in found.cpus if cpu.id in (0, 4, 8, 12)] == [0, 0, 1, 1]
    assert len({cpu.cache for cpu in found.cpus}) == 8
    assert found.in_cells([1]) == {4, 5, 6, 7, 20, 21, 22, 23}
    assert found.cells[1].distances == ((0, 21), (1, 10), (2, 21), (3, 21))
    assert found.memory == 4 * 8 * GIB


def test_offline_and_isolated_pcpus() -> None:
    shape = Shape(cores=4, threads=2, offline=frozenset({5}), isolated=frozenset({2, 6}))
    found = topology(shape)
    assert found.online == {0, 1, 2, 3, 4, 6, 7}
    assert found.isolated == {2, 6}
    assert frozenset({1}) in found.cores(), "the other thread of its core is alone now"


def test_the_kernel_knows_better_than_what_libvirt_was_told_once() -> None:
    shape = Shape(cores=4, threads=2)
    told = {**kernel(shape), "cpu/online": "0-6"}
    found = parse_topology(capabilities(shape), told)
    assert found.online == {0, 1, 2, 3, 4, 5, 6}
    assert frozenset({3}) in found.cores()
    back = parse_topology(capabilities(replace(shape, offline=frozenset({7}))), kernel(shape))
    assert 7 in back.online


def test_free_hugepages_are_the_kernels() -> None:
    shape = Shape(cells=2, pages=((MIB2, 64),))
    found = parse_topology(capabilities(shape), kernel(shape, free={(1, MIB2): 3}))
    assert [cell.pages_of(MIB2) for cell in found.cells] == [Pages(MIB2, 64, 64), Pages(MIB2, 64, 3)]
    assert found.cells[0].pages_of(1 << 30) == Pages(1 << 30, 0, 0)


def test_clusters_are_told_by_the_kernel() -> None:
    shape = Shape(cores=4)
    clusters = {f"cpu/cpu{n}/topology/cluster_cpus_list": "0-1" if n < 2 else "2-3" for n in range(4)}
    found = parse_topology(capabilities(shape), {**kernel(shape), **clusters})
    assert [cpu.cluster for cpu in found.cpus] == [0, 0, 2, 2]


def test_this_kernel_says_which_pcpus_are_online() -> None:
    import os

    told = LinuxKernel().processors()
    assert "cpu/online" in told
    found = parse_topology((CAPTURED / "capabilities.xml").read_text(), told)
    assert os.sched_getaffinity(0) & found.online


def test_uneven_cells() -> None:
    found = topology(Shape(cells=2, uneven=((1, GIB),)))
    assert [cell.memory for cell in found.cells] == [8 * GIB, GIB]
