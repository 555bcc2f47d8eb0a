"""One backup, prune, restore or drill in a process of its own, which kills itself at its k-th call into the world.

python -m tests.backup.victim run|prune|restore|drill GUEST REPOSITORY NUMBER before|after|within|done|count

``within``: before the k-th thing that it asks of the kernel about the guests' disks, or of a copier; without such a
number, and with ``count``, it goes on to its end and prints how many there were. ``done``: in place of a number it is
given a part of what a step is for, and dies when the first such step of a restore is done.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from threading import current_thread, main_thread
from typing import Any

from vmhost.cli import diagnostics
from vmhost.model.errors import VmhostError
from vmhost.model.events import Event, Progress, StepDone
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


def die() -> None:
    """End as if by a power cut."""
    os.kill(os.getpid(), signal.SIGKILL)


class Within:
    """Dies before the main thread does one of the things that it does to files of disks, or while a copier is at work.

    ``done`` are those that it did: what was asked of the kernel, and ``copying`` when each copier told something first.
    """

    ASKED = frozenset({"open", "os.link", "os.rename", "os.remove", "os.chmod", "os.chown", "os.truncate", "os.utime"})
    COPIER = "subprocess.Popen"

    def __init__(self, disks: str, number: int) -> None:
        self.done: list[str] = []
        self._disks, self._number = f"{disks}/", number
        sys.addaudithook(self._audit)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if (event in self.ASKED or event == self.COPIER) and self._disks in str(arguments):
            self._count(event)

    def hear(self, event: Event) -> None:
        """Hear how far the copier is."""
        if isinstance(event, Progress) and self.done and self.done[-1] == self.COPIER:
            self._count("copying")

    def _count(self, what: str) -> None:
        if current_thread() is main_thread():
            if len(self.done) == self._number:
                die()
            self.done.append(what)


def dying_after(text: str) -> Callable[[Event], None]:
    """Return a listener that dies when the first step is done whose purpose has this text in it."""

    def hear(event: Event) -> None:
        if isinstance(event, StepDone) and text in event.why:
            die()

    return hear


def main() -> int:
    """Do the operation; exit as the command line would."""
    operation, guest, repository, number, place = sys.argv[1:6]
    kill = None if place == "count" else die
    at = -1 if place in ("within", "done") else int(number)
    plan = FaultPlan(at, "before" if place == "before" else "after", kill=kill, only=counted())
    with Host() as plain:
        faulty = FaultyPorts(plain.ports, plan)
        within = Within(str(plain.ports.layout.disks), int(number)) if place == "within" else None
        backups = (host := Host(ports=faulty.ports)).backups
        try:
            if operation == "run":
                host.apply(backups.plan(guest, repository=repository))
            elif operation == "prune":
                host.apply(backups.plan_prune([guest], KEEP, repository=repository))
            elif operation == "drill":
                host.apply(backups.drills.plan(guest, repository=repository))
            else:
                proposal = backups.plan_restore(guest, repository=repository, power_off=True)
                hear = dying_after(number) if place == "done" else within.hear if within else None
                host.apply(proposal, on_event=hear)
        except VmhostError as error:
            return diagnostics.report(error)
    sys.stdout.write(f"{len(within.done if within else faulty.calls)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
