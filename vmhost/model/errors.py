"""Errors for people: what failed, on what, and the next command to type.

The tree, with the exit code that the command line gives for each (``vmhost.cli.diagnostics``)::

    VmhostError                     1   unexpected
     +-- SpecError                  2   the file is wrong; every fault with path and line
     +-- UsageError                 2   an argument is wrong
     +-- NotFound                   3
     +-- Refused                    4   the wish cannot be met here
     |    +-- Conflict              4   a name, address or MAC is taken; the host changed
     |    +-- NoCapacity            4
     |    +-- Protected             4
     +-- DriverError                5   libvirt, netlink, SSH or a file said no
     |    +-- Unreachable           5
     |    |    +-- Silent           5   it was asked, and nothing came in time
     |    +-- HostKeyMismatch       5   an SSH server that is not the guest
     |    +-- PermissionDenied      5
     |    +-- Absent                5   the thing is not there
     |    +-- AlreadyThere          5   the thing is there before us
     |    +-- InUse                 5   the thing is somebody's, and stays
     +-- ApplyError              6/10   a step failed; undone, or with leftovers
     +-- VerifyError                9   applied, yet differs
     +-- GuestError                 8   not ready in time, or cloud-init failed
     +-- PartlyDone                11   some of many failed
     +-- Cancelled                130   ended by the person
     +-- DamagedData               12   an image or a file is not what it says
          +-- DrillFailed          12   a point does not bring its guest back
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class VmhostError(Exception):
    """Base of every error that vmhost raises on purpose.

    :param message: what failed, one sentence without a trailing stop.
    :param subject: on what: a guest, file, link or address; empty when there is none.
    :param hint: the next command to type; empty when there is none.
    """

    def __init__(self, message: str, *, subject: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.subject = subject
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.subject}: {self.message}" if self.subject else self.message


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a file: where it stands and what is wrong there.

    ``path`` is dotted (``guests.web-01.memory.size``); ``line`` counts from 1, 0 when unknown.
    """

    path: str
    message: str
    line: int = 0

    def __str__(self) -> str:
        place = f"line {self.line}: " if self.line else ""
        return f"{place}{self.path}: {self.message}" if self.path else f"{place}{self.message}"


class SpecError(VmhostError):
    """A site file is wrong; ``faults`` carries every fault at once."""

    def __init__(self, faults: Sequence[Fault], *, subject: str = "", hint: str = "") -> None:
        self.faults = tuple(faults)
        count = len(self.faults)
        super().__init__(f"{count} fault{'' if count == 1 else 's'} in the site", subject=subject, hint=hint)

    def __str__(self) -> str:
        where = f"{self.subject}: " if self.subject else ""
        return "\n".join(f"{where}{fault}" for fault in self.faults)


class UsageError(VmhostError):
    """An argument of a call or a command is wrong; nothing was changed."""


class NotFound(VmhostError):
    """What was named does not exist; nothing was changed."""


class Refused(VmhostError):
    """The wish cannot be met here; nothing was changed."""


class Conflict(Refused):
    """A name, address, MAC or resource is taken, or the host changed since the plan was shown."""


class NoCapacity(Refused):
    """The host has not enough memory, CPUs or space."""


class Protected(Refused):
    """The guest carries ``protect: true``."""


class DriverError(VmhostError):
    """libvirt, netlink, SSH or the file system said no.

    :param retryable: True when the same call may succeed a moment later.
    """

    def __init__(self, message: str, *, subject: str = "", hint: str = "", retryable: bool = False) -> None:
        super().__init__(message, subject=subject, hint=hint)
        self.retryable = retryable


class Unreachable(DriverError):
    """The other side does not answer."""


class Silent(Unreachable):
    """Nothing came back at all, in time: neither an answer nor a refusal."""


class HostKeyMismatch(DriverError):
    """An SSH server answered with a host key that is not the guest's; nothing was sent to it."""


class PermissionDenied(DriverError):
    """The other side does not let us."""


class Absent(DriverError):
    """The thing that a call names is not there."""


class AlreadyThere(DriverError):
    """The thing that a call would make is there before us."""


class InUse(DriverError):
    """What was to be deleted is a guest's by its definition, and stays."""


class ApplyError(VmhostError):
    """A step failed.

    ``done`` and ``undone`` are the sentences of the steps; ``leftovers`` names what could not be undone, each with the
    command that removes it. Empty leftovers mean that the host is as it was.
    """

    def __init__(
        self,
        message: str,
        *,
        subject: str = "",
        hint: str = "",
        done: Sequence[str] = (),
        undone: Sequence[str] = (),
        leftovers: Sequence[str] = (),
    ) -> None:
        super().__init__(message, subject=subject, hint=hint)
        self.done = tuple(done)
        self.undone = tuple(undone)
        self.leftovers = tuple(leftovers)


class VerifyError(VmhostError):
    """Everything was applied, yet what is there differs; ``differences`` says in what."""

    def __init__(self, message: str, *, subject: str = "", hint: str = "", differences: Sequence[str] = ()) -> None:
        super().__init__(message, subject=subject, hint=hint)
        self.differences = tuple(differences)


class GuestError(VmhostError):
    """A guest is not ready in time, or its cloud-init reports a failure; ``details`` are the guest's own words."""

    def __init__(self, message: str, *, subject: str = "", hint: str = "", details: Sequence[str] = ()) -> None:
        super().__init__(message, subject=subject, hint=hint)
        self.details = tuple(details)


class PartlyDone(VmhostError):
    """Some of many failed; ``failures`` maps each that failed to its error."""

    def __init__(self, message: str, *, failures: dict[str, VmhostError], hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.failures = dict(failures)


class Cancelled(VmhostError):
    """The person or another process ended the operation; what it had done was undone, unless its commit point was
    passed.
    """


class DamagedData(VmhostError):
    """An image, journal or file is not what it claims to be; it was not used."""


class DrillFailed(DamagedData):
    """A point does not bring its guest back; ``details`` are the guest's own words, if it said any."""

    def __init__(self, message: str, *, subject: str = "", hint: str = "", details: Sequence[str] = ()) -> None:
        super().__init__(message, subject=subject, hint=hint)
        self.details = tuple(details)
