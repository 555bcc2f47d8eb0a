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
    """The list of what is kept of a guest; the item under its cursor is meant while the list has the focus."""

    DEFAULT_CSS = """
    KeptPane #about { height: 2; padding: 0 1; }
    """

    def __init__(self, signs: Signs, **more: str) -> None:
        super().__init__(**more)  # type: ignore[arg-type]
        self._signs = signs
        self._kept: dict[str, Kept] = {}

    def compose(self) -> ComposeResult:
        yield Lines(id="about")
        yield Grid(COLUMNS, self._cells, self._signs, second=True, id="kept")

    def on_mount(self) -> None:
        self.query_one("#about").can_focus = False

    def show(self, view: ProtectionView, guest: Guarded | None, about: Sequence[Line]) -> None:
        """Show what is kept of a guest, and some lines about it."""
        self._kept = {kept.key: kept for kept in kept_of(guest, view)} if guest else {}
        self.query_one("#about", Lines).show(about)
        self.list.show(tuple(self._kept))

    @property
    def list(self) -> Grid:
        """The list."""
        return self.query_one("#kept", Grid)

    @property
    def meant(self) -> Kept | None:
        """The point or snapshot under the cursor, if the list has the focus."""
        return self._kept.get(self.list.key or "") if self.list.has_focus else None

    def _cells(self, key: str, columns: Sequence[Column]) -> tuple[Cell, ...]:
        return kept_cells(self._kept[key], columns, self._signs)
