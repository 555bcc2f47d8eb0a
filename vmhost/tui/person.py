"""The person at the keys: their keys, how their lists looked last, and what is wrong with the files of both."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from vmhost.model.errors import VmhostError
from vmhost.ops.preferences import View
from vmhost.tui.keymap import NO_OWN, Own
from vmhost.tui.rows.cells import Line, Tone

if TYPE_CHECKING:
    from vmhost.ops.preferences import Preferences

_PATIENCE = 1.0


class Person:
    """Somebody with preferences, or, without any, anybody: then nothing is read and nothing remembered."""

    def __init__(self, preferences: Preferences | None) -> None:
        self._preferences = preferences
        self._thread: threading.Thread | None = None
        self.view = View()
        self.own: Own = NO_OWN
        self.complaints: list[Line] = []
        self.summary = ""
        if preferences is not None:
            self._read_view(preferences)
            self._read_keys(preferences)

    def _read_view(self, preferences: Preferences) -> None:
        try:
            self.view = preferences.view()
        except VmhostError as error:
            # The next choice writes it anew: it holds nothing that is worth more than that.
            self.summary = f"the columns are the usual ones: {error}"

    def _read_keys(self, preferences: Preferences) -> None:
        found = preferences.own_keys()
        if not (found.keys or found.faults):
            return
        # Only now: without a file of keys there is nothing to judge.
        from vmhost.tui.ownkeys import choose

        chosen = choose(found)
        self.own = chosen.keys
        if chosen.faults:
            count = len(chosen.faults)
            name = preferences.keys_file
            self.summary = f"{name}: {count} {'entry is' if count == 1 else 'entries are'} wrong; ? tells which"
            self.complaints = [Line(f"{name}: what is wrong there is left out, the rest holds", Tone.BAD)]
            self.complaints += [Line(f"  {fault}", Tone.WARN) for fault in chosen.faults] + [Line("")]

    def remember(self, view: View, failed: Callable[[VmhostError], None]) -> None:
        """Have another view from now on, and the next time; ``failed`` is called from another thread."""
        self.view = view
        preferences, before = self._preferences, self._thread
        if preferences is None:
            return

        def write() -> None:
            if before is not None:
                before.join()  # one after another: the last view is the one that stays
            try:
                preferences.keep(view)
            except VmhostError as error:
                failed(error)

        self._thread = threading.Thread(target=write, name="remember", daemon=True)
        self._thread.start()

    def settle(self) -> None:
        """Let what is being written come to its end, if it comes soon."""
        if self._thread is not None:
            self._thread.join(_PATIENCE)
