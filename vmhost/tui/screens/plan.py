"""The plan of any change: looked at, said yes to, and watched to its end on the same screen."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Final

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Static

from vmhost.model.errors import Cancelled, Conflict, VmhostError
from vmhost.model.serviceplan import ServicePlan
from vmhost.tui import errands
from vmhost.tui.keymap import bindings
from vmhost.tui.rows import plan as view
from vmhost.tui.rows.cells import Cell, Column, Line, Tone, cut, in_rows
from vmhost.tui.rows.errors import error_lines
from vmhost.tui.screens.frame import Frame, styled
from vmhost.tui.widgets.foot import Foot
from vmhost.tui.widgets.grid import Grid
from vmhost.tui.widgets.lines import Lines

if TYPE_CHECKING:
    from vmhost.model.events import Event
    from vmhost.model.outcome import Outcome
    from vmhost.model.serviceplan import ServiceOutcome
    from vmhost.ops.host import Host
    from vmhost.tui.changes import Change, Proposed

_HEAD: Final = 8
"""Lines above the steps; as the style sheet says."""

Ends = tuple["Outcome | ServiceOutcome | VmhostError", ...]


class Phase(StrEnum):
    """Where a change is."""

    PLANNING = "planning"
    SHOWN = "this is what would be done; nothing is done yet"
    EMPTY = "there is nothing to do"
    REFUSED = "this cannot be done"
    AT_WORK = "at work"
    ENDING = "ending as soon as this step allows"
    DONE = "done"
    FAILED = "failed"


class PlanScreen(Frame):
    """The plan of a change."""

    DEFAULT_CSS = """
    PlanScreen #what {
        height: auto; max-height: 8; padding: 0 1; background: $surface; text-wrap: nowrap; text-overflow: ellipsis;
    }
    PlanScreen #steps { height: 3fr; }
    PlanScreen #about { height: 2fr; border-top: solid $primary; padding: 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        *bindings("plan"),
        *(Binding(key, f"option({key!r})", show=False) for key in ("p", "x", "b")),
    ]
    AUTO_FOCUS = "#steps"
    place = "plan"

    def __init__(self, change: Change) -> None:
        super().__init__()
        self._change = change
        self._chosen: frozenset[str] = frozenset()
        self._phase = Phase.PLANNING
        self._proposals: tuple[Proposed, ...] = ()
        self._rows: tuple[view.StepRow, ...] = ()
        self._numbers: dict[str, int] = {}
        self._log: list[Line] = []
        self._words: list[Line] = []
        self._harm: list[Line] = []
        self._show_log = False
        self._asked_to_end = threading.Event()
        self._turn = 0
        self._planning = self._wished_again = False

    def body(self) -> ComposeResult:
        yield Static(id="what")
        yield Grid(view.COLUMNS, self._cells, self.vmhost.signs, id="steps")
        yield Lines(id="about")

    def on_mount(self) -> None:
        super().on_mount()
        self.action_again()

    def on_resize(self) -> None:
        if self.is_mounted:
            self._tell()

    def title_of_place(self) -> str:
        return self._change.title

    # --- planning ---------------------------------------------------------------------------------------------------

    def action_again(self) -> None:
        """Plan again; while that is being done, once more after it."""
        if self._busy():
            return
        self._turn += 1
        self._phase, self._words, self._harm = Phase.PLANNING, [], []
        self._log, self._show_log = [], False
        self._set_rows(())
        self._wished_again = self._planning
        if not self._planning:
            self._plan()
        self._tell()

    def _plan(self) -> None:
        # One at a time: to plan may have a guest fetch its lists of packages, or ask a person for a secret.
        self._planning = True
        host, change, chosen, turn = self.vmhost.host, self._change, self._chosen, self._turn
        errands.send(
            self,
            lambda: change.propose(host, chosen),
            lambda found: self._planned(turn, found),
            lambda error: self._refused(turn, error),
            "plan",
        )

    def _is_current(self, turn: int) -> bool:
        """Whether an answer is that of the last wish; where it is not, that is planned now."""
        self._planning = False
        if self._wished_again:
            self._wished_again = False
            self._plan()
        return turn == self._turn

    def _planned(self, turn: int, proposals: tuple[Proposed, ...]) -> None:
        if not self._is_current(turn):
            return
        self._proposals = proposals
        plans = [proposal.plan for proposal in proposals]
        self._phase = Phase.EMPTY if all(plan.empty for plan in plans) else Phase.SHOWN
        self._words = [Line(f"note: {note.subject}: {note.text}", Tone.DIM) for plan in plans for note in plan.notes]
        harm = view.harm_of(plans)
        if harm:
            self._harm = [Line(f"{self.vmhost.signs.warning} {harm}", Tone.WARN)]
        self._set_rows(view.rows_of(plans))
        if any(row.late for row in self._rows):
            self._words.append(Line("* behind the commit point: a failure is reported, not undone", Tone.DIM))
        self._tell()

    def _refused(self, turn: int, error: VmhostError) -> None:
        if not self._is_current(turn):
            return
        self._phase, self._proposals = Phase.REFUSED, ()
        self._log = error_lines(error)
        self._show_log = True
        self._tell()

    def action_option(self, key: str) -> None:
        """Permit something besides, or no longer, and plan again."""
        option = next((option for option in self._change.options if option.key == key), None)
        if option is not None and not self._busy() and self._phase not in (Phase.DONE, Phase.FAILED):
            self._chosen ^= {option.flag}
            self.action_again()

    # --- applying ---------------------------------------------------------------------------------------------------

    def action_apply(self) -> None:
        """Apply the plan that is shown."""
        if self._phase is not Phase.SHOWN:
            return
        self._phase, self._words, self._harm = Phase.AT_WORK, [], []
        self._log, self._show_log = [], True
        self._asked_to_end.clear()
        self.vmhost.at_work += 1
        work = partial(_apply_all, self.vmhost.host, self._proposals, self._hear, self._asked_to_end.is_set)
        errands.send(self.vmhost, work, self._ended, self._broke, "apply")
        self._tell()

    def _hear(self, part: int, event: Event) -> None:
        """Take an event, in the thread that applies; it waits in the same queue as the end."""
        self.vmhost.tell(errands.Answer(self, lambda: self._told(part, event)))

    def _told(self, part: int, event: Event) -> None:
        self._rows = view.after_event(self._rows, part, event)
        line = view.event_line(event)
        if line is not None:
            self._log.append(line)
        self._tell()

    def _ended(self, ends: Ends) -> None:
        self.vmhost.at_work -= 1
        self.vmhost.wake()
        errors = [end for end in ends if isinstance(end, VmhostError)]
        self._phase = Phase.FAILED if errors else Phase.DONE
        for part, end in enumerate(ends):
            if isinstance(end, VmhostError):
                self._log += [Line(""), *error_lines(end)]
                continue
            self._rows = view.after_end(self._rows, part)
            if end.done:
                self._log += [Line(text, Tone.GOOD) for text in str(end).splitlines()]
        if not errors and self._change.afterwards:
            self._words = [Line(self._change.afterwards, Tone.LIVELY)]
        if any(isinstance(error, Conflict) for error in errors):
            self._words = [Line("nothing was done to it: r plans again from what is there now", Tone.WARN)]
        if self.is_attached:
            self._tell()
        else:
            self.vmhost.notify(f"{self._change.title}: {self._phase}", markup=False)

    def _broke(self, error: VmhostError) -> None:
        self._ended((error,))

    def action_back(self) -> None:
        """Go back; while it runs: ask it to end."""
        if self._phase is Phase.AT_WORK:
            self._asked_to_end.set()
            self._phase = Phase.ENDING
            self._tell()
        elif self._phase is not Phase.ENDING:
            self._turn += 1
            self._wished_again = False
            super().action_back()

    def _busy(self) -> bool:
        return self._phase in (Phase.AT_WORK, Phase.ENDING)

    # --- showing ----------------------------------------------------------------------------------------------------

    def _set_rows(self, rows: tuple[view.StepRow, ...]) -> None:
        self._rows = rows
        self._numbers = {row.key: number for number, row in enumerate(rows, 1)}

    def _tell(self) -> None:
        self.query_one("#what", Static).update(styled(self._head()))
        self.query_one("#steps", Grid).show(tuple(row.key for row in self._rows))
        about = self.query_one("#about", Lines)
        about.follow = self._show_log
        about.show(self._log if self._show_log else self._about_step())
        self.query_one(Foot).fit()

    def _head(self) -> list[Line]:
        tones = {Phase.DONE: Tone.GOOD, Phase.FAILED: Tone.BAD, Phase.REFUSED: Tone.BAD}
        width, phase = max(20, self.size.width - 2), str(self._phase)
        if self._phase is Phase.ENDING and not any(isinstance(item.plan, ServicePlan) for item in self._proposals):
            phase += ", then undoing"
        title = cut(self._change.title, width - len(phase) - 2)
        lines = [Line(f"{title}: {phase}", tones.get(self._phase, Tone.LIVELY)), *self._harm]
        lines += [Line(part) for part in in_rows(f"$ {self._change.command(self._chosen)}", width, 2)]
        if not self._busy() and self._phase not in (Phase.DONE, Phase.FAILED):
            for option in self._change.options:
                sign = "[x]" if option.flag in self._chosen else "[ ]"
                lines.append(Line(f"{sign} {option.key}  {option.words}  ({option.flag})"))
        lines += self._words
        return lines if len(lines) <= _HEAD else [*lines[: _HEAD - 1], Line(f"and {len(lines) - _HEAD + 1} more")]

    def _about_step(self) -> Sequence[Line]:
        picture, key = self.vmhost.picture, self.query_one("#steps", Grid).key
        row = next((row for row in self._rows if row.key == key), None)
        if row is None or picture is None:
            return [Line(str(self._phase), Tone.DIM)]
        return view.step_lines(row, picture.observed)

    def _cells(self, key: str, columns: Sequence[Column]) -> tuple[Cell, ...]:
        row = next(row for row in self._rows if row.key == key)
        return view.step_cells(row, self._numbers[key], columns, self.vmhost.signs)

    def on_grid_moved(self) -> None:
        if not self._show_log:
            self.query_one("#about", Lines).show(self._about_step())

    def on_grid_opened(self) -> None:
        self.query_one("#about", Lines).focus()

    def action_swap(self) -> None:
        """Show the step under the cursor, or the log."""
        self._show_log = not self._show_log and bool(self._log)
        self._tell()

    def action_copy(self) -> None:
        """Copy the command that does the same."""
        command = self._change.command(self._chosen)
        self.app.copy_to_clipboard(command)
        self.app.notify(f"copied: {command}", markup=False)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "apply":
            return self._phase is Phase.SHOWN
        return True


def _apply_all(
    host: Host,
    proposals: Sequence[Proposed],
    hear: Callable[[int, Event], None],
    cancelled: Callable[[], bool],
) -> Ends:
    """Apply proposals one after another; one that fails does not stop the others, being asked to end does."""
    ends: list[Outcome | ServiceOutcome | VmhostError] = []
    for part, proposal in enumerate(proposals):
        if cancelled():
            ends.append(Cancelled("not begun: it was asked to end", subject=proposal.operation))
            continue
        try:
            ends.append(_apply(host, proposal, partial(hear, part), cancelled))
        except VmhostError as error:
            ends.append(error)
    return tuple(ends)


def _apply(
    host: Host, proposal: Proposed, hear: Callable[[Event], None], cancelled: Callable[[], bool]
) -> Outcome | ServiceOutcome:
    from vmhost.ops.serviceproposals import ServiceProposal

    if isinstance(proposal, ServiceProposal):
        return proposal.carry_out(host, on_event=hear, cancelled=cancelled)
    return host.apply(proposal, on_event=hear, cancelled=cancelled)
