"""``ports.Kernel`` on Linux: what ``/sys`` says of processors, ``/proc`` and cgroups of the QEMU processes.

proc(5), cgroups(7), https://docs.kernel.org/admin-guide/cgroup-v2.html; QEMU names its vCPU threads ``CPU 0/KVM``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from vmhost.model.stats import LinkLoad
from vmhost.model.tuning import PERIOD, Held
from vmhost.model.units import parse_cpuset

SYSTEM: Final = Path("/sys/devices/system")
PROC: Final = Path("/proc")
NETWORK: Final = Path("/sys/class/net")
_ONLINE: Final = "cpu/online"
_CHANGING: Final = (
    *(_ONLINE, "cpu/offline", "cpu/isolated"),
    *("node/node*/hugepages/hugepages-*/free_hugepages", "node/node*/hugepages/hugepages-*/nr_hugepages"),
)
_CARRIED: Final = ("statistics/rx_bytes", "statistics/tx_bytes", "speed")
_CLUSTERS: Final = "cpu/cpu*/topology/cluster_cpus_list"
_UUID: Final = re.compile(rb"\0-uuid\0([0-9a-f-]{36})\0")
_VCPU: Final = re.compile(r"CPU (\d+)/(?:KVM|TCG)")
_IOTHREAD: Final = re.compile(r"IO iothread(\d+)")
_NO_LIMIT: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class LinuxKernel:
    """The kernel that we run on.

    :param system: where it shows its devices; :param proc: where it shows its processes; :param network: its links.
    """

    system: Path = SYSTEM
    proc: Path = PROC
    network: Path = NETWORK

    def processors(self) -> Mapping[str, str]:
        found: dict[str, str] = {}
        for pattern in _CHANGING:
            found |= _texts(self.system, pattern)
        return {**found, **_clusters(self.system, found.get(_ONLINE, ""))}

    def held(self) -> Mapping[str, Held]:
        mounts = _mounts(self.proc)
        found = {}
        for uuid, process in _guests(self.proc):
            with suppress(OSError, ValueError):  # it ends meanwhile
                found[uuid] = _held(process, mounts)
        return found

    def pressure(self) -> Mapping[str, float]:
        found = {}
        for what in ("cpu", "memory", "io"):
            with suppress(OSError, IndexError, ValueError):  # a kernel without it
                line = (self.proc / "pressure" / what).read_text().splitlines()[0]
                found[what] = float(line.split("avg10=")[1].split()[0])
        return found

    def traffic(self) -> Mapping[str, LinkLoad]:
        found = {}
        for link in self.network.iterdir() if self.network.is_dir() else ():
            if not ((link / "device").exists() or (link / "bonding").exists()):
                continue  # bridges, taps and the like have no speed of their own
            with suppress(OSError, ValueError):
                received, sent, speed = (int((link / name).read_text()) for name in _CARRIED)
                if speed > 0:
                    found[link.name] = LinkLoad(received, sent, speed * 1_000_000)
        return found


def _texts(root: Path, pattern: str) -> dict[str, str]:
    found = {}
    for path in root.glob(pattern) if "*" in pattern else (root / pattern,):
        with suppress(OSError):
            found[str(path.relative_to(root))] = path.read_text().strip()
    return found


@lru_cache(maxsize=4)  # a file for each CPU, and they change only with what is online
def _clusters(root: Path, _online: str) -> Mapping[str, str]:
    return _texts(root, _CLUSTERS)


@dataclass(frozen=True, slots=True)
class _Mount:
    """A cgroup hierarchy; ``root`` is the group that is mounted there, ``controllers`` are empty in version 2."""

    place: Path
    root: str
    controllers: frozenset[str]

    def group(self, path: str) -> Path:
        """Return the directory of a group by its path in ``/proc/PID/cgroup``."""
        inside = path.removeprefix(self.root) if self.root != "/" else path
        return self.place / inside.lstrip("/")


def _mounts(proc: Path) -> tuple[_Mount, ...]:
    found = []
    for line in (proc / "self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        if kind == "cgroup2":
            found.append(_Mount(Path(left.split()[4]), left.split()[3], frozenset()))
        elif kind == "cgroup":
            found.append(_Mount(Path(left.split()[4]), left.split()[3], frozenset(options.split(","))))
    return tuple(found)


def _guests(proc: Path) -> Iterator[tuple[str, Path]]:
    for process in proc.iterdir():
        if process.name.isdecimal():
            with suppress(OSError):
                if found := _UUID.search((process / "cmdline").read_bytes()):
                    yield found[1].decode(), process


def _held(process: Path, mounts: tuple[_Mount, ...]) -> Held:
    status = _status(process)
    vcpus, iothreads = dict[int, Path](), dict[int, Path]()
    for task in (process / "task").iterdir():
        named = (task / "comm").read_text().strip()
        for pattern, found in ((_VCPU, vcpus), (_IOTHREAD, iothreads)):
            if number := pattern.fullmatch(named):
                found[int(number[1])] = task
    emulator = _group(process, mounts, "cpu")
    vcpu = _group(next(iter(vcpus.values())), mounts, "cpu") if vcpus else None
    memory = _group(process, mounts, "memory")
    whole = emulator.parent if emulator is not None and emulator.name == "emulator" else emulator
    return Held(
        pid=int(process.name),
        vcpus=_threads(vcpus),
        iothreads=_threads(iothreads),
        emulator=_allowed(status),
        limit=_quota(whole),
        vcpu_limit=_quota(vcpu),
        emulator_limit=_quota(emulator),
        shares=_shares(whole),
        memory_limit=_memory(memory.parent if memory is not None and memory.name == "emulator" else memory),
        resident=_bytes(status, "VmRSS"),
        locked=_bytes(status, "VmLck"),
        cells=tuple(_cells(process)),
        waits=tuple((number, *_waited(task)) for number, task in sorted(vcpus.items())),
    )


def _threads(found: Mapping[int, Path]) -> tuple[tuple[int, frozenset[int]], ...]:
    return tuple((number, _allowed(_status(task))) for number, task in sorted(found.items()))


def _bytes(status: Mapping[str, str], key: str) -> int:
    return int(status.get(key, "0 kB").split()[0]) * 1024


def _waited(task: Path) -> tuple[int, int]:
    """Return how long a thread ran and how long it waited for a pCPU (Documentation/scheduler/sched-stats)."""
    try:
        ran, waited, _ = (task / "schedstat").read_text().split()
    except (OSError, ValueError):
        return 0, 0
    return int(ran), int(waited)


def _status(task: Path) -> dict[str, str]:
    pairs = (line.partition(":") for line in (task / "status").read_text().splitlines())
    return {key: value.strip() for key, _, value in pairs}


def _allowed(status: Mapping[str, str]) -> frozenset[int]:
    return parse_cpuset(status["Cpus_allowed_list"])


def _group(task: Path, mounts: tuple[_Mount, ...], controller: str) -> Path | None:
    """Return the directory of a task's group that has a controller, in either version; None when none is mounted."""
    unified: Path | None = None
    for line in (task / "cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for mount in mounts:
            if controllers and controller in controllers.split(",") and controller in mount.controllers:
                return mount.group(path)
            if not controllers and not mount.controllers:
                unified = mount.group(path)
    return unified


def _number(group: Path | None, name: str) -> int | None:
    if group is None:
        return None
    try:
        return int((group / name).read_text())
    except (OSError, ValueError):
        return None


def _quota(group: Path | None) -> int:
    """Return a group's quota in microseconds of our period, 0 for none, -1 when it is not told."""
    old, period = _number(group, "cpu.cfs_quota_us"), _number(group, "cpu.cfs_period_us")
    if old is not None and period:
        return 0 if old < 0 else old * PERIOD // period
    if group is not None:
        with suppress(OSError, ValueError):
            quota, _, length = (group / "cpu.max").read_text().partition(" ")
            return 0 if quota == "max" else int(quota) * PERIOD // int(length)
    return -1


def _shares(group: Path | None) -> int:
    for name in ("cpu.shares", "cpu.weight"):
        if (found := _number(group, name)) is not None:
            return found
    return -1


def _memory(group: Path | None) -> int:
    """Return the limit of a group's memory; in version 2 libvirt sets it on the guest's own group, some levels up."""
    if group is None:
        return -1
    for place in (group, group.parent):
        found = _number(place, "memory.limit_in_bytes")
        if found is not None:
            return 0 if found >= _NO_LIMIT else found
        with suppress(OSError, ValueError):
            text = (place / "memory.max").read_text().strip()
            if text != "max":
                return int(text)
    return 0


def _cells(process: Path) -> Iterator[tuple[int, int]]:
    """Yield how much of a process's memory lies in each cell (numa(7)); nothing where the kernel has no NUMA."""
    sums: dict[int, int] = {}
    try:
        lines = (process / "numa_maps").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        size = re.search(r"kernelpagesize_kB=(\d+)", line)
        for cell, pages in re.findall(r"\bN(\d+)=(\d+)", line):
            sums[int(cell)] = sums.get(int(cell), 0) + int(pages) * int(size[1] if size else 4) * 1024
    yield from sorted(sums.items())
