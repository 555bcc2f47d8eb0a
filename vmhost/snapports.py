"""What vmhost asks of the files of disks; a part of :mod:`vmhost.ports`, whose rules hold here, too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from vmhost.model.domains import RawDomain


class DomainDisks(Protocol):
    """What a hypervisor does with volumes, and with the disks of running domains."""

    def create_volume(self, pool: str, xml: str) -> None: ...
    def resize_volume(self, pool: str, name: str, capacity: int) -> None: ...
    def delete_volume(self, pool: str, name: str) -> None:
        """Delete; waits for a volume that is still being built by a call whose client died. One that a running guest
        has open, as its own or below its own, stays.
        """

    def users(self, pool: str, name: str) -> tuple[str, ...]:
        """The guests, running or not, whose definitions name a volume, or what lies on it as far as the files can be
        read here; Absent when there is no such volume.
        """

    def resize_disk(self, uuid: str, source: str, capacity: int) -> None: ...
    def snapshot_disks(self, uuid: str, files: Mapping[str, str]) -> None:
        """Let a running domain write to other files, all at one instant: ``files`` maps targets to paths of overlays
        that lie on what is written now. Its other disks go on; Absent when it does not run.
        """

    def commit_disk(self, uuid: str, target: str, top: str, base: str) -> None:
        """Merge a file of a running domain's disk into the one below it and wait until that is done; ``top`` is of no
        use then. A job that an earlier call has left is gone on with. Absent when the domain does not run. A call that
        raised may have done a part, or all.
        """


class DiskFiles(Protocol):
    """The files behind disks, and beside them the variables of UEFI, on this machine."""

    def backing(self, path: str) -> str:
        """The file that a qcow2 file lies on, as its header says; empty: on none."""

    def make_overlay(self, path: str, base: str, capacity: int) -> None:
        """Make an empty qcow2 file that lies on another one, on the disk when this returns; libvirt knows it once its
        pool is looked into again. AlreadyThere when something has the name, Absent when ``base`` is not there.
        """

    def commit(self, top: str, base: str) -> None:
        """Write what ``top`` holds into ``base``, on which it lies; ``top`` stays as it is. No guest has them open.

        A call that raised may have written a part; nothing is lost by it, and doing it again is right.
        """

    def written(self, path: str) -> bool:
        """Whether a qcow2 file holds something by itself, not only what it lies on; what is not there, or none, not."""

    def rebase(self, path: str, base: str) -> None:
        """Let a file lie on another one that holds the same as the one before; no guest writes to it."""

    def nvram(self, domain: RawDomain) -> bytes:
        """A domain's UEFI variables; empty where it has none."""

    def keep_nvram(self, domain: RawDomain, path: str) -> None:
        """Copy a domain's UEFI variables to a new file; where the domain has none, the file is empty."""

    def same_nvram(self, domain: RawDomain, path: str) -> bool:
        """Whether a domain's UEFI variables are those of a file that :meth:`keep_nvram` has made."""

    def put_nvram(self, domain: RawDomain, path: str) -> None:
        """Replace a domain's UEFI variables by a kept file's, all or nothing.

        :raises DriverError: it runs, and would write on into a file that has gone.
        """


class ThawGuard(Protocol):
    """What thaws a frozen guest if nobody else does."""

    def dismiss(self) -> None:
        """The guest is thawed, or another one answers for it. Done twice, the second is nothing."""


class ThawGuards(Protocol):
    """Guards over frozen guests, for those that have no dead-man inside."""

    def arm(self, uuid: str, seconds: float) -> ThawGuard:
        """Have a guest thawed through its agent when the caller dies, or so many seconds from now.

        :raises DriverError: it cannot be; then nothing may be frozen.
        """
