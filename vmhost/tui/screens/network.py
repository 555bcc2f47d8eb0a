"""The host's network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from vmhost.ops.networkview import BridgeRow, bridge_rows
from vmhost.tui import errands
from vmhost.tui.keymap import bindings
from vmhost.tui.rows.cells import Cell, Column, Line, Tone
from vmhost.tui.rows.errors import error_lines
from vmhost.tui.rows.host import finding_lines
from vmhost.tui.rows.network import COLUMNS, Row, network_cells, network_rows, vlan_lines
from vmhost.tui.screens.frame import Frame
from vmhost.tui.screens.guest import GuestScreen
from vmhost.tui.widgets.grid import Grid
from vmhost.tui.widgets.lines import Lines

if TYPE_CHECKING:
    from vmhost.model.errors import VmhostError
    from vmhost.model.outcome import Finding
    from vmhost.ops.watch import Picture


class NetworkScreen(Frame):
    """Bridges with their ports, who is in which VLAN, and what ails it."""

    DEFAULT_CSS = """
    NetworkScreen #ports { height: 3fr; }
    NetworkScreen #vlans { height: 2fr; border-top: solid $primary; padding: 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [*bindings("network"), Binding("escape", "back", show=False)]
    AUTO_FOCUS = "#ports"
    place = "network"

    def __init__(self) -> None:
        super().__init__()
        self._bridges: tuple[BridgeRow, ...] = ()
        self._rows: dict[str, Row] = {}
        self._links: object = None
        self._uuids: dict[str, str] = {}
        self._findings: list[Line] = [Line("examining", Tone.DIM)]

    def body(self) -> ComposeResult:
        yield Grid(COLUMNS, self._cells, self.vmhost.signs, id="ports")
        yield Lines(id="vlans")

    def on_mount(self) -> None:
        super().on_mount()
        self.action_examine()

    def show(self, picture: Picture) -> None:
        observed = picture.observed
        if self._links is not observed:
            self._links = observed
            self._bridges = bridge_rows(observed)
            self._rows = network_rows(self._bridges)
            self._uuids = {domain.name: domain.uuid for domain in observed.domains}
        self.query_one("#ports", Grid).show(tuple(self._rows))
        self.say("" if self._rows else "this host has no bridges")
        self._show_below()

    def on_resize(self) -> None:
        self._show_below()

    def _show_below(self) -> None:
        matrix = vlan_lines(self._bridges, self.size.width - 3)
        self.query_one("#vlans", Lines).show([*matrix, Line(""), *self._findings])

    def _cells(self, key: str, columns: Sequence[Column]) -> tuple[Cell, ...]:
        return network_cells(self._rows[key], columns, self.vmhost.signs)

    def on_grid_opened(self, message: Grid.Opened) -> None:
        _, port = self._rows[message.key]
        uuid = self._uuids.get(port.guest) if port else None
        if uuid:
            self.app.push_screen(GuestScreen(uuid, "network"))

    def action_open_port(self) -> None:
        """Open the guest of the port under the cursor."""
        self.query_one("#ports", Grid).action_open()

    def action_examine(self) -> None:
        """Examine the network again."""
        host = self.vmhost.host
        errands.send(self, lambda: host.doctor(only="network"), self._examined, self._failed, "doctor")

    def _examined(self, findings: tuple[Finding, ...]) -> None:
        self._findings = finding_lines(findings, self.vmhost.signs)
        self._show_below()

    def _failed(self, error: VmhostError) -> None:
        self._findings = error_lines(error)
        self._show_below()
