"""What may be done inside a guest: a closed union of operations, each with the commands that do it as data."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class GuestCommand:
    """A command in a guest: a program and its arguments, quoted once by whoever sends it.

    Secrets travel in ``input`` only, which is never shown. Of a script its name is printed in place of its text.
    ``good`` are the exit codes that mean that it is done, or was before.
    """

    argv: tuple[str, ...]
    input: bytes = field(default=b"", repr=False)
    timeout: float = 60.0
    sudo: bool = True
    good: tuple[int, ...] = (0,)

    def __str__(self) -> str:
        words = self.argv
        if words[:2] == ("sh", "-c"):
            words = words[3:]
        fed = f" < {len(self.input)} bytes" if self.input else ""
        return shlex.join(words) + fed


@dataclass(frozen=True, slots=True)
class RefreshPackages:
    """Fetch the lists of packages."""

    kind: Literal["refresh-packages"] = "refresh-packages"


@dataclass(frozen=True, slots=True)
class InstallPackages:
    """Install packages, each as ``name`` or ``name=version``; an older version is one, too."""

    packages: tuple[str, ...]
    kind: Literal["install-packages"] = "install-packages"


@dataclass(frozen=True, slots=True)
class RemovePackages:
    """Remove packages; ``purge``: with their configuration, which was not there before they were."""

    packages: tuple[str, ...]
    purge: bool = False
    kind: Literal["remove-packages"] = "remove-packages"


@dataclass(frozen=True, slots=True)
class MakeGroup:
    """Make a system group."""

    name: str
    kind: Literal["make-group"] = "make-group"


@dataclass(frozen=True, slots=True)
class RemoveGroup:
    """Remove a group."""

    name: str
    kind: Literal["remove-group"] = "remove-group"


@dataclass(frozen=True, slots=True)
class MakeUser:
    """Make a system account; ``group`` empty: with a group of its own name."""

    name: str
    group: str
    home: str
    shell: str
    kind: Literal["make-user"] = "make-user"


@dataclass(frozen=True, slots=True)
class RemoveUser:
    """Remove an account; its files stay."""

    name: str
    kind: Literal["remove-user"] = "remove-user"


@dataclass(frozen=True, slots=True)
class MakeDirectory:
    """Make a directory, or set the owner and mode of one."""

    path: str
    mode: str
    owner: str
    kind: Literal["make-directory"] = "make-directory"


@dataclass(frozen=True, slots=True)
class RemoveDirectory:
    """Remove a directory if it is empty."""

    path: str
    kind: Literal["remove-directory"] = "remove-directory"


@dataclass(frozen=True, slots=True)
class PutFile:
    """Put a file in place atomically: readers see the old one or the new one, whole.

    ``check`` runs before that on the new one; when it fails the old one stays. ``sha256`` is empty for what others in
    the guest may not know even the checksum of; ``secret``: what is said of it while it is put is not repeated.
    """

    path: str
    mode: str
    owner: str
    data: bytes = field(repr=False)
    sha256: str = ""
    check: tuple[str, ...] = ()
    secret: bool = False
    kind: Literal["put-file"] = "put-file"


@dataclass(frozen=True, slots=True)
class MakeLink:
    """Make a symbolic link in place of what is there."""

    path: str
    target: str
    kind: Literal["make-link"] = "make-link"


@dataclass(frozen=True, slots=True)
class SetOwnership:
    """Set owner and mode of a file."""

    path: str
    mode: str
    owner: str
    kind: Literal["set-ownership"] = "set-ownership"


@dataclass(frozen=True, slots=True)
class RemoveFile:
    """Remove a file."""

    path: str
    kind: Literal["remove-file"] = "remove-file"


@dataclass(frozen=True, slots=True)
class SetSysctl:
    """Set a parameter of the kernel that runs; the file for the next boot is another operation."""

    key: str
    value: str
    kind: Literal["set-sysctl"] = "set-sysctl"


Verb = Literal["start", "stop", "restart", "reload-or-restart", "enable", "disable"]


@dataclass(frozen=True, slots=True)
class ActOnUnit:
    """Do with a unit what systemctl(1) calls so."""

    unit: str
    verb: Verb
    kind: Literal["act-on-unit"] = "act-on-unit"


@dataclass(frozen=True, slots=True)
class ReloadUnits:
    """Let systemd read its unit files again."""

    kind: Literal["reload-units"] = "reload-units"


GuestOp = (
    RefreshPackages
    | InstallPackages
    | RemovePackages
    | MakeGroup
    | RemoveGroup
    | MakeUser
    | RemoveUser
    | MakeDirectory
    | RemoveDirectory
    | PutFile
    | MakeLink
    | SetOwnership
    | RemoveFile
    | SetSysctl
    | ActOnUnit
    | ReloadUnits
)


@dataclass(frozen=True, slots=True)
class GuestPlanned:
    """One operation of a deployment: its undo, its reason, and lines that show what will differ."""

    do: GuestOp
    undo: tuple[GuestOp, ...]
    why: str
    shown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GuestPlan:
    """What a deployment does in one guest. ``satisfied`` says of everything else why there is nothing to do."""

    guest: str
    service: str
    steps: tuple[GuestPlanned, ...] = ()
    satisfied: tuple[str, ...] = ()
    refused: str = ""

    @property
    def empty(self) -> bool:
        """Whether the guest already is as it should be."""
        return not self.steps
