"""The manual as data: its pages, and their blocks with the mark that stands before each.

A mark is a comment that readers do not see. ``file: NAME`` writes the block to a file; ``replay`` is a session that is
typed again on the demonstration's host; ``seen: WHERE`` is one that was seen there and is not replayed;
``happens: TEXT`` lets something befall the host between two sessions (``tests/plan/happenings.py``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MANUAL = Path(__file__).resolve().parents[1] / "docs" / "manual"
_BLOCK = re.compile(
    r"^(?:<!-- (?P<mark>file|replay|seen|happens)(?:: (?P<value>[^\n]*?))? -->\n+)?"
    r"(?:(?P<fence>```+)(?P<language>[^\n]*)\n(?P<text>.*?)^(?P=fence)$)?",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block with its mark (empty: none); ``start`` and ``end`` are where its text stands in the page."""

    mark: str
    value: str
    language: str
    text: str
    start: int
    end: int


def pages() -> tuple[Path, ...]:
    """Return the pages of the manual."""
    return tuple(sorted(MANUAL.glob("*.md")))


def blocks(page: str) -> Iterator[Block]:
    """Yield the blocks of a page's text, and the happenings between them."""
    for found in _BLOCK.finditer(page):
        if found["mark"] or found["fence"]:
            start, end = found.span("text") if found["fence"] else (-1, -1)
            mark, value, language, text = (found[name] or "" for name in ("mark", "value", "language", "text"))
            yield Block(mark, value, language, text, start, end)


def command_lines(text: str) -> Iterator[str]:
    """Yield what is typed in a session."""
    return (line[2:] for line in text.splitlines() if line.startswith("$ "))
