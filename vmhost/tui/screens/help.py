"""The keys of a screen, from the key map."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen

from vmhost.tui.keymap import NO_OWN, Own, help_of
from vmhost.tui.rows.cells import Line, Tone
from vmhost.tui.widgets.lines import Lines

_WIDTH = 18


class HelpScreen(ModalScreen[None]):
    """An overlay; any of its keys closes it."""

    DEFAULT_CSS = """
    HelpScreen { align: center middle; background: $background 60%; }
    HelpScreen Vertical {
        width: 96%; max-width: 80; height: 90%; border: round $primary; background: $surface; padding: 0 1;
    }
    HelpScreen Lines { background: $surface; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,question_mark,enter", "dismiss(None)", show=False)]

    def __init__(self, place: str, own: Own = NO_OWN, complaints: Sequence[Line] = ()) -> None:
        super().__init__()
        self._place = place
        self._own = own
        self._complaints = complaints

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Lines()

    def on_mount(self) -> None:
        self.query_one(Vertical).border_title = f"keys: {self._place or 'everywhere'}"
        lines = self.query_one(Lines)
        lines.show([*self._complaints, *help_lines(self._place, self._own)])
        lines.focus()


def help_lines(place: str, own: Own = NO_OWN) -> Iterator[Line]:
    """Yield the help of a screen."""
    section = ""
    for where, keys, words in help_of(place, own):
        if where != section:
            if section:
                yield Line("")
            yield Line(where.upper(), Tone.LIVELY)
            section = where
        yield Line(f"  {keys:<{_WIDTH}}{words}")
