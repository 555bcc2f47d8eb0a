"""Which columns the list of guests has, and in what order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from vmhost.tui.keymap import bindings
from vmhost.tui.rows.cells import Cell, Column
from vmhost.tui.rows.columns import CHOICES, USUAL, choice_cells, listed, moved, toggled
from vmhost.tui.screens.frame import Frame
from vmhost.tui.widgets.grid import Grid

if TYPE_CHECKING:
    from collections.abc import Callable


class ColumnsScreen(Frame):
    """A choice of columns; ``then`` is told every change at once.

    :param names: those that are shown now.
    """

    BINDINGS: ClassVar[list[BindingType]] = [*bindings("columns"), Binding("escape", "back", show=False)]
    AUTO_FOCUS = "Grid"
    place = "columns"

    def __init__(self, names: Sequence[str], then: Callable[[tuple[str, ...]], None]) -> None:
        super().__init__()
        self._order = listed(names)
        self._shown = frozenset(names)
        self._then = then

    def body(self) -> ComposeResult:
        yield Grid(CHOICES, self._cells, self.vmhost.signs, id="columns")

    def on_mount(self) -> None:
        super().on_mount()
        self._show()
        self.say("columns without room are left out, whatever is chosen; esc goes back")

    def _cells(self, key: str, columns: Sequence[Column]) -> tuple[Cell, ...]:
        return choice_cells(key, self._shown, columns, self.vmhost.signs)

    def _show(self) -> None:
        self.query_one(Grid).show(self._order)

    def _changed(self, order: tuple[str, ...], shown: frozenset[str]) -> None:
        self._order, self._shown = order, shown
        self._show()
        names = tuple(name for name in order if name in shown)
        self._then(() if names == USUAL else names)

    def action_show_or_hide(self) -> None:
        """Show the column under the cursor, or no longer."""
        key = self.query_one(Grid).key
        if key is not None:
            self._changed(self._order, toggled(self._order, self._shown, key))
            self.query_one(Grid).action_move(1)

    def action_shift_left(self) -> None:
        """Move the column under the cursor one place to the left."""
        self._move(-1)

    def action_shift_right(self) -> None:
        """Move the column under the cursor one place to the right."""
        self._move(1)

    def _move(self, by: int) -> None:
        key = self.query_one(Grid).key
        if key is not None:
            self._changed(moved(self._order, key, by), self._shown)

    def action_usual(self) -> None:
        """Go back to the usual columns."""
        self._changed(USUAL, frozenset(USUAL))
