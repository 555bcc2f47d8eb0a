"""What of a host is promised to whom: one value, made from what is observed, and kept nowhere."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final

from vmhost.model.observed import Observed, ObservedDomain
from vmhost.model.spec import GuestSpec, HostSpec
from vmhost.model.spec.resources import exclusive_vcpus
from vmhost.model.topology import Topology
from vmhost.model.tuning import Tuning
from vmhost.model.units import parse_cpuset
from vmhost.plan.applied import applied_spec
from vmhost.plan.overhead import overhead, overhead_of
from vmhost.plan.running import NOTHING, Running, live_facts, running_of
from vmhost.render.parse.tuning import parse_tuning

FOREIGN: Final = "foreign"
DRILL: Final = "drill"
APART: Final = "apart"
"""The label of a guest that names those from which it should lie apart: replicas of one service."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What one guest has of the host.

    ``exclusive`` are pCPUs that nobody else may be pinned to, the empty siblings of its cores included; ``floating``
    those that its other threads are limited to, empty for anywhere. ``shared`` counts its vCPUs that float, ``request``
    what of their time is promised. ``memory`` counts guest and QEMU together; ``page`` its hugepages' size, with
    ``cells`` where its memory must lie. ``promised`` False: it is defined, but neither runs nor starts with the host.
    ``starting``: others are about to start it, which counts as running, though the kernel may not know of it yet.
    """

    name: str
    policy: str
    exclusive: frozenset[int] = frozenset()
    floating: frozenset[int] = frozenset()
    shared: int = 0
    request: float = 0.0
    memory: int = 0
    guest_memory: int = 0
    page: int = 0
    cells: frozenset[int] = frozenset()
    active: bool = False
    promised: bool = True
    autostart: bool = False
    seat: tuple[tuple[int, int], ...] = ()
    group: str = ""
    starting: bool = False

    @property
    def ordinary(self) -> int:
        """The bytes that it takes of the host's ordinary memory."""
        return self.memory - (self.guest_memory if self.page else 0)

    @property
    def ours(self) -> bool:
        """Whether vmhost made it."""
        return self.policy != FOREIGN


@dataclass(frozen=True)
class Ledger:
    """The host's topology, its reserve, and every guest's claim, by name."""

    topology: Topology
    claims: dict[str, Claim] = field(default_factory=dict)
    reserve_cpus: frozenset[int] = frozenset()
    reserve_memory: int = 0
    overcommit_cpus: float = 0.0
    overcommit_memory: float = 1.0
    spread: bool = False
    memory: int = 0

    @cached_property
    def holders(self) -> dict[int, str]:
        """Who has which pCPU for itself; of two that do, the first by name."""
        return {cpu: name for name in sorted(self.claims, reverse=True) for cpu in self.claims[name].exclusive}

    @cached_property
    def foreign(self) -> frozenset[int]:
        """The pCPUs that guests of others are pinned to, alone or among several."""
        found = (claim.exclusive | claim.floating for claim in self.claims.values() if not claim.ours)
        return frozenset(cpu for cpus in found for cpu in cpus)

    @property
    def usable(self) -> frozenset[int]:
        """The pCPUs that guests may have."""
        return self.topology.online - self.reserve_cpus

    @property
    def pool(self) -> frozenset[int]:
        """The pCPUs over which shared guests float."""
        return self.usable - self.topology.isolated - frozenset(self.holders)

    @property
    def promised(self) -> int:
        """The bytes that guests may take, QEMU's own included; hugepages are counted apart."""
        return sum(claim.ordinary for claim in self.claims.values() if claim.promised)

    @property
    def budget(self) -> int:
        """The bytes that guests may be promised altogether, in ordinary pages."""
        return max(0, int((self.memory - self.pooled - self.reserve_memory) * self.overcommit_memory))

    @property
    def pooled(self) -> int:
        """The bytes that the host has set apart as hugepages."""
        return sum(pages.size * pages.total for cell in self.topology.cells for pages in cell.pages)

    @cached_property
    def loose(self) -> tuple[str, ...]:
        """The foreign guests that run wherever they like, also on pCPUs that others have for themselves."""
        return tuple(
            claim.name
            for claim in self.claims.values()
            if not claim.ours and claim.promised and not claim.floating and not claim.exclusive
        )

    def without(self, names: Collection[str]) -> Ledger:
        """Return the ledger as if these guests were not there."""
        return replace(self, claims={name: claim for name, claim in self.claims.items() if name not in names})

    def having(self, claim: Claim) -> Ledger:
        """Return the ledger with this claim in the place of the guest's old one."""
        return replace(self, claims={**self.claims, claim.name: claim})

    def pages_free(self, cell: int, size: int) -> int:
        """Return how many hugepages of a cell nobody has and nobody was promised.

        The kernel's count of free ones, less what guests that do not run yet are promised; where it does not say, the
        total less everything that is promised.
        """
        found = self.topology.cell(cell)
        pages = found.pages_of(size) if found else None
        if pages is None:
            return 0
        waiting = taken = 0
        for claim in self.claims.values():
            if claim.page == size and claim.promised:
                mine = pages_each(claim.guest_memory, size, len(claim.cells)) if cell in claim.cells else 0
                taken += mine
                waiting += 0 if claim.active and not claim.starting else mine
        return pages.total - taken if pages.free < 0 else min(pages.free - waiting, pages.total - taken)

    def cell_free(self, cell: int) -> int:
        """Return the bytes of a cell that no guest bound to it was promised, hugepages left out."""
        found = self.topology.cell(cell)
        if found is None:
            return 0
        bound = sum(
            claim.memory // len(claim.cells)
            for claim in self.claims.values()
            if claim.promised and not claim.page and cell in claim.cells
        )
        return found.memory - sum(pages.size * pages.total for pages in found.pages) - bound


def pages_each(memory: int, size: int, cells: int) -> int:
    """Return how many pages of that size each of so many cells gives for a guest's memory."""
    return -(-memory // (size * cells))


def ledger_of(observed: Observed, host: HostSpec | None = None, *, skip: Iterable[str] = ()) -> Ledger:
    """Return the ledger of a host.

    :param host: the reserve and the ratios that a site declares; nothing is kept back without one.
    :param skip: guests that are left out.
    """
    wish = host or HostSpec()
    left = frozenset(skip)
    claims = {domain.name: claim_of_domain(domain, observed) for domain in observed.domains if domain.name not in left}
    return Ledger(
        topology=observed.topology,
        claims=claims,
        reserve_cpus=parse_cpuset(wish.reserve_cpus) if wish.reserve_cpus else frozenset(),
        reserve_memory=wish.reserve_memory or 0,
        overcommit_cpus=wish.overcommit_cpus or 0.0,
        overcommit_memory=wish.overcommit_memory or 1.0,
        spread=wish.placement == "spread",
        memory=observed.host.memory,
    )


def claim_of_domain(domain: ObservedDomain, observed: Observed) -> Claim:
    """Return what a guest has, by its definition and by what runs: whatever either holds is held."""
    spec = applied_spec(domain)
    tunings = [parse_tuning(domain.raw.xml)]
    if domain.raw.live_xml:
        tunings.append(parse_tuning(domain.raw.live_xml))
    if spec is None:
        return _foreign(domain, tunings, observed)
    starting = domain.uuid in observed.starting and not domain.active
    now = running_of(domain)
    vcpus = max(domain.facts.vcpus, now.vcpus)
    claim = claim_of_spec(
        spec,
        tunings,
        observed.topology,
        kvm=observed.host.kvm,
        active=domain.active or starting,
        autostart=domain.raw.autostart,
        floating=frozenset() if exclusive_vcpus(spec.cpus) else _floating(vcpus, tunings, observed.topology),
        now=now,
    )
    return replace(claim, starting=True) if starting else claim


def claim_of_spec(
    spec: GuestSpec,
    tunings: Iterable[Tuning],
    topology: Topology,
    *,
    kvm: bool,
    active: bool,
    autostart: bool,
    floating: frozenset[int] = frozenset(),
    now: Running = NOTHING,
) -> Claim:
    """Return what one of our guests has, with its pins as they are or as they will be.

    :param now: what it runs with: until its next boot it has at least that.
    """
    mine = exclusive_vcpus(spec.cpus)
    own = mine | frozenset(range(spec.cpus.count, now.vcpus)) if mine else mine
    exclusive: set[int] = set()
    seat: dict[int, int] = {}
    cells: frozenset[int] = frozenset()
    for tuning in tunings:
        for vcpu, text in tuning.pins:
            cpus = parse_cpuset(text)
            if vcpu in own and len(cpus) == 1:
                (cpu,) = cpus
                seat.setdefault(vcpu, cpu)
                exclusive |= cpus
        if spec.cpus.emulator == "own" and tuning.emulator:
            exclusive |= parse_cpuset(tuning.emulator)
        cells |= parse_cpuset(tuning.cells) if tuning.cells and tuning.cell_mode == "strict" else frozenset()
    if whole_cores(spec):
        exclusive |= siblings_of(exclusive, topology)
    shared = max(spec.cpus.count, now.vcpus) - len(mine | frozenset(seat))
    memory = max(spec.memory.size, now.memory)
    return Claim(
        name=spec.name,
        policy=spec.cpus.policy or "shared",
        exclusive=frozenset(exclusive),
        floating=floating,
        shared=shared,
        request=(spec.cpus.request or 0.0) if shared else 0.0,
        memory=memory + overhead(spec, kvm=kvm, now=now),
        guest_memory=memory,
        page=spec.memory.page,
        cells=cells,
        active=active,
        promised=active or autostart or spec.state == "running",
        autostart=autostart,
        seat=tuple(sorted(seat.items())),
        group=spec.labels.get(APART, ""),
    )


def whole_cores(spec: GuestSpec) -> bool:
    """Whether the other threads of its cores stay empty."""
    return spec.cpus.policy == "isolated" or (
        spec.cpus.policy in ("dedicated", "mixed") and spec.cpus.threads == "isolate"
    )


def siblings_of(cpus: Iterable[int], topology: Topology) -> frozenset[int]:
    """Return all online threads of the cores that these pCPUs are of."""
    wanted = frozenset(cpus)
    return frozenset(cpu for core in topology.cores() if core & wanted for cpu in core)


def _foreign(domain: ObservedDomain, tunings: list[Tuning], observed: Observed) -> Claim:
    """A vCPU that is pinned to one pCPU has it for itself; one that is pinned to several floats among them."""
    online = observed.topology.online
    facts = live_facts(domain.raw.live_xml) if domain.raw.live_xml else domain.facts
    exclusive: set[int] = set()
    for tuning in tunings:
        for _, text in tuning.pins:
            cpus = parse_cpuset(text) & online
            if len(cpus) == 1 and len(online) > 1:
                exclusive |= cpus
    tuning = tunings[-1]
    memory = max(domain.facts.memory, facts.memory)
    return Claim(
        name=domain.name,
        policy=DRILL if domain.drill else FOREIGN,
        exclusive=frozenset(exclusive),
        floating=_floating(facts.vcpus, tunings, observed.topology) - exclusive,
        shared=facts.vcpus,
        memory=memory
        + overhead_of(
            memory, facts.vcpus, len(facts.disks) + len(facts.nics), kvm=facts.type == "kvm", pages=bool(tuning.page)
        ),
        guest_memory=memory,
        page=tuning.page,
        cells=parse_cpuset(tuning.cells) if tuning.cells else frozenset(),
        active=domain.active,
        promised=domain.active or domain.raw.autostart,
        autostart=domain.raw.autostart,
    )


def _floating(vcpus: int, tunings: Iterable[Tuning], topology: Topology) -> frozenset[int]:
    """Return the pCPUs that a guest's vCPUs are limited to, several for each; empty when it may run anywhere."""
    online, found = topology.online, frozenset[int]()
    for tuning in tunings:
        pins = dict(tuning.pins)
        for vcpu in range(vcpus):
            cpus = parse_cpuset(pins[vcpu]) & online if vcpu in pins else online
            found |= cpus if len(cpus) > 1 else frozenset()
    return found if found != online else frozenset()
