"""What a tab asks the host for when it is looked at, and keeps until it is asked again: never on every picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from vmhost.tui import errands
from vmhost.tui.rows.cells import Line, Tone
from vmhost.tui.rows.errors import error_lines

if TYPE_CHECKING:
    from textual.dom import DOMNode

    from vmhost.model.errors import VmhostError


class Asked:
    """Lines that come from a call in a thread; ``then`` is called when they are there.

    :param words: what stands there meanwhile.
    """

    def __init__(self, owner: DOMNode, words: str, then: Callable[[], None]) -> None:
        self._owner = owner
        self._then = then
        self._asking = False
        self._about: object = None
        self.lines: Sequence[Line] = [Line(words, Tone.DIM)]

    def ask(self, about: object, call: Callable[[], Sequence[Line]], *, again: bool = False) -> None:
        """Ask, unless it is being asked, or was asked ``about`` the same thing and need not be asked again."""
        if self._asking or (self._about is about and not again):
            return
        self._asking, self._about = True, about
        errands.send(self._owner, call, self._answered, self._failed, "ask")

    def _answered(self, lines: Sequence[Line]) -> None:
        self._asking = False
        self.lines = lines
        self._then()

    def _failed(self, error: VmhostError) -> None:
        self._answered(error_lines(error))
