"""What a guest gets of the host's processors and memory, and what holds it to that."""

from __future__ import annotations

from math import ceil
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from vmhost.model import units
from vmhost.model.spec.base import Count, Flag, GuestMemory, HostMemory, Model

MOST_VCPUS: Final = 255
"""More need an interrupt remapping IOMMU (``eim``; https://libvirt.org/formatdomain.html#iommu-devices), which the
templates do not have."""

MOST_IOTHREADS: Final = 16
"""As many as a guest can have disks to spread over them that are worth it; libvirt itself knows no bound."""

LEAST_CPUS: Final = 0.01
"""The smallest part of a pCPU that libvirt can limit a guest to: a quota of 1,000 microseconds in 100,000."""

MOST_CPU: Final = 4095
MOST_CELL: Final = 1023

Policy = Literal["shared", "dedicated", "isolated", "mixed"]
Threads = Literal["prefer", "isolate", "require"]


def _cpuset(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _normal_cpuset(text: str) -> str:
    return units.format_cpuset(units.parse_cpuset(text)) or _nothing(text)


def _nothing(text: str) -> str:
    raise ValueError(f"{units.shown(text)} names nothing: write for example 0-3,8")


CpuSet = Annotated[str, AfterValidator(_normal_cpuset), BeforeValidator(_cpuset, json_schema_input_type=int | str)]
"""A set of numbers as libvirt writes it: ``0-3,8``."""

VcpuCount = Annotated[Count, Field(ge=1, le=MOST_VCPUS)]
VcpuNumber = Annotated[int, Field(ge=0, lt=MOST_VCPUS)]
CpuNumber = Annotated[Count, Field(ge=0, le=MOST_CPU)]
Share = Annotated[float, Field(ge=LEAST_CPUS, le=MOST_VCPUS)]


class CpuSpec(Model):
    """vCPUs at boot and at most; ``cpus: 2`` is ``cpus: {count: 2}``, ``cpus: 0.5`` half of one pCPU."""

    count: VcpuCount = Field(default=1, description="vCPUs at boot.")
    max: VcpuCount | None = Field(
        default=None, description="vCPUs at most, without a reboot; as many as count if absent."
    )
    policy: Policy | None = Field(default=None, description="How it gets pCPUs; shared if absent.")
    dedicated: CpuSet | None = Field(default=None, description="Which vCPUs of a mixed guest have pCPUs of their own.")
    threads: Threads | None = Field(
        default=None, description="What becomes of the other threads of its cores; prefer if absent."
    )
    pins: dict[VcpuNumber, CpuNumber] | None = Field(
        default=None, description="pCPUs of one's own choice, by vCPU; checked, not trusted."
    )
    emulator: Literal["shared", "own"] | None = Field(
        default=None, description="Where the rest of QEMU runs: with the host, or on a pCPU of its own."
    )
    topology: Literal["host"] | None = Field(
        default=None, description="What it sees of its processors: the host's sockets, dies, cores, threads and cells."
    )
    iothreads: Annotated[Count, Field(ge=1, le=MOST_IOTHREADS)] | None = Field(
        default=None, description="Threads of QEMU that its disks are spread over; absent: QEMU's main one does it all."
    )
    request: Share | None = Field(default=None, description="pCPUs that it is sure to get.")
    limit: Share | None = Field(default=None, description="pCPUs that the whole guest may use at most.")
    vcpu_limit: Annotated[float, Field(ge=LEAST_CPUS, le=1)] | None = Field(
        default=None, description="What each vCPU may use of a pCPU at most."
    )
    emulator_limit: Share | None = Field(default=None, description="pCPUs that the rest of QEMU may use at most.")
    shares: Annotated[Count, Field(ge=2, le=10000)] | None = Field(
        default=None, description="Its weight among guests that want more than there is."
    )

    @model_validator(mode="after")
    def _possible(self) -> CpuSpec:
        for fault in (self._counts(), self._places(), self._limits()):
            if fault:
                raise ValueError(fault)
        return self

    def _counts(self) -> str:
        if self.max is not None and self.max < self.count:
            return f"max ({self.max}) is below count ({self.count})"
        return ""

    def _places(self) -> str:
        policy = self.policy or "shared"
        if (policy == "mixed") != (self.dedicated is not None):
            return "policy mixed and dedicated belong together: write for example {policy: mixed, dedicated: 0-1}"
        if self.dedicated is not None and not _part_of(self.dedicated, self.count):
            return f"dedicated ({self.dedicated}) is not a part of its {self.count} vCPUs"
        if policy == "shared":
            given = [key for key in ("threads", "pins", "emulator", "topology") if getattr(self, key) is not None]
            return f"{given[0]} needs policy dedicated, isolated or mixed" if given else ""
        if self.topology and (policy == "mixed" or (self.max or self.count) != self.count):
            return "topology host shows the pCPUs that it has: all vCPUs need one of their own from the start"
        if policy == "isolated" and self.threads in ("prefer", "require"):
            return f"policy isolated keeps the other threads empty: threads cannot be {self.threads}"
        return self._pinned()

    def _pinned(self) -> str:
        pins = self.pins or {}
        strange = sorted(set(pins) - exclusive_vcpus(self))
        if strange:
            return f"pins: vCPU {strange[0]} is none of those that have pCPUs of their own"
        twice = [cpu for cpu in pins.values() if list(pins.values()).count(cpu) > 1]
        return f"pins: pCPU {twice[0]} is given to two vCPUs" if twice else ""

    def _limits(self) -> str:
        most = self.max or self.count
        if self.policy in ("dedicated", "isolated") and self.request is not None:
            return f"a guest of policy {self.policy} has whole pCPUs: leave request out"
        if self.request is not None and self.limit is not None and self.limit < self.request:
            return f"limit ({self.limit:g}) is below request ({self.request:g})"
        for key in ("request", "limit"):
            value = getattr(self, key)
            if value is not None and value > most:
                return f"{key} ({value:g}) is more than its {most} vCPUs can use"
        if self.limit is not None and max(self.vcpu_limit or 0, self.emulator_limit or 0) > self.limit:
            return f"limit ({self.limit:g}) is of the whole guest: no part of it can have more"
        return ""


def _part_of(text: str, count: int) -> bool:
    chosen = units.parse_cpuset(text)
    return max(chosen) < count and len(chosen) < count


def exclusive_vcpus(cpus: CpuSpec) -> frozenset[int]:
    """Return the vCPUs that have pCPUs of their own."""
    if cpus.policy in ("dedicated", "isolated"):
        return frozenset(range(cpus.count))
    return units.parse_cpuset(cpus.dedicated) if cpus.policy == "mixed" and cpus.dedicated else frozenset()


PageSize = Literal["2M", "1G"]


class MemoryInput(Model):
    """Memory as written: ``memory: 2G`` is ``memory: {size: 2G}``; what is absent is inherited."""

    size: GuestMemory | None = Field(default=None, description="Memory at boot.")
    max: GuestMemory | None = Field(
        default=None, description="Memory at most, without a reboot; as much as size if absent."
    )
    limit: HostMemory | None = Field(
        default=None, description="Memory that its QEMU may take of the host, the overhead included."
    )
    swap_limit: HostMemory | None = Field(
        default=None, description="Memory and swap together that its QEMU may take of the host."
    )
    hugepages: PageSize | None = Field(default=None, description="Size of the hugepages that its memory is made of.")
    cells: CpuSet | None = Field(default=None, description="NUMA cells of the host that its memory comes from.")
    numa: Literal["strict", "preferred"] | None = Field(
        default=None, description="Whether memory comes from its cells only, or from them first."
    )
    locked: Flag | None = Field(default=None, description="Never swap it out; needs limit.")


class MemorySpec(Model):
    """Memory at boot and at most, in bytes, whole MiB."""

    size: GuestMemory
    max: GuestMemory | None = None
    limit: HostMemory | None = None
    swap_limit: HostMemory | None = None
    hugepages: PageSize | None = None
    cells: CpuSet | None = None
    numa: Literal["strict", "preferred"] | None = None
    locked: Flag | None = None

    @property
    def page(self) -> int:
        """The size of its hugepages in bytes, 0 for none."""
        return units.parse_size(self.hugepages) if self.hugepages else 0

    @model_validator(mode="after")
    def _possible(self) -> MemorySpec:
        if self.max is not None and self.max < self.size:
            raise ValueError(
                f"max ({units.format_size(self.max)}) is below size ({units.format_size(self.size)})",
            )
        for fault in (self._limits(), self._places()):
            if fault:
                raise ValueError(fault)
        return self

    def _limits(self) -> str:
        limit, swap = self.limit, self.swap_limit
        if swap is not None and (limit is None or swap < limit):
            return "swap_limit counts memory and swap together: write a limit, and at least as much here"
        if self.locked and limit is None:
            return "locked memory needs a limit: without one it could take all of the host's"
        if limit is not None and self.hugepages:
            return "limit does not count hugepages: leave one of them out"
        return ""

    def _places(self) -> str:
        if self.hugepages and (self.size % self.page or (self.max or 0) % self.page):
            return f"{units.format_size(self.size)} is not made of whole pages of {self.hugepages}"
        if self.cells and max(units.parse_cpuset(self.cells)) > MOST_CELL:
            return f"{self.cells} is no set of NUMA cells"
        if self.numa == "preferred" and (self.cells is None or len(units.parse_cpuset(self.cells)) != 1):
            return "numa: preferred needs one cell: write cells: 0"
        return ""


def _scalar(key: str) -> Any:
    def widen(value: Any) -> Any:
        return {key: value} if isinstance(value, (int, float, str)) and not isinstance(value, bool) else value

    return widen


def _cpus(value: Any) -> Any:
    """``cpus: 0.5`` is one vCPU that may use half of a pCPU, ``1.5`` two that may use one and a half together."""
    if isinstance(value, float) and 0 < value <= MOST_VCPUS and value != int(value):
        return {"count": ceil(value), "request": value, "limit": value}
    return _scalar("count")(value)


Cpus = Annotated[CpuSpec, BeforeValidator(_cpus, json_schema_input_type=int | float | CpuSpec)]
MemoryWritten = Annotated[MemoryInput, BeforeValidator(_scalar("size"), json_schema_input_type=int | str | MemoryInput)]
Memory = Annotated[MemorySpec, BeforeValidator(_scalar("size"))]
