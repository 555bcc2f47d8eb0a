"""A snapshot of a guest that runs, and its merging, against libvirt's own calls driven by its events.

Run in a lab: ``vmhost lab exec NAME -- .venv/bin/python -m bench.bench_snapshot [ROUNDS]``. The floor makes
the overlay, lets the guest go on in it, merges it and deletes it; planning, journal, locks, records and looking again
are ours alone.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from uuid import uuid4

import libvirt

from bench.ab import interleave, report
from bench.paused import Bench, paused

LIMIT = 1.3
SIZE = 64
SNAPSHOT = (
    libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
    | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC
    | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
)
COMMIT = libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE


def ours(bench: Bench) -> Callable[[], None]:
    """Take one and delete it, as a script does."""

    def once() -> None:
        name = f"s{uuid4().hex[:8]}"
        bench.host.snapshots.create(bench.name, name)
        bench.host.snapshots.delete(bench.name, name)

    return once


def shown(bench: Bench) -> Callable[[], None]:
    """Plan both and apply them afterwards, as where somebody is asked in between."""

    def once() -> None:
        snapshots = bench.host.snapshots
        name = f"s{uuid4().hex[:8]}"
        bench.host.apply(snapshots.plan_create(bench.name, name))
        bench.host.apply(snapshots.plan_delete(bench.name, name))

    return once


def floor(bench: Bench) -> Callable[[], None]:
    """The calls that libvirt needs, each made when the event says so."""
    turned = threading.Condition()
    seen: list[int] = []

    def noted(_connection: object, _domain: object, _disk: str, _kind: int, status: int, _opaque: object) -> None:
        with turned:
            seen.append(status)
            turned.notify_all()

    bench.connection.domainEventRegisterAny(bench.domain, libvirt.VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2, noted, None)

    def awaited(status: int) -> None:
        with turned:
            assert turned.wait_for(lambda: status in seen, timeout=30)

    def once() -> None:
        seen.clear()
        top = bench.disk.with_name(f"{bench.disk.name}.overlay")
        disk = f"<disk name='vda' snapshot='external'><driver type='qcow2'/><source file='{top}'/></disk>"
        domain = bench.domain
        domain.snapshotCreateXML(f"<domainsnapshot><disks>{disk}</disks></domainsnapshot>", SNAPSHOT)
        domain.blockCommit("vda", str(bench.disk), None, 0, COMMIT)
        awaited(libvirt.VIR_DOMAIN_BLOCK_JOB_READY)
        domain.blockJobAbort("vda", libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
        awaited(libvirt.VIR_DOMAIN_BLOCK_JOB_COMPLETED)
        top.unlink()

    return once


def by_virsh(bench: Bench) -> Callable[[], None]:
    """The usual tool."""

    def once() -> None:
        top = bench.disk.with_name(f"{bench.disk.name}.overlay")
        spec = f"vda,snapshot=external,file={top}"
        _virsh("snapshot-create-as", bench.name, "--disk-only", "--atomic", "--no-metadata", "--diskspec", spec)
        _virsh("blockcommit", bench.name, "vda", "--active", "--shallow", "--pivot", "--wait")
        top.unlink()

    return once


def _virsh(*words: str) -> None:
    subprocess.run(("virsh", *words), check=True, capture_output=True, timeout=60)


def main() -> int:
    """Measure and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    with paused("snapped", SIZE) as bench:
        ways = {
            "libvirt's calls, by events": floor(bench),
            "vmhost": ours(bench),
            "vmhost, planned and then applied": shown(bench),
            "virsh": by_virsh(bench),
        }
        rows = interleave(ways, base="libvirt's calls, by events", rounds=rounds)
    return report("A snapshot of a running guest, and its merging", rows, of="vmhost", limit=LIMIT)


if __name__ == "__main__":
    sys.exit(main())
