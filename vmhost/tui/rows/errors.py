"""Errors as lines: what failed, in what details, and what to type next."""

from __future__ import annotations

from vmhost.model import errors
from vmhost.tui.rows.cells import Line, Tone


def error_lines(error: errors.VmhostError) -> list[Line]:
    """Return an error with its details and the command that comes next."""
    lines = [Line(line, Tone.BAD) for line in str(error).splitlines() or ["failed"]]
    details: tuple[str, ...] = ()
    match error:
        case errors.GuestError(details=found):
            details = found
        case errors.VerifyError(differences=found):
            details = found
        case errors.PartlyDone(failures=failures):
            details = tuple(f"{name}: {failure}" for name, failure in failures.items())
        case errors.ApplyError(undone=undone, leftovers=leftovers):
            details = (*(f"undone: {text}" for text in undone), *(f"left over: {text}" for text in leftovers))
    lines += [Line(f"  {line}", Tone.WARN) for text in details for line in text.splitlines()]
    if error.hint:
        lines.append(Line(f"  try: {error.hint}", Tone.LIVELY))
    return lines
