"""A form: fields with what is wrong with them beside, and the way to the plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.suggester import SuggestFromList
from textual.timer import Timer
from textual.widgets import Input, Label, Static

from vmhost.ops.formhelp import outcome_of
from vmhost.tui.keymap import bindings
from vmhost.tui.rows.cells import Line, Tone
from vmhost.tui.screens.asked import Asked
from vmhost.tui.screens.frame import Frame, styled
from vmhost.tui.screens.plan import PlanScreen
from vmhost.tui.widgets.entry import Entry

if TYPE_CHECKING:
    from vmhost.model.plan import Plan
    from vmhost.model.serviceplan import ServicePlan
    from vmhost.tui.changes import Change


PAUSE = 0.4
"""Seconds without a key after which a wish is tried out."""


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a form: its id, its label, what stands in it, what it means, and what may be meant by a beginning."""

    id: str
    label: str
    value: str
    words: str
    choices: tuple[str, ...] = ()


class FormScreen(Frame):
    """Fields, judged at every key by the same models as a site file."""

    DEFAULT_CSS = """
    FormScreen .field { height: 1; margin: 1 0 0 0; }
    FormScreen Label { width: 12; padding: 0 1; color: $primary; text-style: bold; }
    FormScreen Input { width: 32; height: 1; border: none; padding: 0 1; background: $panel; }
    FormScreen Input:focus { border: none; background: $row-cursor; }
    FormScreen .words { width: 1fr; padding: 0 1; text-wrap: nowrap; text-overflow: ellipsis; }
    FormScreen .fault { height: auto; padding: 0 1 0 13; display: none; }
    FormScreen .fault.shown { display: block; }
    FormScreen #verdict { height: auto; padding: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        *bindings("form"),
        # Before the field hears of it: what is typed right behind it, as over a slow line, belongs to the next field.
        Binding("tab", "app.focus_next", show=False, priority=True),
        Binding("shift+tab", "app.focus_previous", show=False, priority=True),
    ]
    AUTO_FOCUS = "Input"
    place = "form"

    def fields(self) -> Sequence[Field]:
        """Return the fields."""
        return ()

    def faults(self) -> dict[str, str]:
        """Return what is wrong, by field."""
        return {}

    def change(self) -> Change | None:
        """Return what is to be planned."""
        return None

    def trial(self) -> Callable[[], Plan] | None:
        """Return what plans the wish, only to know whether it can be met; called when nothing is wrong."""
        return None

    def room(self) -> Callable[[], Sequence[Line]] | None:
        """Return what says something of a wish that is not tried out as a plan, as whether it fits the ledger."""
        return None

    def __init__(self) -> None:
        super().__init__()
        self._tried = False
        self._trial = Asked(self, "", self._tried_out)
        self._values: tuple[str, ...] = ()
        self._pause: Timer | None = None

    def body(self) -> ComposeResult:
        with VerticalScroll(can_focus=False):
            for field in self.fields():
                with Horizontal(classes="field"):
                    yield Label(field.label)
                    yield Entry(field.value, id=field.id, suggester=_suggester(field), select_on_focus=False)
                    yield Static(styled([Line(field.words, Tone.DIM)]), id=f"words-{field.id}", classes="words")
                yield Static(id=f"fault-{field.id}", classes="fault")
            yield Static(id="verdict")

    def on_mount(self) -> None:
        super().on_mount()
        self._judge()

    def tell_anew(self, name: str) -> None:
        """Say what a field means and may be; what stands in it stays."""
        field = next(field for field in self.fields() if field.id == name)
        self.query_one(f"#words-{name}", Static).update(styled([Line(field.words, Tone.DIM)]))
        self.query_one(f"#{name}", Input).suggester = _suggester(field)
        self._judge()

    def value(self, field: str) -> str:
        """Return what stands in a field."""
        return self.query_one(f"#{field}", Input).value.strip()

    def on_input_changed(self) -> None:
        self._judge()

    def on_input_submitted(self) -> None:
        self.action_submit()

    def _judge(self) -> dict[str, str]:
        faults = self.faults()
        for field in self.fields():
            untouched = not self._tried and not self.value(field.id)
            text = "" if untouched else faults.get(field.id, "")
            place = self.query_one(f"#fault-{field.id}", Static)
            place.set_class(bool(text), "shown")
            place.update(styled([Line(f"{self.vmhost.signs.crashed} {text}", Tone.BAD)]))
        self._values = tuple(self.value(field.id) for field in self.fields())
        self._try_soon()
        self._show_verdict(faults)
        return faults

    def _try_soon(self) -> None:
        """Try the wish out when the person has stopped typing."""
        if self._pause is not None:
            self._pause.stop()
        self._pause = self.set_timer(PAUSE, self._try)

    def _try(self) -> None:
        trial = None if self.faults() else self.trial()
        ask = self.room() if trial is None else lambda: outcome_lines(trial)
        if ask is not None:
            values = self._values
            self._trial.ask((values,), lambda: [*ask(), Line("\n".join(values), Tone.DIM)])

    def _tried_out(self) -> None:
        self._show_verdict(self.faults())

    def _is_tried(self) -> bool:
        return bool(self._trial.lines) and self._trial.lines[-1].text == "\n".join(self._values)

    def _show_verdict(self, faults: dict[str, str]) -> None:
        ready = Line("ctrl+s or enter shows the plan; nothing is done before you say yes there", Tone.DIM)
        missing = Line(f"{len(faults)} to mend first", Tone.BAD)
        tried = self._trial.lines[:-1] if self._is_tried() else ()
        lines = [*tried, missing if faults else ready]
        self.query_one("#verdict", Static).update(styled(lines))

    def action_submit(self) -> None:
        """Go on to the plan, if nothing is wrong."""
        self._tried = True
        faults = self._judge()
        if faults:
            self.query_one(f"#{next(iter(faults))}", Input).focus()
            return
        change = self.change()
        if change is not None:
            self.app.switch_screen(PlanScreen(change))


def _suggester(field: Field) -> SuggestFromList | None:
    return SuggestFromList(field.choices, case_sensitive=False) if field.choices else None


def outcome_lines(plan: Callable[[], Plan | ServicePlan]) -> Sequence[Line]:
    """Return whether a wish can be met, and how, or why not."""
    good, words = outcome_of(plan)
    if good:
        return [Line(words, Tone.GOOD)]
    first, *more = words.splitlines()
    return [Line(f"it cannot be done: {first}", Tone.BAD), *(Line(f"  {line.strip()}", Tone.BAD) for line in more)]
