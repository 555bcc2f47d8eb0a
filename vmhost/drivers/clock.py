"""The time of this machine."""

from __future__ import annotations

import os
import time
from datetime import datetime, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_LOCAL = Path("/etc/localtime")


class SystemClock:
    """The kernel's clocks."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def zone(self) -> tzinfo:
        name = os.environ.get("TZ", str(_LOCAL)).removeprefix(":") or "UTC"  # empty is UTC, see tzset(3)
        try:
            if not name.startswith("/"):
                return ZoneInfo(name)
            with Path(name).open("rb") as file:
                return ZoneInfo.from_file(file)
        except (OSError, ValueError, ZoneInfoNotFoundError):
            fixed = datetime.now().astimezone().tzinfo  # as the C library has it, which knows more ways to say it
            assert fixed is not None
            return fixed
