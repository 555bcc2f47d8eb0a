"""The night's work in systemd's words and in cron's (systemd.timer(5), systemd.time(7), crontab(5))."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from vmhost.model.errors import UsageError

SERVICE: Final = "vmhost-nightly.service"
TIMER: Final = "vmhost-nightly.timer"
FAILED: Final = "vmhost-nightly-failed.service"
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
OnCalendar={calendar}
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


def units(argv: Sequence[str], at: str, on_failure: str = "") -> Mapping[str, str]:
    """Return the units by their names.

    :param at: ``HH:MM`` for every night, or what systemd.time(7) calls a calendar event.
    :param on_failure: a command for the shell, for a night in which something failed; empty: none.
    :raises UsageError: a text cannot stand in a unit.
    """
    for text in (*argv, at, on_failure):
        if not text.isprintable():
            raise UsageError("a unit cannot hold this", subject=repr(text), hint="vmhost nightly units --at 22:00")
    clock = _CLOCK.fullmatch(at)
    calendar = f"*-*-* {int(clock[1]):02}:{clock[2]}:00" if clock else at
    failing = f"OnFailure={FAILED}\n" if on_failure else ""
    found = {
        SERVICE: _SERVICE.format(command=" ".join(_quoted(word) for word in argv), on_failure=failing),
        TIMER: _TIMER.format(calendar=calendar),
    }
    return {**found, FAILED: _FAILED.format(command=_quoted(on_failure))} if on_failure else found


def cron_line(argv: Sequence[str], at: str) -> str:
    """Return the line for ``/etc/cron.d``, where there is no systemd. :raises UsageError: it is no time of the day."""
    clock = _CLOCK.fullmatch(at)
    if clock is None:
        raise UsageError("cron wants a time of the day", subject=at, hint="vmhost nightly units --cron --at 22:00")
    words = (re.sub(r"([^A-Za-z0-9_@+=:,./-])", r"\\\1", word) for word in argv)
    return f"{int(clock[2])} {int(clock[1])} * * * root {' '.join(words)}\n"


def _quoted(word: str) -> str:
    """Return a word as systemd.service(5) reads it on a command line."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'
