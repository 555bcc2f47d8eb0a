"""Long operations of all processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from vmhost.tui import errands
from vmhost.tui.keymap import bindings
from vmhost.tui.rows.cells import Cell, Column, Line, Tone
from vmhost.tui.rows.errors import error_lines
from vmhost.tui.rows.jobs import COLUMNS, job_cells, log_lines
from vmhost.tui.screens.frame import Frame
from vmhost.tui.widgets.grid import Grid
from vmhost.tui.widgets.lines import Lines

if TYPE_CHECKING:
    from vmhost.model.errors import VmhostError
    from vmhost.model.outcome import JobRecord
    from vmhost.ops.watch import Picture

_EVERY = 1.0
_LIMIT = 200


class JobsScreen(Frame):
    """Running and past jobs, and the log of the one under the cursor."""

    DEFAULT_CSS = """
    JobsScreen #jobs { height: 3fr; }
    JobsScreen #log { height: 2fr; border-top: solid $primary; padding: 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [*bindings("jobs"), Binding("escape", "back", show=False)]
    AUTO_FOCUS = "#jobs"
    place = "jobs"

    def __init__(self) -> None:
        super().__init__()
        self._jobs: dict[str, JobRecord] = {}
        self._now = 0.0
        self._reading = False
        self._asked_to_end = ""

    def body(self) -> ComposeResult:
        yield Grid(COLUMNS, self._cells, self.vmhost.signs, id="jobs")
        yield Lines(id="log", follow=True)

    def on_mount(self) -> None:
        super().on_mount()
        self.set_interval(_EVERY, self._read)
        self._read()

    def show(self, picture: Picture) -> None:
        self._read()

    def _read(self) -> None:
        """Read the jobs, and the log of one of them, in a thread; one reading at a time."""
        if self._reading:
            return
        self._reading = True
        host, key = self.vmhost.host, self.query_one("#jobs", Grid).key

        def read() -> tuple[tuple[JobRecord, ...], str | None, tuple[str, ...], float]:
            jobs = host.jobs(limit=_LIMIT)
            wanted = key or (jobs[0].id if jobs else None)
            return jobs, wanted, host.job_log(wanted) if wanted else (), host.ledger.clock.now()

        errands.send(self, read, self._read_done, self._failed, "jobs")

    def _read_done(self, found: tuple[tuple[JobRecord, ...], str | None, tuple[str, ...], float]) -> None:
        jobs, wanted, lines, self._now = found
        self._reading = False
        self._jobs = {job.id: job for job in jobs}
        grid = self.query_one("#jobs", Grid)
        grid.show(tuple(self._jobs))
        self._say_what_was_asked()
        if wanted in self._jobs and wanted == grid.key:
            self.query_one("#log", Lines).show(log_lines(self._jobs[wanted], lines))

    def _failed(self, error: VmhostError) -> None:
        self._reading = False
        self.query_one("#log", Lines).show(error_lines(error))

    def _cells(self, key: str, columns: Sequence[Column]) -> tuple[Cell, ...]:
        return job_cells(self._jobs[key], self._now, columns, self.vmhost.signs)

    def on_grid_moved(self) -> None:
        self.query_one("#log", Lines).show([Line("reading", Tone.DIM)])
        self._read()

    def on_grid_opened(self) -> None:
        self.action_open_job()

    def action_open_job(self) -> None:
        """Look at the log."""
        self.query_one("#log", Lines).focus()

    def action_back(self) -> None:
        """Leave the log, then the screen."""
        grid = self.query_one("#jobs", Grid)
        if grid.has_focus:
            super().action_back()
        else:
            grid.focus()

    def action_cancel_job(self) -> None:
        """Ask the job under the cursor to end."""
        key, host = self.query_one("#jobs", Grid).key, self.vmhost.host
        if key is not None:
            errands.send(self, lambda: host.cancel_job(key), self._cancelled, self.vmhost.tell_error, "cancel")

    def _cancelled(self, job: JobRecord) -> None:
        self._asked_to_end = job.id
        self._say_what_was_asked()

    def _say_what_was_asked(self) -> None:
        """Say that a job was asked to end for as long as it goes on."""
        job = self._jobs.get(self._asked_to_end)
        if job is not None and job.state == "running":
            self.say(f"{job.id} was asked to end: it ends its step, then undoes what it did", Tone.WARN)
        else:
            self.say("" if self._jobs else "no operation has been recorded yet")
