"""How far work is, in a line."""

from __future__ import annotations

from typing import Final

from vmhost.model.events import Progress
from vmhost.tui.rows.cells import Line, Signs, Tone, rate, span

_WIDE: Final = 20


def progress_line(progress: Progress | None, seconds: float, signs: Signs) -> Line:
    """Return how far work is that has taken some seconds: a bar, its share, its rate, and what is left."""
    if progress is None or not progress.total:
        return Line(f"{span(seconds)} so far", Tone.DIM)
    done = min(1.0, progress.done / progress.total)
    bar = (signs.ramp[-1] * round(done * _WIDE)).ljust(_WIDE, signs.ramp[0])
    words = [f"{bar} {100 * done:3.0f} %"]
    if progress.rate:
        words += [rate(progress.rate), f"{span((progress.total - progress.done) / progress.rate)} left"]
    return Line(f"{'  '.join(words)}  {progress.text}", Tone.LIVELY)
