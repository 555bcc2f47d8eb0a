"""How guests are protected, those that are not first; points and snapshots of the one under the cursor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Final

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from vmhost.tui import changes, errands
from vmhost.tui.keymap import bindings
from vmhost.tui.rows.cells import Cell, Column, Line, Tone
from vmhost.tui.rows.protection import COLUMNS, Protected, kept_lines, protection_cells
from vmhost.tui.screens.frame import Frame
from vmhost.tui.screens.guest import GuestScreen
from vmhost.tui.screens.plan import PlanScreen
from vmhost.tui.widgets.grid import Grid
from vmhost.tui.widgets.lines import Lines

if TYPE_CHECKING:
    from vmhost.model.errors import VmhostError
    from vmhost.model.nightly import Protection
    from vmhost.ops.host import Host
    from vmhost.ops.watch import Picture

OBJECTIVE: Final = 26 * 3600.0
"""Seconds that the newest point may be old, as ``vmhost nightly status`` has it."""

_EVERY: Final = 30.0


class ProtectionScreen(Frame):
    """Guests with what protects them, read when it is opened, when guests change, and every half a minute."""

    DEFAULT_CSS = """
    ProtectionScreen #guests { height: 3fr; }
    ProtectionScreen #kept { height: 2fr; border-top: solid $primary; padding: 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [*bindings("protection"), Binding("escape", "back", show=False)]
    AUTO_FOCUS = "#guests"
    place = "protection"

    def __init__(self) -> None:
        super().__init__()
        self._found: Protected | None = None
        self._rows: dict[str, Protection] = {}
        self._uuids: dict[str, str] = {}
        self._domains: object = None
        self._reading = self._again = False

    def body(self) -> ComposeResult:
        yield Grid(COLUMNS, self._cells, self.vmhost.signs, id="guests")
        yield Lines(id="kept")

    def on_mount(self) -> None:
        super().on_mount()
        self.say("reading what protects the guests", Tone.DIM)
        self.set_interval(_EVERY, self.action_read)

    def on_screen_resume(self) -> None:
        self.action_read()

    def show(self, picture: Picture) -> None:
        if self._domains is not picture.observed.domains:
            self._domains = picture.observed.domains
            self._uuids = {domain.name: domain.uuid for domain in picture.observed.domains}
            self.action_read()

    def action_read(self) -> None:
        """Read points and snapshots again; what is asked meanwhile is read once more."""
        self._again = self._reading
        if not self._reading:
            self._reading = True
            host = self.vmhost.host
            errands.send(self, lambda: _read(host), self._have, self._failed, "protection")

    def _have(self, found: Protected) -> None:
        self._found = found
        self._rows = {row.name: row for row in found.rows}
        self.query_one("#guests", Grid).show(tuple(self._rows))
        bare = sum(bool(row.problem) for row in found.rows)
        if not found.rows:
            self.say("this host has no guests of vmhost")
        else:
            text = f"{bare} of {len(found.rows)} guests are not protected" if bare else "all guests are protected"
            self.say(text, Tone.BAD if bare else Tone.GOOD)
        self._show_kept()
        self._read_done()

    def _failed(self, error: VmhostError) -> None:
        """Say why nothing is known; rows that were read before stay, and are not called true any more."""
        text = " ".join(str(error).splitlines())
        self.say(f"{self.vmhost.signs.crashed} not read: {text}", Tone.BAD)
        self._read_done()

    def _read_done(self) -> None:
        self._reading = False
        if self._again:
            self.action_read()

    def _show_kept(self) -> None:
        key = self.query_one("#guests", Grid).key
        found, uuid = self._found, self._uuids.get(key or "", "")
        lines = kept_lines(key, uuid, found, self.vmhost.signs) if key and found else [Line("")]
        self.query_one("#kept", Lines).show(lines)

    def _cells(self, key: str, columns: Sequence[Column]) -> tuple[Cell, ...]:
        points = self._found.points_of(self._uuids.get(key, "")) if self._found else ()
        return protection_cells(self._rows[key], points, columns, self.vmhost.signs)

    def on_grid_moved(self) -> None:
        self._show_kept()

    def on_grid_opened(self, message: Grid.Opened) -> None:
        if uuid := self._uuids.get(message.key):
            self.app.push_screen(GuestScreen(uuid))

    def action_open_guest(self) -> None:
        """Open the guest under the cursor."""
        self.query_one("#guests", Grid).action_open()

    def action_back_up(self) -> None:
        """Plan a point of the guest under the cursor."""
        if key := self.query_one("#guests", Grid).key:
            self.app.push_screen(PlanScreen(changes.back_up(key)))

    def action_snapshot(self) -> None:
        """Plan a snapshot of the guest under the cursor."""
        if key := self.query_one("#guests", Grid).key:
            self.app.push_screen(PlanScreen(changes.snapshot(key)))


def _read(host: Host) -> Protected:
    rows = host.backups.nightly.status(objective=OBJECTIVE)
    return Protected(rows, host.backups.list(), host.snapshots.list())
