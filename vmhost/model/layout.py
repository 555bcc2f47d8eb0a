"""Where things lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


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
