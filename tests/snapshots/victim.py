"""One operation on a snapshot in a process of its own, which kills itself at its k-th call into the outside world.

    python -m tests.snapshots.victim create|revert|delete GUEST SNAPSHOT NUMBER HOW

``HOW`` is as for :mod:`tests.reliability.victim`, or ``done``: in place of a number it is given a part of what a step
is for, and dies when the first such step is done.
"""

from __future__ import annotations

import sys

from tests.backup.victim import dying_after
from tests.reliability.victim import fault_plan
from vmhost.cli import diagnostics
from vmhost.model.errors import VmhostError
from vmhost.model.permit import Permit
from vmhost.ops.host import Host
from vmhost.ops.proposals import Proposal
from vmhost.testing.faults import FaultyPorts


def proposed(host: Host, operation: str, guest: str, name: str) -> Proposal:
    """Return the operation's proposal."""
    if operation == "create":
        return host.snapshots.plan_create(guest, name)
    if operation == "revert":
        return host.snapshots.plan_revert(guest, name, Permit(power_off=True, discard_saved=True))
    return host.snapshots.plan_delete(guest, name)


def main() -> int:
    """Do the operation; exit as the command line would."""
    operation, guest, name, number, how = sys.argv[1:6]
    with Host() as plain:
        faulty = FaultyPorts(plain.ports, fault_plan(number, "count" if how == "done" else how))
        host = Host(ports=faulty.ports)
        try:
            hear = dying_after(number) if how == "done" else None
            host.apply(proposed(host, operation, guest, name), on_event=hear)
        except VmhostError as error:
            return diagnostics.report(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
