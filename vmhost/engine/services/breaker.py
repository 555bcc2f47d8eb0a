"""A circuit breaker: after three failures a guest is left alone for a while, then one try shows how it is."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from vmhost.model.errors import Unreachable

FAILURES: Final = 3
FIRST_PAUSE: Final = 5.0
LONGEST_PAUSE: Final = 300.0


class Circuit(StrEnum):
    """``closed``: all is well; ``open``: left alone; ``half-open``: one try is under way."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


@dataclass(slots=True)
class Breaker:
    """One guest's breaker; safe from several threads. Times are monotonic, in seconds.

    The pause doubles with each failed try, up to five minutes.
    """

    guest: str
    failures: int = 0
    error: str = ""
    _until: float = 0.0
    _pause: float = 0.0
    _trying: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def state(self, now: float) -> Circuit:
        """How it is at a moment."""
        if self.failures < FAILURES:
            return Circuit.CLOSED
        return Circuit.OPEN if now < self._until and not self._trying else Circuit.HALF_OPEN

    def enter(self, now: float) -> None:
        """Return when the guest may be tried now. :raises Unreachable: it is left alone, and why."""
        with self._lock:
            if self.failures < FAILURES:
                return
            if now < self._until or self._trying:
                wait = max(0.0, self._until - now)
                text = f"failed {self.failures} times, left alone for {wait:.0f} s more: {self.error}"
                raise Unreachable(text, subject=self.guest, hint=f"vmhost guest console {self.guest}", retryable=True)
            self._trying = True

    def connected(self) -> None:
        """Note that a try led to a connection. What it is worth, the first command shows: failures still count."""
        with self._lock:
            self._trying = False

    def succeeded(self) -> None:
        """Note that a command was answered."""
        with self._lock:
            self.failures, self.error, self._pause, self._trying = 0, "", 0.0, False

    def failed(self, now: float, error: str) -> None:
        """Note that it did not."""
        with self._lock:
            self.failures += 1
            self.error, self._trying = error, False
            if self.failures >= FAILURES:
                self._pause = min(LONGEST_PAUSE, max(FIRST_PAUSE, self._pause * 2))
                self._until = now + self._pause
