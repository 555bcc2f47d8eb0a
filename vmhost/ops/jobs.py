"""Long operations as jobs: seen by other processes, cancelled from there, kept in the history."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Protocol

from vmhost.model.errors import Cancelled, NotFound, Refused
from vmhost.model.events import Event, Notice, Progress, StepDone, StepFailed, StepStarted, Undone, Waiting
from vmhost.model.outcome import JobRecord
from vmhost.ops.build import user_name
from vmhost.ports import Clock, Entropy, History

CHECK_EVERY = 0.5


class Ledger(Protocol):
    """Where jobs are written down: :class:`vmhost.ports.Ports`, or the builder of them where libvirt is not needed."""

    @property
    def history(self) -> History: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def entropy(self) -> Entropy: ...


class Job:
    """One long operation: use it as a context manager; hand :meth:`tell` and :meth:`cancelled` to the engine."""

    def __init__(
        self,
        ledger: Ledger,
        kind: str,
        subject: str,
        on_event: Callable[[Event], None] | None,
        cancelled: Callable[[], bool] | None,
    ) -> None:
        self._history = ledger.history
        self._clock = ledger.clock
        self._listener = on_event
        self._asked = cancelled
        self._looked = 0.0
        self._progressed = float("-inf")
        self._line = ""
        self._ended = False
        self._failure: BaseException | None = None
        now = ledger.clock.now()
        self.id = f"{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%S}-{ledger.entropy.uuid()[:6]}"
        self.record = JobRecord(self.id, kind, subject, "running", now, pid=os.getpid(), user=user_name())

    def __enter__(self) -> Job:
        self._history.start(self.record)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        error = error or self._failure
        state = (
            "done" if error is None else "cancelled" if isinstance(error, Cancelled | KeyboardInterrupt) else "failed"
        )
        self._history.end(self.id, state=state, error=str(error) if error else "")

    def fail(self, error: BaseException) -> None:
        """Let it end as failed although nothing is raised: the caller has the error in its results."""
        self._failure = error

    def tell(self, event: Event) -> None:
        """Pass an event on, and keep its sentence and the progress in the history.

        Copiers and hashes tell of every few MiB: of that the history gets a line for each that is new, and else a word
        twice a second.
        """
        if self._listener is not None:
            self._listener(event)
        line, done, total, rate = described(event)
        if isinstance(event, Progress):
            now = self._clock.monotonic()
            if line == self._line and now - self._progressed < CHECK_EVERY and done < total:
                return
            self._progressed = now
        new = line != self._line or not isinstance(event, Progress)
        self._line = line
        if new and total and not rate:
            self._history.step(self.id, line, done=done, total=total)
            return
        if new:
            self._history.log(self.id, line)
        if total:
            self._history.update(self.id, progress=line, done=done, total=total, rate=rate)

    def cancelled(self) -> bool:
        """Whether the caller or another process wants the job to end; the history is asked at most twice a second."""
        if self._ended or (self._asked and self._asked()):
            return True
        now = self._clock.monotonic()
        if now - self._looked >= CHECK_EVERY:
            self._looked = now
            self._ended = self._history.cancelled(self.id)
        return self._ended


def described(event: Event) -> tuple[str, float, float, float]:
    """Return an event's sentence, and how far the work is: done, total (0: unknown) and rate a second."""
    match event:
        case StepStarted(number, total, _, why):
            return why, number - 1, total, 0
        case StepDone(number, total, _, why, seconds):
            return f"{why}: done in {seconds:.2f} s", number, total, 0
        case StepFailed(number, total, _, why, error):
            return f"{why}: failed: {error}", number - 1, total, 0
        case Undone(_, why, error):
            return f"undo {why}: {error or 'done'}", 0, 0, 0
        case Waiting(subject, seen):
            return f"{subject}: {seen}", 0, 0, 0
        case Progress(subject, text, done, total, rate):
            return f"{subject}: {text}", done, total, rate
        case Notice(subject, text):
            return f"{subject}: {text}", 0, 0, 0


def find_job(history: History, id: str) -> JobRecord:  # noqa: A002 - what it is
    """Return the job of that id, or of the only id that begins so.

    :raises NotFound: there is none, or more than one.
    """
    found = [job for job in history.jobs(limit=1000) if job.id.startswith(id)]
    if len(found) == 1:
        return found[0]
    text = "there is no such job" if not found else f"{len(found)} jobs begin so"
    raise NotFound(text, subject=id, hint="vmhost job list")


def cancel_job(history: History, id: str) -> JobRecord:  # noqa: A002 - what it is
    """Ask a running job to end; it undoes its steps and reports.

    :raises NotFound: no such job; :raises Refused: it does not run any more.
    """
    job = find_job(history, id)
    if job.state != "running":
        raise Refused(f"this job is {job.state}", subject=job.id, hint=f"vmhost job show {job.id}")
    history.cancel(job.id)
    return job
