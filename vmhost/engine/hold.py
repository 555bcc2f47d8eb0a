"""How a running guest is held: set, and asked of the kernel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, assert_never

from vmhost.engine.context import Context
from vmhost.engine.memory import plug_memory
from vmhost.model.disklimits import SetDiskLimits
from vmhost.model.errors import DriverError
from vmhost.model.memorysteps import PlugMemory, UnplugMemory
from vmhost.model.steps import CheckTuning, SetMemory, SetTuning, SetVcpus
from vmhost.model.tuning import Held, Tuning
from vmhost.model.units import format_cpuset, format_size, parse_cpuset

LET_GO: Final = 30.0
"""Seconds that a guest has to let go of a memory module."""


def hold(
    step: SetTuning | SetVcpus | SetMemory | CheckTuning | SetDiskLimits | PlugMemory | UnplugMemory, context: Context
) -> None:
    """Do one of the steps that hold a guest while it runs.

    :raises DriverError: it failed, or the kernel does not hold the guest so.
    """
    hypervisor = context.ports.hypervisor
    match step:
        case SetTuning(uuid, _, tuning):
            hypervisor.tune(uuid, tuning)
        case SetVcpus(uuid, _, count):
            hypervisor.set_vcpus(uuid, count)
        case SetMemory(uuid, _, size):
            hypervisor.set_memory(uuid, size)
        case SetDiskLimits(uuid, target, limits):
            hypervisor.limit_disk(uuid, target, limits)
        case PlugMemory():
            plug_memory(step, context)
        case UnplugMemory(uuid, _, alias):
            hypervisor.unplug_memory(uuid, alias, timeout=LET_GO)
        case CheckTuning(uuid, name, tuning):
            check_tuning(uuid, name, tuning, context)
        case _:
            assert_never(step)


def check_tuning(uuid: str, name: str, tuning: Tuning, context: Context) -> None:
    """Read a guest's threads and groups and compare them with what was set.

    :raises DriverError: something is not so, with everything that is not, or the guest's QEMU is not on this machine.
    """
    held = context.ports.kernel.held().get(uuid)
    if held is None:
        text = "its QEMU is not among the processes of this machine: nobody can say how it is held"
        raise DriverError(text, subject=name, hint=f"vmhost guest show {name}")
    if wrong := list(differences(tuning, held)):
        text = f"the kernel does not hold it as it was told: {'; '.join(wrong)}"
        raise DriverError(text, subject=name, hint=f"virsh vcpuinfo {name}")


def differences(tuning: Tuning, held: Held) -> Iterator[str]:
    """Yield what the kernel does otherwise; what it does not say, and what nothing was asked for, is no difference."""
    pins = dict(tuning.pins)
    for vcpu, allowed in held.vcpus:
        yield from _place(f"vCPU {vcpu}", pins.get(vcpu, ""), allowed)
    io = dict(tuning.io)
    for thread, allowed in held.iothreads:
        yield from _place(f"I/O thread {thread}", io.get(thread, tuning.emulator), allowed)
    if len(held.iothreads) < tuning.iothreads:
        yield f"QEMU has {len(held.iothreads)} of {tuning.iothreads} I/O threads"
    if held.emulator is not None:
        yield from _place("QEMU", tuning.emulator, held.emulator)
    for what, wanted, have in (
        ("the guest's quota", tuning.limit, held.limit),
        ("the quota of each vCPU", tuning.vcpu_limit, held.vcpu_limit),
        ("the quota of QEMU", tuning.emulator_limit, held.emulator_limit),
    ):
        if have >= 0 and wanted != have:
            yield f"{what} is {have or 'none'} us, should be {wanted or 'none'}"
    if tuning.locked and held.locked == 0:
        yield "its memory is not locked"
    if held.memory_limit >= 0 and tuning.hard_limit and tuning.hard_limit != held.memory_limit:
        have_limit = format_size(held.memory_limit) if held.memory_limit else "none"
        yield f"the limit of memory is {have_limit}, should be {format_size(tuning.hard_limit)}"
    if tuning.cells and tuning.cell_mode == "strict" and tuning.page:
        # what QEMU and its libraries share with others may lie anywhere: the bulk is what was promised
        inside = sum(size for cell, size in held.cells if cell in parse_cpuset(tuning.cells))
        everything = sum(size for _, size in held.cells)
        if everything and inside < everything // 2:
            yield f"{format_size(everything - inside)} of its memory lie outside of cells {tuning.cells}"


def _place(what: str, wanted: str, have: frozenset[int]) -> Iterator[str]:
    if wanted and parse_cpuset(wanted) != have:
        yield f"{what} may run on {format_cpuset(have)}, should be {wanted}"
