"""What vmhost writes down of its own work, and reads again. The same rules as in :mod:`vmhost.ports` hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from vmhost.model.drills import DrillRecord
    from vmhost.model.outcome import JobRecord
    from vmhost.model.services import KeptLook


class History(Protocol):
    """Jobs, running and past; drills; what probes of services saw."""

    def start(self, record: JobRecord) -> None: ...
    def update(self, id: str, *, progress: str, done: float, total: float, rate: float) -> None: ...  # noqa: A002
    def end(self, id: str, *, state: str, error: str) -> None: ...  # noqa: A002
    def cancel(self, id: str) -> None: ...  # noqa: A002
    def cancelled(self, id: str) -> bool: ...  # noqa: A002
    def log(self, id: str, line: str) -> None: ...  # noqa: A002
    def step(self, id: str, line: str, *, done: float, total: float) -> None:  # noqa: A002
        """:meth:`log` and :meth:`update` at once: the line is the progress, too."""

    def lines(self, id: str) -> tuple[str, ...]: ...  # noqa: A002
    def jobs(self, *, limit: int = 100) -> tuple[JobRecord, ...]: ...
    def drilled(self, record: DrillRecord) -> None:
        """Note what became of a drill."""

    def drills(self) -> tuple[DrillRecord, ...]:
        """All drills that are kept, the oldest first."""

    def looked(self, looks: Sequence[KeptLook]) -> None:
        """Keep looks of probes; the newest of each probe are kept."""

    def looks(self, guest: str = "", service: str = "") -> tuple[KeptLook, ...]:
        """All looks that are kept, or those of a service in a guest (UUID), probe by probe, the oldest first."""

    def last_looks(self, since: float) -> tuple[KeptLook, ...]:
        """The newest look of each probe, of those that were made since a time (epoch)."""
