"""Keeping the interpreter's own pauses out of the way of keys, as long as the interface runs.

Two of them are long with thousands of guests. The collector of garbage walks everything that is alive whenever enough
is new, hundreds of thousands of objects, and nothing else runs meanwhile: what the first picture brought stays for the
whole session, so it need not be walked. And a thread that computes a picture gives way only when the switch interval is
over, each time that the screen's thread has waited for anything: many times for one key.
"""

from __future__ import annotations

import gc
import sys
from typing import Final

SWITCH: Final = 0.0005
"""Seconds after which a thread that computes gives way to one that waits for its turn."""


class Smooth:
    """The pauses of one run of the interface; :meth:`end` leaves the interpreter as it was."""

    def __init__(self) -> None:
        self._interval = 0.0
        self._settled = False

    def begin(self) -> None:
        """Let threads give way sooner."""
        self._interval = sys.getswitchinterval()
        sys.setswitchinterval(min(SWITCH, self._interval))

    def settle(self) -> None:
        """Take what is alive by now out of the collector's sight, once. What nobody refers to is freed all the same.

        A program that has done so itself is left alone: nothing could give back its own part of it later.
        """
        if not self._settled and gc.get_freeze_count() == 0:
            self._settled = True
            gc.freeze()

    def end(self) -> None:
        """Undo both."""
        if self._settled:
            gc.unfreeze()
        if self._interval:
            sys.setswitchinterval(self._interval)
