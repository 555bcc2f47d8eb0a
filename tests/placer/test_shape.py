"""What guests see of the pCPUs and cells that they have, on machines that were captured."""

from __future__ import annotations

from typing import Any

import pytest

from tests.placer import hosts
from tests.placer.hosts import spec
from tests.placer.test_captured import host_of, topology
from vmhost.model.errors import Refused, SpecError
from vmhost.model.permit import Permit
from vmhost.model.plan import Change
from vmhost.model.shape import Shape
from vmhost.model.tuning import Tuning
from vmhost.model.units import parse_cpuset
from vmhost.ops.host import Host
from vmhost.ops.sites import parse_site
from vmhost.plan.books import Seat, books_of
from vmhost.plan.exhaust import ways
from vmhost.plan.placement import wish_of
from vmhost.plan.shape import shape_of
from vmhost.render.parse.tuning import parse_tuning
from vmhost.render.shape import flat, parse_shape
from vmhost.render.tuning import with_tuning
from vmhost.testing import topologies

MIB = 1 << 20


def shown(machine: str, *cpus: int, cells: tuple[int, ...] = (), **more: Any) -> Shape:
    guest = spec(policy="dedicated", topology="host", count=len(cpus), **more)
    found = shape_of(guest, Seat(tuple(enumerate(cpus)), cells=cells), topology(machine))
    assert found is not None
    return found


def site(guest: str) -> str:
    return (
        "{apiVersion: vmhost/v1, name: s, host: {overcommit_memory: 20},"
        " defaults: {image: debian-12, disks: [{size: 4G}]},"
        f" guests: {{wide: {guest}}}}}"
    )


def definition(host: Host) -> str:
    return next(raw.xml for raw in host.ports.hypervisor.domains() if raw.name == "wide")


@pytest.mark.parametrize(
    ("machine", "cpus", "wanted"),
    [
        ("one-socket", (0, 1, 2, 3), Shape(1, 1, 2, 2)),
        ("one-socket", (0, 2, 4), Shape(1, 1, 3, 1)),
        ("one-socket", (0, 1, 2), Shape(1, 1, 3, 1)),  # two threads of a core and one of another: flat
        ("one-socket", (0, 2, 1, 3), Shape(1, 1, 4, 1)),  # threads of a core that do not follow each other
        ("two-sockets", (0, 1, 12, 13), Shape(2, 1, 1, 2)),
        ("two-sockets", (0, 1, 2, 12), Shape(1, 1, 4, 1)),  # three in a socket and one in the other
        ("eight-cells", tuple(range(16)), Shape(2, 4, 1, 2)),
        ("eight-cells", (0, 2, 4, 6), Shape(1, 4, 1, 1)),
    ],
)
def test_what_comes_out_even_is_shown(machine: str, cpus: tuple[int, ...], wanted: Shape) -> None:
    assert shown(machine, *cpus) == wanted


def test_cells_have_their_vcpus_equal_memory_and_the_hosts_distances() -> None:
    found = shown("eight-cells", 0, 1, 8, 9, cells=(0, 4), memory="65M")
    assert [(cell.vcpus, cell.memory, cell.host, cell.distances) for cell in found.cells] == [
        ("0-1", 33 * MIB, 0, (10, 32)),
        ("2-3", 32 * MIB, 4, (32, 10)),
    ]


def test_a_wide_guest_is_made_kept_and_made_flat_again() -> None:
    host = host_of("eight-cells")
    wide = "{cpus: {count: 6, policy: dedicated, threads: require, topology: host}, memory: {size: 192M}}"
    first = parse_site(site(wide))
    host.apply(host.plan(first))
    assert host.plan(first).empty
    assert host.drift(first) == ()
    xml, observed = definition(host), topology("eight-cells")
    made, tuning = parse_shape(xml), parse_tuning(xml)
    assert {cell.host for cell in made.cells} == parse_cpuset(tuning.cells)
    peopled = [cell for cell in made.cells if cell.vcpus]
    assert [cell.vcpus for cell in peopled] == ["0-1", "2-3", "4-5"]
    by_id = {cpu.id: cpu for cpu in observed.cpus}
    for cell in peopled:
        first_vcpu = int(cell.vcpus.partition("-")[0])
        assert by_id[int(dict(tuning.pins)[first_vcpu])].cell == cell.host
    assert sum(cell.memory for cell in made.cells) == 192 * MIB

    # fewer vCPUs are of the next boot, and the picture with them, whoever boots it then
    host.apply(host.plan_resize("wide", cpus=2))
    assert parse_shape(definition(host)).threads == 2
    assert sum(len(parse_cpuset(cell.vcpus)) for cell in parse_shape(definition(host)).cells if cell.vcpus) == 2
    proposal = host.plan_resize("wide", cpus=4, permit=Permit(stop=True))
    assert Change.NEEDS_STOP in {step.change for step in proposal.plan.steps}
    host.apply(proposal)
    assert parse_shape(definition(host)).sockets * parse_shape(definition(host)).dies * 2 == 4

    host.apply(host.plan_resize("wide", memory=96 * MIB, permit=Permit(stop=True)))
    assert sum(cell.memory for cell in parse_shape(definition(host)).cells) == 96 * MIB

    flat = parse_site(site("{cpus: {count: 4, policy: dedicated, threads: require}, memory: 192M}"))
    assert ("cpus.topology", "host") in {(one.field, one.have) for one in host.drift(flat)}
    host.apply(host.plan(flat, Permit(stop=True, overwrite=frozenset({"wide"}))))
    assert parse_shape(definition(host)) == Shape(cores=4)
    assert host.plan(flat).empty


@pytest.mark.parametrize(
    ("guest", "said"),
    [
        ("{cpus: {count: 2, topology: host}, memory: 64M}", "topology needs policy"),
        ("{cpus: {count: 2, max: 4, policy: dedicated, topology: host}, memory: 64M}", "from the start"),
        ("{cpus: {count: 2, policy: mixed, dedicated: 0, topology: host}, memory: 64M}", "all vCPUs need one"),
        (
            "{cpus: {count: 2, policy: dedicated, topology: host}, memory: {size: 64M, max: 1G}}",
            "all memory from the start",
        ),
    ],
)
def test_what_cannot_be_shown_is_refused(guest: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        parse_site(site(guest))


def test_cells_that_have_not_the_memory_are_refused() -> None:
    host = host_of("eight-cells")
    with pytest.raises(Refused, match="memory"):
        host.plan(parse_site(site("{cpus: {count: 2, policy: dedicated, topology: host}, memory: 8G}")))


def test_a_guest_over_two_cells_stays_where_its_memory_is_when_there_is_room_elsewhere() -> None:
    host = host_of("two-sockets")
    head = "{apiVersion: vmhost/v1, name: %s, defaults: {image: debian-12, disks: [{size: 4G}]}, guests: {%s}}"
    fillers = "f0: {memory: {size: 64M, cells: 0}}, f1: {memory: {size: 128M, cells: 1}}"
    cpus = "{count: %d, policy: dedicated, topology: host}"
    host.apply(host.plan(parse_site(head % ("fill", fillers))))
    wide = parse_site(head % ("s", f"wide: {{cpus: {cpus % 2}, memory: 420M}}"))
    host.apply(host.plan(wide))
    before = parse_tuning(definition(host))
    assert (before.pins, before.cells) == (((0, "0"), (1, "1")), "0-1"), "no single cell has the memory"

    gone = Permit(stop=True, power_off=True, disks=True)
    host.apply(host.plan_delete(["f1"], gone))
    assert host.plan(wide).empty

    host.apply(host.plan_resize("wide", memory=200 * MIB))  # of the next boot: until then it is where it was
    after = parse_tuning(definition(host))
    assert (after.pins, after.cells) == (before.pins, before.cells)


def test_what_is_shown_has_all_its_memory_from_the_start_whoever_asks() -> None:
    host = host_of("one-socket")
    host.apply(host.plan(parse_site(site("{cpus: {count: 2, policy: dedicated}, memory: {size: 64M, max: 1G}}"))))
    with pytest.raises(Refused, match="all memory from the start"):
        host.plan_pin("wide", topology="host")


def test_pcpus_lie_in_order_where_all_ways_are_tried_too() -> None:
    host = hosts.ledger(topologies.Shape(cores=2, threads=2), reserve_cpus=frozenset({0}))
    wish = wish_of(spec(policy="dedicated", topology="host", count=3), kvm=True)
    assert [seat.pins for seat in ways(books_of(host, [wish]), wish)] == [((0, 2), (1, 1), (2, 3))]  # cores 0 2 and 1 3


def test_clusters_that_somebody_gave_it_are_one() -> None:
    """Newer libvirt counts them in: sockets x dies x clusters x cores x threads must be the vCPUs."""
    parts = "<topology sockets='1' dies='1' clusters='2' cores='2' threads='1'/>"
    xml = f"<domain><vcpu>4</vcpu><cpu>{parts}</cpu></domain>"
    shown = with_tuning(xml, Tuning(shape=Shape(sockets=2, threads=2)))
    for made in (shown, flat(xml)):
        assert 'clusters="1"' in made
        assert parse_shape(made).sockets * parse_shape(made).cores * parse_shape(made).threads == 4
