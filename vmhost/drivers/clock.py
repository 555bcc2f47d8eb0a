"""The time of this machine."""

from __future__ import annotations

import time


class SystemClock:
    """The kernel's clocks."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()
