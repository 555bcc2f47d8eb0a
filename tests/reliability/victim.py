"""One operation in a process of its own, which kills itself at its k-th call into the outside world, or lets it fail.

    python -m tests.reliability.victim create|delete SITE WHERE kill-before|kill-after|fail-before|fail-after|count

``WHERE`` is the number of a call: those of all ports are counted from 0; or PORT.METHOD, for the first such call.
``count`` does the operation whole and prints how many there were. A killed process ends by SIGKILL, as by the kernel's
OOM killer.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

from vmhost.cli import diagnostics
from vmhost.model.errors import VmhostError
from vmhost.model.permit import Permit
from vmhost.ops.host import Host
from vmhost.ops.sites import load_site
from vmhost.testing.faults import FaultPlan, FaultyPorts, driver_error


def fault_plan(where: str, how: str) -> FaultPlan:
    """Return the plan that the command line describes."""
    if how == "count":
        return FaultPlan()
    plan = FaultPlan(place="before" if how.endswith("before") else "after")
    if how.startswith("kill"):
        plan = replace(plan, kill=lambda: os.kill(os.getpid(), signal.SIGKILL))
    else:
        plan = replace(plan, error=driver_error)
    if "." in where:
        return replace(plan, at=0, only=lambda port, method: f"{port}.{method}" == where)
    return replace(plan, at=int(where))


def operate(host: Host, operation: str, site: Path) -> None:
    """Create or delete the guests of a site."""
    if operation == "create":
        host.apply_site(load_site(site))
    else:
        names = [guest.name for guest in load_site(site).guests]
        host.apply(host.plan_delete(names, Permit(power_off=True, disks=True)))


def main() -> int:
    """Do the operation; exit as the command line would."""
    operation, site, where, how = sys.argv[1:5]
    with Host() as plain:
        faulty = FaultyPorts(plain.ports, fault_plan(where, how))
        try:
            operate(Host(ports=faulty.ports), operation, Path(site))
        except VmhostError as error:
            return diagnostics.report(error)
    if how == "count":
        sys.stdout.write(f"{len(faulty.calls)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
