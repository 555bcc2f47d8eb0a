"""Whether there is a terminal, and what it can show."""

from __future__ import annotations

import os
import sys

from vmhost.model.errors import UsageError


def check_terminal() -> None:
    """Return when there is a terminal to draw on. :raises UsageError: there is none, or a dumb one."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        text = "the terminal interface needs a terminal; its input and output are something else here"
        raise UsageError(text, hint="vmhost guest list    # the same as text; ssh -t gives a terminal")
    if os.environ.get("TERM", "") in ("", "dumb"):
        raise UsageError("this terminal cannot be drawn on (TERM is dumb or empty)", hint="vmhost guest list")


def has_unicode() -> bool:
    """Whether the terminal shows more than ASCII, by its locale."""
    return "utf" in (sys.stdout.encoding or "").lower()
