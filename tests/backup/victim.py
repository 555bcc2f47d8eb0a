"""One backup, prune, restore or drill in a process of its own, which kills itself at its k-th call into the world.

python -m tests.backup.victim run|prune|restore|drill GUEST REPOSITORY NUMBER before|after|count
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

from vmhost.cli import diagnostics
from vmhost.model.errors import VmhostError
from vmhost.model.retention import Keep
from vmhost.ops.host import Host
from vmhost.testing.faults import COUNTED, FaultPlan, FaultyPorts

KEEP = Keep(last=2)
"""What a prune leaves."""
LOOK, WAIT = ("hypervisor", "backup_progress"), ("wakeups", "wait")


def counted() -> Callable[[str, str], bool]:
    """Count every call, but of the looks at a job only the first: how many more there are depends on the load."""
    looked: list[None] = []

    def count(port: str, method: str) -> bool:
        if (port, method) == LOOK and not looked:
            looked.append(None)
            return True
        return port in COUNTED and (port, method) not in (LOOK, WAIT)

    return count


def main() -> int:
    """Do the operation; exit as the command line would."""
    operation, guest, repository, number, place = sys.argv[1:6]
    kill = None if place == "count" else lambda: os.kill(os.getpid(), signal.SIGKILL)
    plan = FaultPlan(int(number), "before" if place == "before" else "after", kill=kill, only=counted())
    with Host() as plain:
        faulty = FaultyPorts(plain.ports, plan)
        backups = (host := Host(ports=faulty.ports)).backups
        try:
            if operation == "run":
                host.apply(backups.plan(guest, repository=repository))
            elif operation == "prune":
                host.apply(backups.plan_prune([guest], KEEP, repository=repository))
            elif operation == "drill":
                host.apply(backups.drills.plan(guest, repository=repository))
            else:
                host.apply(backups.plan_restore(guest, repository=repository, power_off=True))
        except VmhostError as error:
            return diagnostics.report(error)
    sys.stdout.write(f"{len(faulty.calls)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
