"""What QEMU takes of the host beside the guest's own memory: a model, and what it rests on (docs/decisions/0052)."""

from __future__ import annotations

from typing import Final

from vmhost.model.observed import Observed
from vmhost.model.spec import GuestSpec
from vmhost.model.units import MIB, format_size
from vmhost.plan.request import Refusal, Refused
from vmhost.plan.running import NOTHING, Running

BASE: Final = 96 * MIB
"""QEMU itself, its heap and libraries, firmware, and the machine's own devices."""
PER_VCPU: Final = 8 * MIB
"""Stack and state of a vCPU's thread."""
PER_DISK: Final = 8 * MIB
"""Queues and caches of qcow2 tables."""
PER_IOTHREAD: Final = 8 * MIB
"""Stack and event loop of an I/O thread, and the part of the heap that it has for itself."""
PER_NIC: Final = 4 * MIB
"""Queues of a NIC; vhost's are the kernel's."""
TRANSLATED: Final = 160 * MIB
"""Code that QEMU translates where there is no KVM, as far as a Linux guest fills the buffer."""
PAGE_TABLES: Final = 512
"""One byte of page tables for so many bytes of memory: 8 bytes for each 4 KiB."""


def overhead(spec: GuestSpec, *, kvm: bool, now: Running = NOTHING) -> int:
    """Return the bytes that a guest's QEMU takes beside its memory, whole MiB."""
    memory = max(spec.memory.max or spec.memory.size, now.memory)
    vcpus = max(spec.cpus.max or spec.cpus.count, now.vcpus)
    tables = 0 if spec.memory.hugepages else memory // PAGE_TABLES
    devices = (len(spec.disks) + 1) * PER_DISK + len(spec.nics) * PER_NIC
    threads = vcpus * PER_VCPU + (spec.cpus.iothreads or 0) * PER_IOTHREAD
    return whole(BASE + threads + devices + tables + (0 if kvm else TRANSLATED))


def overhead_of(memory: int, vcpus: int, devices: int, *, kvm: bool, pages: bool = False) -> int:
    """Return the same for a guest of which only its domain is known."""
    tables = 0 if pages else memory // PAGE_TABLES
    return whole(BASE + vcpus * PER_VCPU + devices * PER_DISK + tables + (0 if kvm else TRANSLATED))


def overhead_refusals(spec: GuestSpec, observed: Observed) -> list[Refusal]:
    """Return why a limit of memory would kill the guest, if so."""
    limit, most = spec.memory.limit, spec.memory.max or spec.memory.size
    extra = overhead(spec, kvm=observed.host.kvm)
    if limit is None or limit >= most + extra:
        return []
    text = (
        f"memory.limit {format_size(limit)} is below its {format_size(most)} and the {format_size(extra)} that QEMU"
        " takes beside it: the kernel would kill it"
    )
    return [Refusal(spec.name, text, f"write limit: {format_size(most + extra)}, or leave it out", Refused)]


def whole(size: int) -> int:
    """Return a size rounded up to whole MiB."""
    return -(-size // MIB) * MIB
