"""The picture of its pCPUs that a guest is shown: sockets, dies, cores, threads and cells as its vCPUs are pinned."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import groupby
from typing import Final

from vmhost.model.shape import GuestCell, Shape
from vmhost.model.spec import GuestSpec
from vmhost.model.topology import Cpu, Topology
from vmhost.model.units import MIB, format_cpuset
from vmhost.plan.books import Seat

HOST: Final = "host"


def mirrors(spec: GuestSpec | None) -> bool:
    """Whether a guest is shown the host's own topology."""
    return spec is not None and spec.cpus.topology == HOST


def shape_of(spec: GuestSpec, seat: Seat, topology: Topology) -> Shape | None:
    """Return what a guest sees of its place; None where it is not to, or the hypervisor tells nothing of its pCPUs.

    vCPUs are numbered through threads, cores, dies and sockets. What does not come out even is flat: two threads of one
    core and one of another are three cores.
    """
    by_id = {cpu.id: cpu for cpu in topology.cpus}
    # vCPUs that run on until the next boot only are no part of what it boots with
    cpus = [by_id[cpu] for vcpu, cpu in seat.pins if vcpu < spec.cpus.count and cpu in by_id]
    if not mirrors(spec) or not cpus or len(cpus) != spec.cpus.count:
        return None
    threads = _even([cpu.siblings for cpu in cpus])
    per_socket = _even([cpu.socket for cpu in cpus], otherwise=len(cpus))
    per_die = _even([(cpu.socket, cpu.die) for cpu in cpus], otherwise=per_socket)
    if per_socket % per_die or per_die % threads:
        per_die, threads = per_socket, threads if per_socket % threads == 0 else 1
    return Shape(
        sockets=len(cpus) // per_socket,
        dies=per_socket // per_die,
        cores=per_die // threads,
        threads=threads,
        cells=_cells(spec, seat, cpus, topology) if len(seat.cells) > 1 else (),
    )


def _even(places: Sequence[Hashable], *, otherwise: int = 1) -> int:
    """Return how many vCPUs each place has, if they follow each other and each place has as many."""
    runs = [(place, len(list(run))) for place, run in groupby(places)]
    sizes = {size for _, size in runs}
    return sizes.pop() if len(sizes) == 1 and len({place for place, _ in runs}) == len(runs) else otherwise


def _cells(spec: GuestSpec, seat: Seat, cpus: Sequence[Cpu], topology: Topology) -> tuple[GuestCell, ...]:
    """Return the guest's cells, one for each of the host's that its memory comes from, with equal parts of it.

    A vCPU that a person has pinned elsewhere belongs to the first.
    """
    step = spec.memory.page or MIB
    parts, rest = divmod(spec.memory.size // step, len(seat.cells))
    lies = [cpu.cell if cpu.cell in seat.cells else seat.cells[0] for cpu in cpus]
    found = []
    for index, host in enumerate(seat.cells):
        cell = topology.cell(host)
        far = dict(cell.distances) if cell else {}
        found.append(
            GuestCell(
                vcpus=format_cpuset(vcpu for vcpu, at in enumerate(lies) if at == host),
                memory=(parts + (index < rest)) * step,
                host=host,
                distances=tuple(far[other] for other in seat.cells) if set(seat.cells) <= set(far) else (),
            )
        )
    return tuple(found)
