"""The only owner of stderr and exit codes."""

from __future__ import annotations

import os
import shlex
import sys
import traceback
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from vmhost.model import errors
from vmhost.model.text import sanitize

UNEXPECTED, USAGE, NOT_FOUND, REFUSED, UNREACHABLE, UNDONE, PENDING = 1, 2, 3, 4, 5, 6, 7
NOT_READY, DIFFERS, LEFTOVERS, PARTLY, DAMAGED, INTERRUPTED = 8, 9, 10, 11, 12, 130

EXIT_CODES: dict[int, str] = {
    0: "ok",
    UNEXPECTED: "unexpected failure",
    USAGE: "usage or invalid site",
    NOT_FOUND: "not found",
    REFUSED: "refused: conflict, capacity, protected, foreign, the host changed",
    UNREACHABLE: "host, network or SSH unreachable or denied",
    UNDONE: "apply failed, all undone",
    PENDING: "changes pending, drift or findings",
    NOT_READY: "guest not ready",
    DIFFERS: "applied, but verify differs",
    LEFTOVERS: "apply failed with leftovers",
    PARTLY: "partly done",
    DAMAGED: "data damaged",
    INTERRUPTED: "interrupted",
}

_CODES: tuple[tuple[type[errors.VmhostError], int], ...] = (
    (errors.SpecError, USAGE),
    (errors.UsageError, USAGE),
    (errors.NotFound, NOT_FOUND),
    (errors.Refused, REFUSED),
    (errors.DriverError, UNREACHABLE),
    (errors.VerifyError, DIFFERS),
    (errors.GuestError, NOT_READY),
    (errors.PartlyDone, PARTLY),
    (errors.DamagedData, DAMAGED),
)


_LAST_RESORT: tuple[tuple[type[errors.VmhostError], str], ...] = (
    (errors.SpecError, "vmhost schema"),
    (errors.UsageError, "vmhost --help"),
    (errors.NotFound, "vmhost guest list"),
    (errors.DamagedData, "vmhost image list"),
    (errors.GuestError, "vmhost guest list"),
    (errors.PartlyDone, "vmhost guest list"),
    (errors.Cancelled, "vmhost job list"),
    (errors.ApplyError, "vmhost job list"),
    (errors.VmhostError, "vmhost host doctor"),
)
"""What to type after an error that knows nothing better: where one looks next."""


def exit_code(error: errors.VmhostError) -> int:
    """Return the exit code of an error (docs/manual/exit-codes.md)."""
    if isinstance(error, errors.ApplyError):
        undone = DAMAGED if isinstance(error.__cause__, errors.DamagedData) else UNDONE
        return LEFTOVERS if error.leftovers else undone
    if isinstance(error, errors.Cancelled):
        return INTERRUPTED
    return next((code for kind, code in _CODES if isinstance(error, kind)), UNEXPECTED)


def say(text: str) -> None:
    """Write one line of talk to stderr."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def say_from_signal(text: str) -> None:
    """Write one line of talk from a signal's handler, which may have interrupted a write to the same stream."""
    with suppress(OSError):
        os.write(2, f"{text}\n".encode())


def report(error: errors.VmhostError) -> int:
    """Tell the person about an error, with details and the next command; return the exit code."""
    for line in _lines(error):
        say(line)
    return exit_code(error)


def unexpected(error: Exception) -> int:
    """Tell about a failure that nobody foresaw; the trace is shown when ``VMHOST_DEBUG`` is set."""
    if os.environ.get("VMHOST_DEBUG"):
        traceback.print_exception(error)
    say(sanitize(f"vmhost: unexpected failure: {type(error).__name__}: {error}"))
    say("  try: VMHOST_DEBUG=1 vmhost ...    # shows where, for a bug report")
    return UNEXPECTED


def denied(error: PermissionError) -> int:
    """Tell about a file or directory that is closed to us, wherever it was met."""
    if not isinstance(error.filename, str):
        return unexpected(error)
    hint = f"ls -ld {shlex.quote(error.filename)} {shlex.quote(str(Path(error.filename).parent))}"
    return report(errors.PermissionDenied("permission denied", subject=error.filename, hint=hint))


def _lines(error: errors.VmhostError) -> Iterable[str]:
    yield from (sanitize(line) for line in _first(f"vmhost: {error}").splitlines())
    details: tuple[str, ...] = ()
    if isinstance(error, errors.GuestError | errors.DrillFailed):
        details = error.details
    elif isinstance(error, errors.VerifyError):
        details = error.differences
    elif isinstance(error, errors.PartlyDone):
        details = tuple(f"{name}: {failure}" for name, failure in error.failures.items())
    elif isinstance(error, errors.ApplyError):
        details = (*(f"undone: {text}" for text in error.undone), *(f"left over: {text}" for text in error.leftovers))
    yield from (f"  {sanitize(line)}" for line in details)
    hint = error.hint or next(text for kind, text in _LAST_RESORT if isinstance(error, kind))
    yield f"  try: {sanitize(hint)}"


def _first(text: str) -> str:
    return text if text.strip() else "vmhost: failed"


def colour(stream_is_terminal: bool) -> bool:
    """Whether to use colour (https://no-color.org)."""
    return stream_is_terminal and not os.environ.get("NO_COLOR")
