"""Work that changes neither guests nor points: looked at, begun by a yes, and watched, or left to itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar, Final

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.widgets import Static

from vmhost.model.errors import Cancelled
from vmhost.model.events import Progress
from vmhost.tui import errands
from vmhost.tui.keymap import bindings
from vmhost.tui.rows.cells import Line, Tone
from vmhost.tui.rows.errors import error_lines
from vmhost.tui.rows.plan import event_line
from vmhost.tui.rows.work import progress_line
from vmhost.tui.screens.frame import Frame, styled
from vmhost.tui.widgets.foot import Foot
from vmhost.tui.widgets.lines import Lines

if TYPE_CHECKING:
    from vmhost.model.errors import VmhostError
    from vmhost.model.events import Event
    from vmhost.tui.guarding import Work

End = tuple[Sequence[Line], "VmhostError | None"]


class Phase(StrEnum):
    """Where work is."""

    LOOKING = "looking"
    SHOWN = "this is what would be done; y begins"
    REFUSED = "this cannot be done"
    AT_WORK = "at work; esc leaves it to itself"
    ENDING = "ending"
    DONE = "done"
    ENDED = "ended early, as it was asked to"
    FAILED = "failed"


TOLD_AGAIN: Final = 0.15
"""Seconds between two words of how far work is: blocks are read much faster than anybody looks."""

_BUSY = (Phase.AT_WORK, Phase.ENDING)
_TONES = {Phase.DONE: Tone.GOOD, Phase.FAILED: Tone.BAD, Phase.REFUSED: Tone.BAD, Phase.ENDED: Tone.WARN}


class WorkScreen(Frame):
    """Work, as a job that others see too. Whoever leaves its screen is told how it ended."""

    DEFAULT_CSS = """
    WorkScreen #what { height: auto; max-height: 5; padding: 0 1; background: $surface; }
    WorkScreen #log { padding: 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [*bindings("work")]
    AUTO_FOCUS = "#log"
    place = "work"

    def __init__(self, work: Work) -> None:
        super().__init__()
        self._work = work
        self._phase = Phase.LOOKING
        self._lines: list[Line] = []
        self._progress: Progress | None = None
        self._began = 0.0
        self._turn = 0
        self._asked_to_end = threading.Event()

    def body(self) -> ComposeResult:
        yield Static(id="what")
        yield Lines(id="log")

    def on_mount(self) -> None:
        super().on_mount()
        self.action_again()

    def title_of_place(self) -> str:
        return self._work.title

    def action_again(self) -> None:
        """Look again at what would be done."""
        if self._phase in _BUSY:
            return
        self._phase, self._lines, self._progress = Phase.LOOKING, [], None
        self._turn += 1
        host, work, turn = self.vmhost.host, self._work, self._turn
        errands.send(
            self,
            lambda: work.look(host),
            lambda lines: self._looked(turn, Phase.SHOWN, lines),
            lambda error: self._looked(turn, Phase.REFUSED, error_lines(error)),
            "look",
        )
        self._tell()

    def _looked(self, turn: int, phase: Phase, lines: Sequence[Line]) -> None:
        """Take what a look brought, unless another was asked for, or the work begun, since."""
        if turn == self._turn:
            self._phase, self._lines = phase, list(lines)
            self._tell()

    def action_begin(self) -> None:
        """Begin."""
        if self._phase is not Phase.SHOWN:
            return
        self._turn += 1
        self._phase, self._lines, self._progress, self._began = Phase.AT_WORK, [], None, time.monotonic()
        self._asked_to_end.clear()
        app, work, ends = self.vmhost, self._work, self._asked_to_end.is_set
        app.beside += 1
        app.undoing += work.undoes
        told = 0.0

        def hear(event: Event) -> None:
            """Take an event, in the thread that works, though this screen may be gone by then."""
            nonlocal told
            if isinstance(event, Progress):
                now = time.monotonic()
                if now - told < TOLD_AGAIN:
                    return
                told = now
            app.tell(errands.Answer(self, lambda: self._told(event)))

        errands.send(app, lambda: work.carry_out(app.host, hear, ends), self._ended, self._broke, "work")
        self._tell()

    def _told(self, event: Event) -> None:
        if isinstance(event, Progress):
            self._progress = event
        elif (line := event_line(event)) is not None:
            self._lines.append(line)
        self._tell()

    def _ended(self, end: End) -> None:
        lines, error = end
        self.vmhost.beside -= 1
        self.vmhost.undoing -= self._work.undoes
        self._progress = None
        self._phase = Phase.DONE if error is None else Phase.ENDED if isinstance(error, Cancelled) else Phase.FAILED
        self._lines += [*([Line("")] if self._lines else []), *lines]
        if error is not None:
            self._lines += error_lines(error)
        if self.is_attached and self.display:  # else its widgets are gone, or going
            self._tell()
        elif error is None:
            self.vmhost.notify(f"{self._work.title}: {self._phase}", markup=False)
        else:
            text = f"{self._work.title}: {self._phase}: {' '.join(str(error).splitlines())}"
            self.vmhost.notify(f"{text}\n:jobs has what it said", severity="error", timeout=15, markup=False)

    def _broke(self, error: VmhostError) -> None:
        self._ended(((), error))

    def action_end(self) -> None:
        """Ask it to end."""
        if self._phase is Phase.AT_WORK:
            self._asked_to_end.set()
            self._phase = Phase.ENDING
            self._tell()

    def action_copy(self) -> None:
        """Copy the command that does the same."""
        self.app.copy_to_clipboard(self._work.command)
        self.app.notify(f"copied: {self._work.command}", markup=False)

    def _tell(self) -> None:
        lines = [Line(f"{self._work.title}: {self._phase}", _TONES.get(self._phase, Tone.LIVELY))]
        lines.append(Line(f"$ {self._work.command}"))
        if self._phase in _BUSY:
            lines.append(progress_line(self._progress, time.monotonic() - self._began, self.vmhost.signs))
        self.query_one("#what", Static).update(styled(lines))
        log = self.query_one("#log", Lines)
        log.follow = self._phase not in (Phase.LOOKING, Phase.SHOWN, Phase.REFUSED)
        log.show(self._lines)
        self.query_one(Foot).fit()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        match action:
            case "begin":
                return self._phase is Phase.SHOWN
            case "end":
                return self._phase is Phase.AT_WORK
            case _:
                return True
