"""A guest on hugepages, on the machine's own kernel: what it takes of them, and from which cell."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.labfixture import InLab
from tests.placer.conftest import IMAGES
from tests.placer.test_real import apply, held
from tests.reliability.image import tiny_image
from tests.reliability.scene import ALL
from vmhost.model.errors import Refused
from vmhost.ops.host import Host, connect

pytestmark = [pytest.mark.lab, pytest.mark.serial, pytest.mark.timeout(120)]

POOL = Path("/proc/sys/vm/nr_hugepages")
CELL = Path("/sys/devices/system/node/node0/hugepages/hugepages-2048kB")
MOUNT = Path("/run/vmhost-hugepages")
PAGES = 40


@pytest.fixture
def paged_host(lab: InLab) -> Iterator[Host]:
    """The lab's hypervisor on a kernel with some hugepages more, which libvirtd sees mounted; all is put back."""
    before = POOL.read_text()
    MOUNT.mkdir(exist_ok=True)
    IMAGES.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "hugetlbfs", "-o", "pagesize=2M", "none", str(MOUNT)], check=True, timeout=10)
    try:
        POOL.write_text(f"{int(before) + PAGES}\n")
        if free() < PAGES:
            pytest.skip(f"this machine's kernel gave {free()} free hugepages, {PAGES} are needed")
        lab.restart_libvirtd()
        with tiny_image(IMAGES, "tiny"), connect() as host:
            yield host
            if names := [row.name for row in host.guests() if row.site]:
                host.apply(host.plan_delete(names, ALL))
    finally:
        POOL.write_text(before)
        subprocess.run(["umount", str(MOUNT)], check=True, timeout=10)
        lab.restart_libvirtd()


def free() -> int:
    return int((CELL / "free_hugepages").read_text())


def test_a_guest_lies_on_the_hugepages_of_its_cell_and_no_more_are_given_than_there_are(paged_host: Host) -> None:
    have = free()
    site = "paged: {cpus: 1, memory: {size: %s, hugepages: 2M, cells: 0}}"
    with pytest.raises(Refused, match=f"cell 0 has {have} free hugepages of 2M, {have + 8} are needed"):
        apply(paged_host, site % f"{2 * have + 16}M")
    done = apply(paged_host, site % "64M")
    assert "ask the kernel how it is held" in done
    assert have - free() == 32, "QEMU took them before the guest ran"
    paged = held(paged_host, "paged")
    mapped = Path(f"/proc/{paged.pid}/numa_maps").read_text().splitlines()
    (memory,) = (line.split() for line in mapped if "kernelpagesize_kB=2048" in line and "N0=32" in line)
    assert memory[1] == "bind:0", "strictly of that cell"
    assert dict(paged.cells)[0] >= 64 << 20
    fits = paged_host.capacity(fits=["1x64M"])
    assert [(pages.total - pages.free) for cell in fits.cells for pages in cell.pages if pages.size == 2 << 20] == [32]
