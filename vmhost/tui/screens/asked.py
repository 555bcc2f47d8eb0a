"""What a tab asks the host for when it is looked at, and keeps until it is asked again: never on every picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import is_
from typing import TYPE_CHECKING

from vmhost.tui import errands
from vmhost.tui.rows.cells import Line, Tone
from vmhost.tui.rows.errors import error_lines

if TYPE_CHECKING:
    from textual.dom import DOMNode

    from vmhost.model.errors import VmhostError


Call = Callable[[], Sequence[Line]]


class Asked:
    """Lines that come from a call in a thread; ``then`` is called when they are there.

    :param words: what stands there meanwhile.
    """

    def __init__(self, owner: DOMNode, words: str, then: Callable[[], None]) -> None:
        self._owner = owner
        self._then = then
        self._asking = False
        self._next: Call | None = None
        self._about: tuple[object, ...] = ()
        self.lines: Sequence[Line] = [Line(words, Tone.DIM)]

    def ask(self, about: tuple[object, ...], call: Call, *, again: bool = False) -> None:
        """Ask, unless it was asked ``about`` the very same things and need not be asked ``again``.

        One question at a time: what comes meanwhile is asked when the answer is there, of several the last.
        """
        same = len(about) == len(self._about) and all(map(is_, about, self._about))
        if same and not again:
            return
        self._about = about
        if self._asking:
            self._next = call
            return
        self._asking = True
        errands.send(self._owner, call, self._answered, self._failed, "ask")

    def _answered(self, lines: Sequence[Line]) -> None:
        self.lines = lines
        call, self._next = self._next, None
        self._asking = call is not None
        if call is not None:
            errands.send(self._owner, call, self._answered, self._failed, "ask")
        self._then()

    def _failed(self, error: VmhostError) -> None:
        self._answered(error_lines(error))
