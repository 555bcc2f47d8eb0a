"""The terminal is too small for anything else."""

from __future__ import annotations

from typing import Final

from textual.app import ComposeResult
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Static

LEAST_WIDTH: Final = 60
LEAST_HEIGHT: Final = 15


class SmallScreen(Screen[None]):
    """Says so; goes away by itself when there is room."""

    DEFAULT_CSS = """
    SmallScreen { align: center middle; background: $background; }
    SmallScreen Static { width: 100%; height: auto; text-align: center; }
    """

    def compose(self) -> ComposeResult:
        yield Static(id="words")

    def on_mount(self) -> None:
        self._say()

    def on_resize(self) -> None:
        self._say()

    def _say(self) -> None:
        width, height = self.app.size
        needed = f"it needs {LEAST_WIDTH}x{LEAST_HEIGHT}"
        text = f"this terminal is too small: {width}x{height}\n{needed}\nmake it larger, or q quits"
        self.query_one("#words", Static).update(Content(text))
