"""The host's network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from vmhost.ops.netstate import net_state
from vmhost.ops.networkview import BridgeRow, bridge_rows
from vmhost.tui import errands
from vmhost.tui.keymap import bindings
from vmhost.tui.rows.cells import Cell, Column, Line, Signs, Tone
from vmhost.tui.rows.errors import error_lines
from vmhost.tui.rows.host import finding_lines
from vmhost.tui.rows.network import COLUMNS, Row, network_cells, network_rows, state_lines, vlan_lines, waiting_line
from vmhost.tui.screens.asked import Asked
from vmhost.tui.screens.frame import Frame
from vmhost.tui.screens.guest import GuestScreen
from vmhost.tui.widgets.foot import Foot
from vmhost.tui.widgets.grid import Grid
from vmhost.tui.widgets.lines import Lines

if TYPE_CHECKING:
    from vmhost.model.errors import VmhostError
    from vmhost.model.network import PendingChange
    from vmhost.model.outcome import Finding
    from vmhost.ops.host import Host
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
        self._matrix: Sequence[Line] = vlan_lines((), 0)
        self._matrix_of: tuple[tuple[BridgeRow, ...], int] = ((), 0)
        self._findings: Sequence[Line] = [Line("examining", Tone.DIM)]
        self._state = Asked(self, "asking who has what", self._show_below)
        self._waiting: PendingChange | None = None
        self._unknown: VmhostError | None = None
        self._looking = False

    def body(self) -> ComposeResult:
        yield Grid(COLUMNS, self._cells, self.vmhost.signs, id="ports")
        yield Lines(id="vlans")

    def on_mount(self) -> None:
        super().on_mount()
        self.action_examine()
        self._look_whether_one_waits()
        self.set_interval(1, self._look_whether_one_waits)

    def on_screen_resume(self) -> None:
        self._look_whether_one_waits()

    def show(self, picture: Picture) -> None:
        observed = picture.observed
        if self._links is not observed:
            self._links = observed
            self._bridges = bridge_rows(observed)
            self._rows = network_rows(self._bridges)
            self._uuids = {domain.name: domain.uuid for domain in observed.domains}
        self.query_one("#ports", Grid).show(tuple(self._rows))
        self._ask_state()
        self._say_what_waits()
        self._show_below()

    def _ask_state(self, *, again: bool = False) -> None:
        host, signs, file = self.vmhost.host, self.vmhost.signs, self.vmhost.site_file
        self._state.ask((self._links, file), lambda: _state(host, file, signs), again=again)

    def _look_whether_one_waits(self) -> None:
        if not self._looking:
            self._looking = True
            host = self.vmhost.host
            errands.send(self, host.network_change, self._looked, self._did_not_look, "waiting")

    def _looked(self, found: PendingChange | None) -> None:
        self._looking, self._unknown = False, None
        before, self._waiting = self._waiting, found
        if before is not None and (found is None or found.state != before.state):
            self.vmhost.wake()  # the links changed with it
        self._say_what_waits()
        self.query_one(Foot).fit()

    def _did_not_look(self, error: VmhostError) -> None:
        self._looking, self._unknown = False, error
        self._say_what_waits()

    def _say_what_waits(self) -> None:
        line = waiting_line(self._waiting, self.vmhost.signs)
        if self._unknown is not None:
            text = " ".join(str(self._unknown).splitlines())
            line = Line(f"{self.vmhost.signs.crashed} nobody knows whether a change waits: {text}", Tone.BAD)
        if line is None:
            line = Line("" if self._rows else "this host has no bridges")
        self.say(line.text, line.tone)

    def on_resize(self) -> None:
        self._show_below()

    def _show_below(self) -> None:
        asked = (self._bridges, self.size.width)
        if self._matrix_of != asked:
            self._matrix_of, self._matrix = asked, vlan_lines(self._bridges, self.size.width - 3)
        self.query_one("#vlans", Lines).show([*self._matrix, Line(""), *self._state.lines, Line(""), *self._findings])

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
        self._ask_state(again=True)

    def action_apply_site(self) -> None:
        """Open the form that holds the network against a site file, and applies it."""
        from vmhost.tui.screens.sitefile import NetworkSiteScreen

        self.app.push_screen(NetworkSiteScreen())

    def action_confirm(self) -> None:
        """Plan that the change that waits stays."""
        from vmhost.tui import changes
        from vmhost.tui.screens.plan import PlanScreen

        self.app.push_screen(PlanScreen(changes.confirm_network()))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "confirm":
            return self._waiting is not None and self._waiting.open
        return True

    def _examined(self, findings: tuple[Finding, ...]) -> None:
        self._findings = [Line("FINDINGS", Tone.LIVELY), *finding_lines(findings, self.vmhost.signs)]
        self._show_below()

    def _failed(self, error: VmhostError) -> None:
        self._findings = error_lines(error)
        self._show_below()


def _state(host: Host, file: str, signs: Signs) -> Sequence[Line]:
    return state_lines(net_state(host, file), file, signs)
