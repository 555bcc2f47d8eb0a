"""The command line behind ``:``."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen
from textual.suggester import SuggestFromList
from textual.widgets import Input

from vmhost.tui.widgets.entry import Entry

COMMANDS = (
    *("guests", "host", "net", "jobs", "new", "help", "q"),
    *("theme dark", "theme light", "theme contrast", "theme ansi", "theme ansi-light"),
)


class CommandLine(ModalScreen[str | None]):
    """One line at the bottom; its answer is what was typed, or None."""

    DEFAULT_CSS = """
    CommandLine { align: left bottom; background: $background 0%; }
    CommandLine Input { height: 1; padding: 0 1; background: $panel; width: 100%; }
    CommandLine Input, CommandLine Input:focus { border: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", show=False)]

    def __init__(self) -> None:
        super().__init__()
        self._early = ""

    def take(self, character: str) -> None:
        """Take a letter that was typed before the line had the focus."""
        found = self.query(Input)
        if found and self.focused is not None:
            found.first().insert_text_at_cursor(character)
        else:
            self._early += character

    def compose(self) -> ComposeResult:
        yield Entry(":", suggester=SuggestFromList([f":{name}" for name in COMMANDS]), select_on_focus=False)

    def on_mount(self) -> None:
        line = self.query_one(Input)
        line.value = f":{self._early}"
        line.cursor_position = len(line.value)
        self.set_focus(line)

    def on_input_changed(self, event: Input.Changed) -> None:
        if not event.value:  # the colon was taken away
            self.dismiss(None)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self.dismiss(event.value)
