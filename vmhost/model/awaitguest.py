"""The step that waits for a guest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vmhost.model.identity import GuestIdentity


@dataclass(frozen=True, slots=True)
class AwaitGuest:
    """Wait until the guest is ready: SSH with the pinned host key (or its agent), then cloud-init's verdict."""

    identity: GuestIdentity
    by: Literal["ssh", "agent", "none"]
    cloud_init: bool
    timeout: float
    user: str
    site: str
    serial_log: str
    kind: Literal["await-guest"] = "await-guest"
