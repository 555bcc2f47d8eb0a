"""What is kept of one guest: how it is protected in two lines, and the list of its snapshots and points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.containers import Vertical

from vmhost.tui.rows.cells import Cell, Column, Line, Signs
from vmhost.tui.rows.kept import COLUMNS, Kept, kept_cells, kept_of
from vmhost.tui.widgets.grid import Grid
from vmhost.tui.widgets.lines import Lines

if TYPE_CHECKING:
    from vmhost.ops.protectionview import Guarded, ProtectionView


class KeptPane(Vertical):
    """The list of what is kept of a guest; the item under its cursor is meant while the list has the focus.

    ``slid``: what the cursor had been put on is gone, and it is on something else now, which nobody chose.
    """

    DEFAULT_CSS = """
    KeptPane #about { height: auto; min-height: 2; max-height: 3; padding: 0 1; }
    """

    def __init__(self, signs: Signs, **more: str) -> None:
        super().__init__(**more)  # type: ignore[arg-type]
        self._signs = signs
        self._kept: dict[str, Kept] = {}
        self._shown: tuple[ProtectionView | None, str] = None, ""
        self._slid_to: str | None = None
        self.slid = False

    def compose(self) -> ComposeResult:
        yield Lines(id="about")
        yield Grid(COLUMNS, self._cells, self._signs, second=True, id="kept")

    def on_mount(self) -> None:
        self.query_one("#about").can_focus = False

    def show(self, view: ProtectionView, guest: Guarded | None, about: Sequence[Line]) -> None:
        """Show what is kept of a guest, and some lines about it."""
        self.query_one("#about", Lines).show(about)
        before, (shown, whose) = self.list.key, self._shown
        self._shown = view, guest.uuid if guest else ""
        if shown is view and whose == self._shown[1]:
            return
        self._kept = {kept.key: kept for kept in kept_of(guest, view)} if guest else {}
        self.list.show(tuple(self._kept))
        if self.list.has_focus and before and (whose, before) != (self._shown[1], self.list.key):
            self.slid, self._slid_to = True, self.list.key

    @property
    def list(self) -> Grid:
        """The list."""
        return self.query_one("#kept", Grid)

    @property
    def meant(self) -> Kept | None:
        """The point or snapshot under the cursor, if the list has the focus."""
        return self._kept.get(self.list.key or "") if self.list.has_focus else None

    @property
    def under_cursor(self) -> str:
        """What the cursor is on, in a word."""
        kept = self._kept.get(self.list.key or "")
        return kept.name if kept else "nothing"

    def on_grid_moved(self) -> None:
        """Once the person has moved the cursor, it is where it was put."""
        if self.list.key != self._slid_to:
            self.slid = False

    def on_descendant_blur(self) -> None:
        """Whoever comes back to the list sees what the cursor is on."""
        self.slid = False

    def _cells(self, key: str, columns: Sequence[Column]) -> tuple[Cell, ...]:
        return kept_cells(self._kept[key], columns, self._signs)
