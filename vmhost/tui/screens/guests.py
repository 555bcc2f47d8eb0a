"""The list of guests: the first screen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Input

from vmhost.tui.keymap import bindings
from vmhost.tui.rows.cells import Cell, Column, Tone
from vmhost.tui.rows.columns import chosen
from vmhost.tui.rows.guests import CHANGING, SORTS, guest_cells, ordered
from vmhost.tui.screens.frame import Frame
from vmhost.tui.screens.guest import GuestScreen
from vmhost.tui.screens.power import Power
from vmhost.tui.widgets.entry import Entry
from vmhost.tui.widgets.grid import Grid

if TYPE_CHECKING:
    from vmhost.model.observed import ObservedDomain
    from vmhost.ops.watch import Picture


class GuestsScreen(Power, Frame):
    """All guests, ours and foreign."""

    DEFAULT_CSS = """
    GuestsScreen #filter { display: none; border: none; height: 1; padding: 0 1; background: $panel; }
    GuestsScreen #filter:focus { border: none; background: $row-cursor; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [*bindings("guests"), Binding("escape", "back", show=False)]
    AUTO_FOCUS = "Grid"
    place = "guests"

    def __init__(self) -> None:
        super().__init__()
        self._by_uuid: dict[str, ObservedDomain] = {}
        self._domains: object = None
        self._query = ""
        self._sort = "name"
        self._reverse = False
        self._wanted: tuple[str, str, bool] | None = None
        self._wanted_of: object = None
        self._keys: tuple[str, ...] = ()

    def body(self) -> ComposeResult:
        view = self.vmhost.view
        self._sort, self._reverse = view.sort if view.sort in SORTS else "name", view.reverse
        yield Grid(chosen(view.columns), self._cells, self.vmhost.signs, id="guests")
        yield Entry(placeholder="words, !word, label=KEY=VALUE", id="filter", select_on_focus=False)

    @property
    def grid(self) -> Grid:
        """The table."""
        return self.query_one("#guests", Grid)

    def title_of_place(self) -> str:
        marked = f", {len(self.grid.marked)} marked" if self.grid.marked else ""
        query = f" /{self._query}" if self._query else ""
        return f"guests{query}{marked}"

    def shown_guests(self) -> frozenset[str] | None:
        return None if self._sort == "disk" else frozenset(self.grid.in_view)

    def on_grid_moved(self) -> None:
        self.vmhost.see(self.shown_guests(), soon=True)

    def show(self, picture: Picture) -> None:
        if self._domains is not picture.observed.domains:
            self._domains = picture.observed.domains
            self._by_uuid = {domain.uuid: domain for domain in picture.observed.domains}
            gone = self.grid.marked - self._by_uuid.keys()
            if gone:
                self.grid.marked -= gone
        self._order(picture)

    def _order(self, picture: Picture) -> None:
        self.grid.sorted_by = f"{self._sort}{' down' if self._reverse else ''}"
        wanted = (self._query, self._sort, self._reverse, picture.observed.domains)
        if self._sort in CHANGING or self._wanted != wanted[:3] or self._wanted_of is not wanted[3]:
            self._wanted, self._wanted_of = wanted[:3], wanted[3]
            self._keys = ordered(picture, self._query, self._sort, reverse=self._reverse)
        keys = self._keys
        self.grid.show(keys)
        if keys:
            self.say("")
        elif self._query:
            self.say(f"no guest matches {self._query!r}; esc shows all", Tone.WARN)
        else:
            self.say("this host has no guests yet: n plans a new one", Tone.LIVELY)

    def _cells(self, key: str, columns: Sequence[Column]) -> tuple[Cell, ...]:
        picture = self.vmhost.picture
        domain = self._by_uuid.get(key)
        if picture is None or domain is None:
            return tuple(Cell() for _ in columns)
        return guest_cells(picture, domain, columns, self.vmhost.signs, self.vmhost.rounds.of)

    def on_mount(self) -> None:
        super().on_mount()
        self.watch(self.app, "known", self._again)

    def _again(self) -> None:
        """Show the same picture in another order or choice."""
        if self.vmhost.picture is not None:
            self._order(self.vmhost.picture)
            self._show_head(self.vmhost.picture)

    def subjects(self) -> tuple[ObservedDomain, ...]:
        """Return the marked guests, or the one under the cursor."""
        keys: Sequence[str] = [key for key in self.grid.keys if key in self.grid.marked]
        if not keys and self.grid.key is not None:
            keys = [self.grid.key]
        return tuple(self._by_uuid[key] for key in keys if key in self._by_uuid)

    def on_grid_opened(self, message: Grid.Opened) -> None:
        self.app.push_screen(GuestScreen(message.key))

    def on_grid_titled(self, message: Grid.Titled) -> None:
        column = message.column.removesuffix("-spark")
        if column not in SORTS:
            return
        self._reverse = not self._reverse if column == self._sort else False
        self._sort = column
        self._sorted()

    def action_open_guest(self) -> None:
        """Open the guest under the cursor."""
        self.grid.action_open()

    def action_guest_tab(self, tab: str) -> None:
        """Open the guest under the cursor at a tab."""
        if self.grid.key is not None:
            self.app.push_screen(GuestScreen(self.grid.key, tab))

    def action_next_sort(self) -> None:
        """Sort by the next column."""
        self._sort = SORTS[(SORTS.index(self._sort) + 1) % len(SORTS)]
        self._sorted()

    def action_turn_sort(self) -> None:
        """Sort the other way round."""
        self._reverse = not self._reverse
        self._sorted()

    def _sorted(self) -> None:
        view = self.vmhost.view
        self.vmhost.remember(replace(view, sort=self._sort, reverse=self._reverse))
        self._again()

    def action_apply_site(self) -> None:
        """Open the form that plans a site file."""
        from vmhost.tui.screens.sitefile import SiteScreen

        self.app.push_screen(SiteScreen())

    def action_columns(self) -> None:
        """Choose the columns."""
        from vmhost.tui.screens.columns import ColumnsScreen

        names = [column.id for column in chosen(self.vmhost.view.columns)]
        self.app.push_screen(ColumnsScreen(names, self._have_columns))

    def _have_columns(self, names: tuple[str, ...]) -> None:
        self.grid.choose(chosen(names))
        self.vmhost.remember(replace(self.vmhost.view, columns=names))

    def action_mark(self) -> None:
        """Mark the guest under the cursor, or not, and go on to the next."""
        if self.grid.key is None:
            return
        self.grid.marked ^= {self.grid.key}
        self.grid.refresh()
        self.grid.action_move(1)
        self._again()

    def action_mark_all(self) -> None:
        """Mark all that are shown; none if all are marked."""
        shown = frozenset(self.grid.keys)
        self.grid.marked = frozenset() if shown <= self.grid.marked else self.grid.marked | shown
        self.grid.refresh()
        self._again()

    def action_filter(self) -> None:
        """Open the filter."""
        line = self.query_one("#filter", Input)
        line.display = True
        self.set_focus(
            line
        )  # at once, not later: the next letter may be on its way, and it must not be taken for a key

    def on_input_changed(self, event: Input.Changed) -> None:
        self._query = event.value.strip()
        self._again()

    def on_input_submitted(self) -> None:
        line = self.query_one("#filter", Input)
        line.display = bool(line.value)
        self.grid.focus()

    def action_back(self) -> None:
        """Leave the filter, then the marks."""
        line = self.query_one("#filter", Input)
        if line.display or self._query:
            line.value = ""
            line.display = False
            self._query = ""
        elif self.grid.marked:
            self.grid.marked = frozenset()
            self.grid.refresh()
        self.grid.focus()
        self._again()

    def action_new_guest(self) -> None:
        """Open the form of a new guest."""
        self.vmhost.new_guest()
