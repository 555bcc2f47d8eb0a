"""One operation in a process of its own, which kills itself at its k-th call into the outside world, or lets it fail.

    python -m tests.reliability.victim create|delete SITE NUMBER kill-before|kill-after|fail-before|fail-after|count

Calls of all ports are counted from 0; ``count`` does the operation whole and prints how many there were. A killed
process ends by SIGKILL, as by the kernel's OOM killer.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from vmhost.cli import diagnostics
from vmhost.model.errors import VmhostError
from vmhost.model.permit import Permit
from vmhost.ops.host import Host
from vmhost.ops.sites import load_site
from vmhost.testing.faults import FaultPlan, FaultyPorts, driver_error


def fault_plan(number: int, how: str) -> FaultPlan:
    """Return the plan that the command line describes."""
    if how == "count":
        return FaultPlan()
    place = "before" if how.endswith("before") else "after"
    if how.startswith("kill"):
        return FaultPlan(number, place, kill=lambda: os.kill(os.getpid(), signal.SIGKILL))
    return FaultPlan(number, place, error=driver_error)


def operate(host: Host, operation: str, site: Path) -> None:
    """Create or delete the guests of a site."""
    if operation == "create":
        host.apply(host.plan(load_site(site)))
    else:
        names = [guest.name for guest in load_site(site).guests]
        host.apply(host.plan_delete(names, Permit(power_off=True, disks=True)))


def main() -> int:
    """Do the operation; exit as the command line would."""
    operation, site, number, how = sys.argv[1:5]
    with Host() as plain:
        faulty = FaultyPorts(plain.ports, fault_plan(int(number), how))
        try:
            operate(Host(ports=faulty.ports), operation, Path(site))
        except VmhostError as error:
            return diagnostics.report(error)
    if how == "count":
        sys.stdout.write(f"{len(faulty.calls)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
