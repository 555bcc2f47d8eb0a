"""One process of many that take VLAN ids of one range: ``allocator.py DIRECTORY NAME COUNT [kill at CALL]``.

Real locks, journals and state; the hypervisor and its links are empty ones. What it got is in DIRECTORY/NAME.got, one
line each, written once the call is over.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

from vmhost.drivers.entropy import SystemEntropy
from vmhost.drivers.journals import FileJournals
from vmhost.drivers.locks import FileLocks
from vmhost.drivers.reservations import FileReservations
from vmhost.ops.host import Host
from vmhost.ports import Ports
from vmhost.testing import FakeHost, FaultPlan, FaultyPorts
from vmhost.testing.host import layout_in

RANGE = "1-4094"


def ports_in(directory: Path) -> Ports:
    layout = layout_in(directory)
    return replace(
        FakeHost().ports,
        layout=layout,
        locks=FileLocks(layout, timeout=300),
        journals=FileJournals(layout),
        reservations=FileReservations(layout),
        entropy=SystemEntropy(),
    )


def main(directory: str, name: str, count: str, at: str = "", place: str = "before") -> None:
    ports = ports_in(Path(directory))
    if at:
        # Only calls that are made while the host's lock is held count.
        plan = FaultPlan(
            int(at),
            "after" if place == "after" else "before",
            kill=lambda: os.kill(os.getpid(), signal.SIGKILL),
            only=lambda port, _method: port in ("reservations", "journals", "journal"),
        )
        ports = FaultyPorts(ports, plan).ports
    host = Host(ports=ports)
    with (Path(directory) / f"{name}.got").open("w") as got:
        for number in range(int(count)):
            row = host.vlans.allocate(RANGE, owner=f"{name}-{number}")
            got.write(f"{row.owner} {row.vid}\n")
            got.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
