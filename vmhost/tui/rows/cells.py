"""Cells, columns and how numbers are written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, NamedTuple

from rich.cells import cell_len, chop_cells, set_cell_size

from vmhost.model.text import sanitize

LONGEST: Final = 4096
"""Longer texts are cut before anything else is done with them: a guest may print a line of megabytes."""

_UNICODE: Final = "▁▂▃▄▅▆▇█"
_ASCII: Final = "_.-=+*#@"


class Tone(StrEnum):
    """What a text is; a theme gives it its colour, and it can always be told without."""

    PLAIN = "plain"
    DIM = "dim"
    GOOD = "good"
    WARN = "warn"
    BAD = "bad"
    LIVELY = "lively"


class Cell(NamedTuple):
    """A text that is safe for a terminal, and its tone."""

    text: str = ""
    tone: Tone = Tone.PLAIN


class Line(NamedTuple):
    """A line of a text, raw: the widget that shows it makes it safe."""

    text: str
    tone: Tone = Tone.PLAIN


@dataclass(frozen=True, slots=True)
class Column:
    """A column of fixed width; those with ``grows`` take what is left over, the lowest number first, up to ``widest``.

    ``rank``: the higher, the sooner it goes when the screen is narrow. ``right``: aligned to the right.
    """

    id: str
    title: str
    width: int
    rank: int = 0
    right: bool = False
    grows: int = 0
    widest: int = 0


@dataclass(frozen=True, slots=True)
class Signs:
    """The characters that stand for states; a terminal without Unicode gets others."""

    running: str = "●"
    off: str = "○"
    paused: str = "◐"
    crashed: str = "✗"
    closing: str = "◌"
    cursor: str = "▸"
    mark: str = "✓"
    up: str = "▲"
    down: str = "▼"
    warning: str = "⚠"
    ramp: str = _UNICODE
    rule: str = "─"


UNICODE: Final = Signs()
ASCII: Final = Signs("*", "o", "=", "x", "~", ">", "+", "^", "v", "!", _ASCII, "-")


def cell(text: object, tone: Tone = Tone.PLAIN) -> Cell:
    """Return a cell of any text, made safe."""
    return Cell(sanitize(str(text)[:LONGEST]), tone)


def cut(text: str, width: int) -> str:
    """Return a text, made safe, that is at most so wide; what has no room is three dots."""
    safe = sanitize(text[:LONGEST])
    return safe if cell_len(safe) <= width else f"{set_cell_size(safe, max(0, width - 3))}..."


def in_rows(text: str, width: int, most: int) -> list[str]:
    """Return a text, made safe, as rows that are filled; what has no room in so many is three dots."""
    rows = chop_cells(sanitize(text[:LONGEST]), width)
    return rows if len(rows) <= most else [*rows[: most - 1], cut("".join(rows[most - 1 : most + 1]), width)]


def fit(columns: Sequence[Column], width: int, gap: int = 1) -> tuple[Column, ...]:
    """Return the columns that have room, in their order; those that grow are made as wide as possible."""
    chosen = list(columns)
    while len(chosen) > 1 and _needed(chosen, gap) > width:
        chosen.remove(max(chosen, key=lambda column: column.rank))
    left = max(0, width - _needed(chosen, gap))
    wide = {column.id: column.width for column in chosen}
    for column in sorted((column for column in chosen if column.grows), key=lambda column: column.grows):
        more = min(left, max(0, column.widest - column.width))
        wide[column.id] += more
        left -= more
    return tuple(replace(column, width=wide[column.id]) for column in chosen)


def _needed(columns: Sequence[Column], gap: int) -> int:
    return sum(column.width for column in columns) + gap * (len(columns) - 1)


def spark(values: Sequence[float | None], width: int, signs: Signs, top: float = 0.0) -> str:
    """Return the last values as a row of bars, with a gap where one is not known.

    :param top: what fills a bar, 0: the largest of them.
    """
    shown = values[-width:]
    largest = top or max((value for value in shown if value is not None), default=0.0)
    steps = len(signs.ramp) - 1 if largest > 0 else 0
    scale = steps / largest if largest > 0 else 0.0
    bars = (" " if value is None else signs.ramp[min(steps, max(0, round(value * scale)))] for value in shown)
    return "".join(bars).rjust(width)


def size(count: float) -> str:
    """Return bytes in at most five characters: ``1.2G``, ``512M``, ``0``."""
    for unit, power in (("P", 5), ("T", 4), ("G", 3), ("M", 2), ("K", 1)):
        whole = 1024.0**power
        if count >= whole * 0.9995:
            value = count / whole
            return f"{value:.1f}{unit}" if value < 9.95 and value % 1 >= 0.05 else f"{value:.0f}{unit}"
    return f"{count:.0f}"


def rate(count: float | None) -> str:
    """Return bytes a second in at most seven characters; ``-`` for less than one, ``?`` for what is not known."""
    if count is None:
        return "?"
    return f"{size(count)}/s" if count >= 1 else "-"


def share(part: float, whole: float) -> str:
    """Return a share in per cent, or ``-`` where there is no whole."""
    return f"{100 * part / whole:.0f}%" if whole > 0 else "-"


def weight(part: float, whole: float, *, warn: float = 0.7, bad: float = 0.9) -> Tone:
    """Return the tone of a share."""
    if whole <= 0 or part < warn * whole:
        return Tone.PLAIN
    return Tone.BAD if part >= bad * whole else Tone.WARN


def span(seconds: float) -> str:
    """Return a time in few characters: ``12s``, ``3m``, ``5h``, ``2d``."""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f}{unit}"
    return f"{max(0.0, seconds):.0f}s"


def lasting(seconds: float) -> str:
    """Return a time to the hour up to three days, since objectives are so: ``40m``, ``27h``, ``30d``."""
    return f"{seconds / 3600:.0f}h" if 3600 <= seconds < 3 * 86400 else span(seconds)
