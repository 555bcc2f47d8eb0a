"""A table that draws what is visible, and of that only the cells that changed.

Rows are known by their keys; the cursor stays on its key, whatever is sorted, added or removed around it. Widths are
fixed, so a new picture never lays anything out again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from vmhost.tui.rows.cells import Cell, Column, Signs, Tone, fit

GUTTER = 3
Cells = Callable[[str, Sequence[Column]], tuple[Cell, ...]]


class Grid(ScrollView, can_focus=True):
    """A table of rows by key.

    :param columns: all columns; those that have no room are left out.
    :param cells: returns the cells of a key for the columns that are shown.
    :param second: it is the second on its screen, and shows its cursor while it has the focus only.
    """

    DEFAULT_CSS = """
    Grid { height: 1fr; overflow-x: hidden; scrollbar-size-vertical: 1; background: $background; color: $foreground; }
    Grid > .grid--header { text-style: bold; color: $primary; background: $surface; }
    Grid > .grid--cursor { background: $row-cursor; text-style: bold; }
    Grid:ansi > .grid--cursor { text-style: reverse; }
    Grid:nocolor > .grid--cursor { text-style: reverse; }
    Grid > .grid--dim { color: $quiet; }
    Grid > .grid--good { color: $success; }
    Grid > .grid--warn { color: $warning; }
    Grid > .grid--bad { color: $error; text-style: bold; }
    Grid > .grid--lively { color: $secondary; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "grid--header",
        "grid--cursor",
        *(f"grid--{tone}" for tone in Tone if tone is not Tone.PLAIN),
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", show=False),
        Binding("down,j", "move(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown", "page(1)", show=False),
        Binding("home,g", "move(-1000000)", show=False),
        Binding("end,G", "move(1000000)", show=False),
        Binding("enter", "open", show=False),
    ]

    class Opened(Message):
        """A row was opened."""

        def __init__(self, key: str) -> None:
            super().__init__()
            self.key = key

    class Moved(Message):
        """The cursor is on another row; ``key`` is None when there is none."""

        def __init__(self, key: str | None) -> None:
            super().__init__()
            self.key = key

    class Titled(Message):
        """The title of a column was clicked."""

        def __init__(self, column: str) -> None:
            super().__init__()
            self.column = column

    def __init__(
        self, columns: Sequence[Column], cells: Cells, signs: Signs, *, second: bool = False, **more: str
    ) -> None:
        super().__init__(**more)  # type: ignore[arg-type]
        self._second = second
        self._all = tuple(columns)
        self._columns: tuple[Column, ...] = ()
        self._make = cells
        self._signs = signs
        self._keys: tuple[str, ...] = ()
        self._at = 0
        self._shown: dict[str, tuple[Cell, ...]] = {}
        self._styles: dict[tuple[Tone, bool], Style] = {}
        self.marked: frozenset[str] = frozenset()
        self.sorted_by = ""
        self.drawn = 0

    @property
    def keys(self) -> tuple[str, ...]:
        """The rows, in order."""
        return self._keys

    @property
    def key(self) -> str | None:
        """The row of the cursor, or None when there are no rows."""
        return self._keys[self._at] if self._keys else None

    @property
    def in_view(self) -> tuple[str, ...]:
        """The rows that are on the screen."""
        first = self.scroll_offset.y
        return self._keys[first : first + max(0, self.size.height - 1)]

    def show(self, keys: tuple[str, ...]) -> None:
        """Show these rows; what looks as before is not drawn again."""
        if keys == self._keys:
            self._update_cells()
            return
        before = self.key
        self._keys = keys
        self._shown.clear()
        if before is not None and before in keys:
            self._at = keys.index(before)
        else:
            self._at = min(self._at, max(0, len(keys) - 1))
        self.virtual_size = Size(self.size.width, len(keys) + 1)
        self._keep_in_view()
        self.refresh()
        if self.key != before:
            self.post_message(self.Moved(self.key))

    def redraw(self) -> None:
        """Draw everything anew, whatever it was."""
        self._shown.clear()
        self._columns = ()
        self._styles.clear()
        self.refresh()

    def choose(self, columns: Sequence[Column]) -> None:
        """Have other columns, or the same in another order."""
        self._all = tuple(columns)
        self.redraw()

    def go_to(self, key: str) -> None:
        """Put the cursor on a row, if it is there."""
        if key in self._keys:
            self._move_to(self._keys.index(key))

    def render_line(self, y: int) -> Strip:
        columns = self._fitted()
        width = self.size.width
        if y == 0:
            return self._header(columns, width)
        row = y - 1 + self.scroll_offset.y
        if row >= len(self._keys):
            return Strip.blank(width, self.rich_style)
        key = self._keys[row]
        cells = self._shown.get(key)
        if cells is None:
            cells = self._shown[key] = self._make(key, columns)
        return self._row(key, cells, columns, width)

    def _row(self, key: str, cells: tuple[Cell, ...], columns: Sequence[Column], width: int) -> Strip:
        here = key == self.key and (self.has_focus or not self._second)
        plain = self._style(Tone.PLAIN, here)
        sign = self._signs.cursor if here else " "
        mark = self._signs.mark if key in self.marked else " "
        segments = [Segment(f"{sign}{mark} ", plain)]
        for column, item in zip(columns, cells, strict=True):
            segments.append(Segment(_sized(item.text, column), self._style(item.tone, here)))
            segments.append(Segment(" ", plain))
        self.drawn += 1
        return Strip(segments).adjust_cell_length(width, plain)

    def _header(self, columns: Sequence[Column], width: int) -> Strip:
        style = self.get_component_rich_style("grid--header")
        segments = [Segment(" " * GUTTER, style)]
        for column in columns:
            segments += [Segment(_sized(self._title(column), column), style), Segment(" ", style)]
        return Strip(segments).adjust_cell_length(width, style)

    def _title(self, column: Column) -> str:
        name, _, down = self.sorted_by.partition(" ")
        if column.id != name:
            return column.title
        return f"{column.title}{self._signs.down if down else self._signs.up}"

    def _fitted(self) -> tuple[Column, ...]:
        if not self._columns:
            self._columns = fit(self._all, self.size.width - GUTTER - 1)
        return self._columns

    def _style(self, tone: Tone, cursor: bool) -> Style:
        found = self._styles.get((tone, cursor))
        if found is None:
            found = self.rich_style
            if tone is not Tone.PLAIN:
                found += self.get_component_rich_style(f"grid--{tone}", partial=True)
            if cursor:
                found += self.get_component_rich_style("grid--cursor", partial=True)
            self._styles[tone, cursor] = found
        return found

    def _update_cells(self) -> None:
        """Draw the visible cells that changed."""
        columns = self._fitted()
        visible, shown = self.in_view, dict[str, tuple[Cell, ...]]()
        regions = []
        for y, key in enumerate(visible, 1):
            before, now = self._shown.get(key), self._make(key, columns)
            shown[key] = now
            if before == now:
                continue
            x = GUTTER
            for number, column in enumerate(columns):
                if before is None or before[number] != now[number]:
                    regions.append(Region(x, y, column.width, 1))
                x += column.width + 1
        self._shown = shown
        if len(regions) > len(visible):  # nearly everything: to draw it whole is cheaper than to find the pieces
            self.refresh(Region(0, 1, self.size.width, len(visible)))
        elif regions:
            self.refresh(*regions)

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()

    def _keep_in_view(self) -> None:
        height, top = self.size.height - 1, self.scroll_offset.y
        if height <= 0:
            return
        if self._at < top:
            self.scroll_to(y=self._at, animate=False)
        elif self._at >= top + height:
            self.scroll_to(y=self._at - height + 1, animate=False)

    def _move_to(self, row: int) -> None:
        row = max(0, min(row, len(self._keys) - 1))
        if not self._keys or row == self._at:
            return
        before, self._at = self._at, row
        self._keep_in_view()
        top = self.scroll_offset.y
        self.refresh(*(Region(0, y - top + 1, self.size.width, 1) for y in (before, row)))
        self.post_message(self.Moved(self.key))

    def action_move(self, by: int) -> None:
        """Move the cursor."""
        self._move_to(self._at + by)

    def action_page(self, by: int) -> None:
        """Move the cursor by a screen."""
        self._move_to(self._at + by * max(1, self.size.height - 2))

    def action_open(self) -> None:
        """Open the row of the cursor."""
        if self.key is not None:
            self.post_message(self.Opened(self.key))

    def on_click(self, event: events.Click) -> None:
        if event.y == 0:
            x = GUTTER
            for column in self._fitted():
                if x <= event.x < x + column.width:
                    self.post_message(self.Titled(column.id))
                x += column.width + 1
            return
        row = event.y - 1 + self.scroll_offset.y
        if row < len(self._keys):
            again = row == self._at and event.chain > 1
            self._move_to(row)
            if again:
                self.action_open()

    def on_resize(self) -> None:
        self._columns = ()
        self._shown.clear()
        self.virtual_size = Size(self.size.width, len(self._keys) + 1)
        self._keep_in_view()
        self.refresh()

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._styles.clear()


def _sized(text: str, column: Column) -> str:
    if column.right:
        short = cell_len(text)
        return " " * (column.width - short) + text if short <= column.width else set_cell_size(text, column.width)
    return set_cell_size(text, column.width)
