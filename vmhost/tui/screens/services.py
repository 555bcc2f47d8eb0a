"""Services inside guests: how they are, those that are not well first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from vmhost.model.services import Health, ServiceRow
from vmhost.tui import errands
from vmhost.tui.keymap import bindings
from vmhost.tui.rows.cells import Cell, Column, Line, Tone
from vmhost.tui.rows.services import COLUMNS, service_cells, service_key, service_lines, worst_first
from vmhost.tui.screens.frame import Frame
from vmhost.tui.screens.guest import GuestScreen
from vmhost.tui.widgets.grid import Grid
from vmhost.tui.widgets.lines import Lines

if TYPE_CHECKING:
    from vmhost.model.errors import VmhostError


class ServicesScreen(Frame):
    """Services of all guests: what was deployed at once, how they are when their guests have answered."""

    DEFAULT_CSS = """
    ServicesScreen #services { height: 3fr; }
    ServicesScreen #looks { height: 2fr; border-top: solid $primary; padding: 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [*bindings("services"), Binding("escape", "back", show=False)]
    AUTO_FOCUS = "#services"
    place = "services"

    def __init__(self) -> None:
        super().__init__()
        self._rows: dict[str, ServiceRow] = {}
        self._asking = False

    def body(self) -> ComposeResult:
        yield Grid(COLUMNS, self._cells, self.vmhost.signs, id="services")
        yield Lines(id="looks")

    def on_mount(self) -> None:
        super().on_mount()
        self.action_look()

    def action_look(self) -> None:
        """Read what was deployed, and ask the guests."""
        if self._asking:
            return
        self._asking = True
        self.say("asking the guests", Tone.DIM)
        services = self.vmhost.host.services
        self._send(lambda: services.list(look=False), self._deployed)

    def _deployed(self, rows: tuple[ServiceRow, ...]) -> None:
        if not self._rows:
            self._show(rows)
        services = self.vmhost.host.services
        self._send(services.list, self._looked)

    def _looked(self, rows: tuple[ServiceRow, ...]) -> None:
        self._asking = False
        self._show(rows)
        bad = sum(bool(row.error) or row.health is Health.DOWN for row in rows)
        if not rows:
            self.say("no service was deployed to a guest of this host: vmhost service deploy SITE")
        else:
            text = f"{bad} of {len(rows)} are not well" if bad else f"none of {len(rows)} is down"
            self.say(text, Tone.BAD if bad else Tone.GOOD)

    def _failed(self, error: VmhostError) -> None:
        self._asking = False
        self.say(f"{self.vmhost.signs.crashed} not asked: {' '.join(str(error).splitlines())}", Tone.BAD)

    def _send(self, call: Callable[[], tuple[ServiceRow, ...]], then: Callable[[tuple[ServiceRow, ...]], None]) -> None:
        errands.send(self, call, then, self._failed, "services")

    def _show(self, rows: Sequence[ServiceRow]) -> None:
        self._rows = {service_key(row): row for row in worst_first(rows)}
        self.query_one("#services", Grid).show(tuple(self._rows))
        self._show_looks()

    def _show_looks(self) -> None:
        row = self._rows.get(self.query_one("#services", Grid).key or "")
        self.query_one("#looks", Lines).show(service_lines(row, self.vmhost.signs) if row else [Line("")])

    def _cells(self, key: str, columns: Sequence[Column]) -> tuple[Cell, ...]:
        return service_cells(self._rows[key], columns, self.vmhost.signs)

    def on_grid_moved(self) -> None:
        self._show_looks()

    def on_grid_opened(self, message: Grid.Opened) -> None:
        picture = self.vmhost.picture
        domain = picture.observed.domain(self._rows[message.key].guest) if picture else None
        if domain is not None:
            self.app.push_screen(GuestScreen(domain.uuid))

    def action_open_guest(self) -> None:
        """Open the guest of the service under the cursor."""
        self.query_one("#services", Grid).action_open()
