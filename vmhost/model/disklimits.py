"""How much a guest may ask of a disk, and the step that says so."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final, Literal


@dataclass(frozen=True, slots=True)
class DiskLimits:
    """Bytes and operations in a second, of reads and writes together or of each; 0: no limit.

    The names are libvirt's (``iotune`` of https://libvirt.org/formatdomain.html#hard-drives-floppy-disks-cdroms), which
    takes either the sum or the parts.
    """

    total_bytes_sec: int = 0
    read_bytes_sec: int = 0
    write_bytes_sec: int = 0
    total_iops_sec: int = 0
    read_iops_sec: int = 0
    write_iops_sec: int = 0

    @property
    def named(self) -> tuple[tuple[str, int], ...]:
        """Every limit with libvirt's name, also those that are none."""
        return tuple((name, getattr(self, name)) for name in LIMITS)


LIMITS: Final = tuple(field.name for field in fields(DiskLimits))
UNLIMITED: Final = DiskLimits()


@dataclass(frozen=True, slots=True)
class SetDiskLimits:
    """Limit a disk, named by its target: at once where the guest runs, and for good."""

    uuid: str
    target: str
    limits: DiskLimits
    kind: Literal["set-disk-limits"] = "set-disk-limits"
