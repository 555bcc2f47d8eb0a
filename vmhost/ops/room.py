"""Whether what a plan restores has room, said before anything is begun."""

from __future__ import annotations

from collections import Counter
from pathlib import PurePosixPath
from shlex import quote
from typing import TYPE_CHECKING

from vmhost.model.backupsteps import RestoreDisk
from vmhost.model.errors import NoCapacity
from vmhost.model.units import format_size

if TYPE_CHECKING:
    from vmhost.model.plan import Plan
    from vmhost.ports import Ports


def refuse_too_large(ports: Ports, plan: Plan) -> None:
    """Return when all disks that a plan restores have room where they are restored to.

    :raises NoCapacity: they have not.
    """
    needs: Counter[str] = Counter()
    for item in plan.steps:
        if isinstance(item.do, RestoreDisk):
            needs[str(PurePosixPath(item.do.target).parent)] += ports.repositories.need(item.do.ref, item.do.file)
    for directory, need in needs.items():
        free = ports.repositories.room(directory)
        if free < need:
            text = f"its disks need {format_size(need)}, and {directory} has {format_size(free)} free"
            raise NoCapacity(text, subject=" ".join(plan.guests), hint=f"df -h {quote(directory)}")
