"""Which pictures of the interface are compared, and a picture as text: what it says, and below in which style.

A picture is a screen at a size, in a theme, of some data. Of any two of these every pair is in at least one picture.
What is written down is all that an SVG is made of, without the names in it that change from run to run: a difference
can be read, and an SVG to look at is made when there is one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Final, NamedTuple

from textual.app import App

from vmhost.tui import themes

SIZES: Final = ((80, 24), (120, 40), (200, 60))
DATA: Final = ("empty", "one", "many", "down", "hostile")
SCREENS: Final[Mapping[str, str]] = {
    "guests": "",
    "guest": "enter",
    "host": ":host",
    "network": ":net",
    "services": ":services",
    "protection": ":backup",
    "jobs": ":jobs",
    "plan": "S",
    "form": "n",
    "help": "question_mark",
    "columns": "C",
}
"""Every screen with the key or the command that leads there from the list of guests."""

NEEDS_A_GUEST: Final = frozenset({"guest", "plan"})


class Case(NamedTuple):
    """A picture to be taken."""

    data: str
    screen: str
    theme: str
    size: tuple[int, int]

    @property
    def name(self) -> str:
        """What its file is called."""
        return f"{self.data}-{self.screen}-{self.theme}-{self.size[0]}x{self.size[1]}"


def cases() -> Iterator[Case]:
    """Yield the pictures: every screen with all data; themes and sizes go round, each at its own pace."""
    for row, screen in enumerate(SCREENS):
        for column, data in enumerate(DATA):
            if data == "empty" and screen in NEEDS_A_GUEST:
                data = "one"
            theme = themes.NAMES[(row + column) % len(themes.NAMES)]
            yield Case(data, screen, theme, SIZES[(row + 2 * column) % len(SIZES)])


def painted(app: App[object]) -> str:
    """Return what is on the screen as text, and below the same with a letter for each style, by runs."""
    strips = app.screen._compositor.render_strips()
    letters: dict[str, str] = {}
    texts, styles = [], []
    for strip in strips:
        texts.append("".join(segment.text for segment in strip).rstrip())
        runs = groupby(strip, key=lambda segment: str(segment.style))
        line = []
        for style, segments in runs:
            letter = letters.setdefault(style, _letter(len(letters)))
            line.append(f"{letter}{sum(segment.cell_length for segment in segments)}")
        styles.append(" ".join(line))
    legend = [f"{letter} {style}" for style, letter in letters.items()]
    return "\n".join([*texts, "---", *styles, "---", *legend, ""])


def _letter(number: int) -> str:
    return chr(ord("a") + number) if number < 26 else f"{_letter(number // 26 - 1)}{_letter(number % 26)}"
