"""What holds a running domain, set at once: pins, quotas, shares, limits of memory, cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import libvirt

from vmhost.drivers.libvirt.errors import code_is
from vmhost.model.tuning import PERIOD, Tuning
from vmhost.model.units import parse_cpuset

Domain = Any  # libvirt.virDomain

_LIVE: Final = libvirt.VIR_DOMAIN_AFFECT_LIVE
_SHARES: Final = 1024
_UNLIMITED: Final = (1 << 53) - 1  # VIR_DOMAIN_MEMORY_PARAM_UNLIMITED, which libvirt-python lacks


def tune(domain: Domain, tuning: Tuning, cpus: int) -> None:
    """Bring a running domain to a tuning; only what differs is touched, since a driver may lack the rest.

    :param cpus: how many pCPUs the host has room for.
    """
    _quotas(domain, tuning)
    _limits(domain, tuning)
    _cells(domain, tuning)
    count = domain.vcpusFlags(_LIVE)
    pins = dict(tuning.pins)
    for vcpu, now in enumerate(domain.vcpuPinInfo(_LIVE)[:count]):
        wanted = cpu_map(pins.get(vcpu, ""), cpus)
        if tuple(now) != wanted:
            domain.pinVcpu(vcpu, wanted)  # of what runs; every driver knows this call
    emulator = cpu_map(tuning.emulator, cpus)
    if tuple(domain.emulatorPinInfo(_LIVE)) != emulator:
        domain.pinEmulator(emulator, _LIVE)
    io = dict(tuning.io)
    for thread, allowed in domain.ioThreadInfo(_LIVE) if tuning.iothreads else ():
        wanted = cpu_map(io.get(thread, tuning.emulator), cpus)
        if tuple(allowed) != wanted:
            domain.pinIOThread(thread, wanted, _LIVE)


def cpu_map(text: str, cpus: int) -> tuple[bool, ...]:
    """Return a set of pCPUs as libvirt's map; empty: all of them."""
    chosen = parse_cpuset(text) if text else frozenset(range(cpus))
    return tuple(number in chosen for number in range(cpus))


def _quotas(domain: Domain, tuning: Tuning) -> None:
    """The guest's own quota is raised before and lowered after those of its parts: cgroup v1 takes no part above it."""
    wanted: dict[str, int] = {}
    for kind, quota in (("vcpu", tuning.vcpu_limit), ("emulator", tuning.emulator_limit), ("global", tuning.limit)):
        wanted |= {f"{kind}_period": PERIOD, f"{kind}_quota": quota or -1}
    wanted["cpu_shares"] = tuning.shares or _SHARES
    now = _ask(domain.schedulerParametersFlags)
    if now is None:
        if tuning.limit or tuning.vcpu_limit or tuning.emulator_limit or tuning.shares:
            domain.setSchedulerParametersFlags({"cpu_shares": wanted["cpu_shares"]}, _LIVE)
        return
    if not tuning.shares and now.get("cpu_shares") in (0, 100, _SHARES):
        del wanted["cpu_shares"]  # it has the kernel's own: 1024 in version 1 of cgroups, 100 in version 2
    changed = {key: value for key, value in wanted.items() if not _same(now.get(key), value)}
    grows = tuning.limit == 0 or 0 < now.get("global_quota", -1) < tuning.limit
    for whole in (grows, not grows):
        part = {key: value for key, value in changed.items() if key.startswith("global_") is whole}
        for key in sorted(part):
            domain.setSchedulerParametersFlags({key: part[key]}, _LIVE)


def _same(now: int | None, wanted: int) -> bool:
    """Libvirt tells no quota as any number below zero, or as the largest one."""
    if wanted == -1:
        return now is None or now <= 0 or now >= 1 << 40
    return now == wanted


def _limits(domain: Domain, tuning: Tuning) -> None:
    wanted = {
        "hard_limit": tuning.hard_limit // 1024 or _UNLIMITED,
        "swap_hard_limit": tuning.swap_limit // 1024 or _UNLIMITED,
    }
    now = _ask(domain.memoryParameters)
    if now is None:
        if tuning.hard_limit:
            domain.setMemoryParameters(wanted, _LIVE)
        return
    changed = {key: value for key, value in wanted.items() if min(now.get(key, _UNLIMITED), _UNLIMITED) != value}
    if changed:
        domain.setMemoryParameters(changed, _LIVE)


def _cells(domain: Domain, tuning: Tuning) -> None:
    now = _ask(domain.numaParameters)
    if tuning.cells and now is not None and now.get("numa_nodeset", "") not in ("", tuning.cells):
        domain.setNumaParameters({"numa_nodeset": tuning.cells}, _LIVE)


def _ask(read: Callable[[int], Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return what libvirt says now, or None where the driver has no such call."""
    try:
        return read(_LIVE)
    except libvirt.libvirtError as error:
        if code_is(error, libvirt.VIR_ERR_NO_SUPPORT, libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_INVALID_ARG):
            return None
        raise
