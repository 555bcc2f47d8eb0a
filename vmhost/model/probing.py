"""What a probe asks over HTTP, and what came back."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class HttpAsk:
    """A request: ``host`` is the name that is asked for, ``verify`` whether the certificate must be trusted here."""

    port: int
    path: str = "/"
    tls: bool = False
    host: str = ""
    verify: bool = False


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """An answer: ``body`` is its beginning, at most 64 KiB; ``days`` for which the certificate still holds."""

    status: int
    body: bytes = field(repr=False)
    days: float | None = None
