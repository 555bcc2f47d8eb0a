"""What was done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vmhost.model.plan import Plan


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of an apply.

    ``done`` holds the sentences of the steps that were done; ``seconds`` the time from the call to the commit point and
    ``total_seconds`` to the end. ``verdicts`` maps guests to cloud-init's verdict (``done``, ``degraded``),
    ``told`` to what else is worth telling of them (``snapshot of level filesystem``).
    """

    plan: Plan
    done: tuple[str, ...] = ()
    seconds: float = 0.0
    total_seconds: float = 0.0
    verdicts: tuple[tuple[str, str], ...] = ()
    told: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        if not self.done:
            return f"{self.plan.site}: nothing to do"
        told = (*((guest, f"cloud-init {verdict}") for guest, verdict in self.verdicts), *self.told)
        steps = f"{len(self.done)} step{'' if len(self.done) == 1 else 's'}"
        where = f"{self.plan.site}: " if self.plan.site else ""
        return (
            f"{where}{steps} done in {self.total_seconds:.1f} s{''.join(f'; {guest}: {text}' for guest, text in told)}"
        )


JobState = Literal["running", "done", "failed", "cancelled", "interrupted"]


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A long operation: running or past. Times are seconds since the epoch (UTC); ``ended`` 0 while it runs."""

    id: str
    kind: str
    subject: str
    state: JobState
    started: float
    ended: float = 0.0
    pid: int = 0
    user: str = ""
    progress: str = ""
    done: float = 0.0
    total: float = 0.0
    rate: float = 0.0
    error: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that ``vmhost host doctor`` found; ``mend`` is the command that mends it, or empty."""

    id: str
    area: str
    severity: Literal["ok", "info", "warning", "error"]
    title: str
    why: str = ""
    mend: str = ""
