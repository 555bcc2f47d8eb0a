"""The night's work in systemd's words and in cron's (systemd.timer(5), systemd.time(7), crontab(5))."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from vmhost.model.errors import UsageError
from vmhost.model.nightsteps import FAILED, MARK, SERVICE, TIMER

_CLOCK: Final = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")

_SERVICE: Final = """\
[Unit]
Description=Points of the guests of vmhost: taken, read back, old ones deleted
After=libvirtd.service virtqemud.service network-online.target
{on_failure}
[Service]
Type=oneshot
ExecStart={command}
Nice=10
IOSchedulingClass=idle
"""
_TIMER: Final = """\
[Unit]
Description=The night's work of vmhost

[Timer]
{calendar}
Persistent=true
RandomizedDelaySec=60

[Install]
WantedBy=timers.target
"""
_FAILED: Final = """\
[Unit]
Description=What is done when the night's work of vmhost failed

[Service]
Type=oneshot
ExecStart=/bin/sh -c {command}
"""


def units(argv: Sequence[str], at: Sequence[str], on_failure: str = "") -> Mapping[str, str]:
    """Return the units by their names.

    :param at: each ``HH:MM`` for every night, or what systemd.time(7) calls a calendar event.
    :param on_failure: a command for the shell, for a night in which something failed; empty: none.
    :raises UsageError: a text cannot stand in a unit.
    """
    _check_printable(*argv, *at, on_failure)
    failing = f"OnFailure={FAILED}\n" if on_failure else ""
    calendar = "\n".join(f"OnCalendar={_event(text)}" for text in at)
    found = {
        SERVICE: _SERVICE.format(command=" ".join(_quoted(word) for word in argv), on_failure=failing),
        TIMER: _TIMER.format(calendar=calendar),
    }
    found |= {FAILED: _FAILED.format(command=_quoted(on_failure))} if on_failure else {}
    return {name: f"{MARK}\n{text}" for name, text in found.items()}


def cron_text(argv: Sequence[str], at: str) -> str:
    """Return the file for ``/etc/cron.d``, where there is no systemd.

    :raises UsageError: no time of the day, or a text cannot stand in its line.
    """
    _check_printable(*argv)
    clock = _CLOCK.fullmatch(at)
    if clock is None:
        raise UsageError("cron wants a time of the day", subject=at, hint="vmhost nightly units --cron --at 22:00")
    words = (re.sub(r"([^A-Za-z0-9_@+=:,./-])", r"\\\1", word) for word in argv)
    return f"{MARK}\n{int(clock[2])} {int(clock[1])} * * * root {' '.join(words)}\n"


def _check_printable(*texts: str) -> None:
    for text in texts:
        if not text.isprintable():
            raise UsageError("no line can hold this", subject=repr(text), hint="vmhost nightly units --at 22:00")


def _event(text: str) -> str:
    clock = _CLOCK.fullmatch(text)
    return f"*-*-* {int(clock[1]):02}:{clock[2]}:00" if clock else text


def _quoted(word: str) -> str:
    """Return a word as systemd.service(5) reads it on a command line."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'
