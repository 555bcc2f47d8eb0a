"""Drills: a point is booted beside everything else, to see that it would bring the guest back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from vmhost.model.awaitguest import AwaitGuest
from vmhost.model.points import PointRef
from vmhost.model.services import DeployedService

DRILL: Final = "vmhost-drill-"
"""What the names of domains that drills run begin with; the domain's UUID follows."""

SITE: Final = ".drill"
"""Whose links of drills are: no site can have this name."""


@dataclass(frozen=True, slots=True)
class DrillDisk:
    """A disk of a drill: the point's file, the overlay that takes what is written, and where the file is read."""

    file: str
    overlay: str
    socket: str
    capacity: int


@dataclass(frozen=True, slots=True)
class DrillFiles:
    """All files of a drill. ``nvram`` is where the point's UEFI variables go, ``seed`` where a seed without secrets;
    empty: it needs none.
    """

    disks: tuple[DrillDisk, ...]
    nvram: str = ""
    seed: str = ""


@dataclass(frozen=True, slots=True)
class LayDrill:
    """Let QEMU read a point's disks, and put what is written to them into overlays.

    The seed says the same ``instance_id`` and ``hostname`` as the guest's, so that cloud-init configures nothing.
    """

    uuid: str
    ref: PointRef
    files: DrillFiles
    instance_id: str = ""
    hostname: str = ""
    kind: Literal["lay-drill"] = "lay-drill"


@dataclass(frozen=True, slots=True)
class LiftDrill:
    """Take the files of a drill away, and what reads the point's."""

    uuid: str
    files: DrillFiles
    kind: Literal["lift-drill"] = "lift-drill"


@dataclass(frozen=True, slots=True)
class SeeDrill:
    """Wait until a drilled guest is there, by what it ``says`` on its console and as ``ready`` asks for, and then until
    its ``services`` are good by their probes.
    """

    ready: AwaitGuest
    says: str = ""
    services: tuple[DeployedService, ...] = ()
    kind: Literal["see-drill"] = "see-drill"

    @property
    def uuid(self) -> str:
        """The domain of the drill, whose lock is held meanwhile."""
        return self.ready.identity.uuid


@dataclass(frozen=True, slots=True)
class EndDrill:
    """Power the domain of a drill off, undefine it and delete its console's log; what is not there needs no end."""

    uuid: str
    name: str
    serial_log: str
    kind: Literal["end-drill"] = "end-drill"


DrillStep = LayDrill | LiftDrill | SeeDrill | EndDrill


@dataclass(frozen=True, slots=True)
class DrillRecord:
    """What became of one drill.

    ``guest`` is the UUID of the point's guest; ``started`` is UTC (ISO 8601). ``rto`` are the seconds from the first
    step until the guest was there, -1: it never was; ``rpo`` those that the point was old by then. ``failed`` is empty
    when it went well, else it says what did not. ``seconds`` is how long all of it took, from before the point was read
    back until everything was taken away, -1: nobody knows. ``console`` are the last lines that the guest said.
    """

    guest: str
    name: str
    point: str
    started: str
    rto: float = -1.0
    rpo: float = 0.0
    failed: str = ""
    seconds: float = -1.0
    console: tuple[str, ...] = ()
