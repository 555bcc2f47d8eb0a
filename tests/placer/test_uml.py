"""Limits of memory and quotas on a kernel with cgroup version 2, from a site file to ``memory.max`` and ``cpu.max``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.placer.test_real import apply, held
from vmhost.model.errors import Refused, SpecError
from vmhost.ops.host import Host

pytestmark = [pytest.mark.uml, pytest.mark.timeout(240)]

MIB = 1 << 20


def group(host: Host, name: str) -> Path:
    """A guest's group, by its QEMU's own."""
    line = next(
        line for line in Path(f"/proc/{held(host, name).pid}/cgroup").read_text().splitlines() if line.startswith("0::")
    )
    return (Path("/sys/fs/cgroup") / line.removeprefix("0::").lstrip("/")).parent


def test_memory_is_limited_by_the_kernel_and_more_while_it_runs(placed_host: Host) -> None:
    site = "tight: {cpus: {count: 1, limit: %s}, memory: {size: 64M, limit: %s}}"
    with pytest.raises(Refused, match="the kernel would kill it"):
        apply(placed_host, site % (0.5, "128M"))
    apply(placed_host, site % (0.5, "400M"))
    pid, place = held(placed_host, "tight").pid, group(placed_host, "tight")
    assert (place / "memory.max").read_text().strip() == str(400 * MIB)
    assert (place / "cpu.max").read_text().split() == ["50000", "100000"]

    done = apply(placed_host, site % (0.75, "480M"))
    assert {line.split()[1] for line in done.splitlines() if "note:" not in line} == {"live"}
    assert (place / "memory.max").read_text().strip() == str(480 * MIB)
    assert (place / "cpu.max").read_text().split() == ["75000", "100000"]
    assert held(placed_host, "tight").pid == pid


def test_locked_memory_is_never_swapped_out_and_the_kernel_says_so(placed_host: Host) -> None:
    site = "kept: {cpus: 1, memory: {size: 64M, limit: 3G, locked: true}}"
    done = apply(placed_host, site)
    assert "ask the kernel how it is held" in done
    kept = held(placed_host, "kept")
    status = Path(f"/proc/{kept.pid}/status").read_text()
    locked = next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmLck"))
    assert kept.locked == locked > 64 * MIB
    limits = Path(f"/proc/{kept.pid}/limits").read_text().splitlines()
    assert next(line.split()[3] for line in limits if line.startswith("Max locked memory")) == str(3 << 30)
    assert (group(placed_host, "kept") / "memory.max").read_text().strip() == str(3 << 30)
    with pytest.raises(SpecError, match="locked memory needs a limit"):
        apply(placed_host, site.replace("limit: 3G, ", ""))
