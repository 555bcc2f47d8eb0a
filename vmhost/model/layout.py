"""Where things lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

MOVED_BY: Final = tuple(
    f"VMHOST_{part}_DIR" for part in ("STATE", "RUNTIME", "CONFIG", "IMAGES", "DISKS", "LOG", "BACKUPS")
)
"""The environment's variables that move what the layout names."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things lie for one hypervisor (system or session)."""

    state: Path
    runtime: Path
    config: Path
    images: Path
    disks: Path
    logs: Path
    backups: Path = Path("/var/lib/vmhost/backups")
