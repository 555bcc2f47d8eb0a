"""How guests are protected, those that are not first; points and snapshots of the one under the cursor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from vmhost.ops.protectionview import ProtectionView, view_protection
from vmhost.tui import errands
from vmhost.tui.keymap import bindings
from vmhost.tui.rows.cells import Cell, Column, Tone
from vmhost.tui.rows.protection import COLUMNS, protection_cells, protection_lines
from vmhost.tui.screens.guest import GuestScreen
from vmhost.tui.screens.keeping import EVERY, Keeping, subject_of
from vmhost.tui.screens.keptpane import KeptPane
from vmhost.tui.widgets.grid import Grid

if TYPE_CHECKING:
    from vmhost.model.errors import VmhostError
    from vmhost.ops.protectionview import Guarded
    from vmhost.ops.watch import Picture
    from vmhost.tui.guarding import Subject
    from vmhost.tui.rows.kept import Kept


class ProtectionScreen(Keeping):
    """Guests with what protects them, read when it is opened, when guests change, and every half a minute."""

    DEFAULT_CSS = """
    ProtectionScreen #guests { height: 3fr; }
    ProtectionScreen KeptPane { height: 2fr; border-top: solid $primary; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [*bindings("protection"), Binding("escape", "back", show=False)]
    AUTO_FOCUS = "#guests"
    place = "protection"

    def __init__(self) -> None:
        super().__init__()
        self._view = ProtectionView()
        self._guests: dict[str, Guarded] = {}
        self._domains: object = None
        self._reading = self._again = False

    def body(self) -> ComposeResult:
        yield Grid(COLUMNS, self._cells, self.vmhost.signs, id="guests")
        yield KeptPane(self.vmhost.signs)

    def on_mount(self) -> None:
        super().on_mount()
        self.say("reading what protects the guests", Tone.DIM)
        self.set_interval(EVERY, self.action_read)

    def on_screen_resume(self) -> None:
        self.action_read()

    def show(self, picture: Picture) -> None:
        if self._domains is not picture.observed.domains:
            self._domains = picture.observed.domains
            self.action_read()

    def action_read(self) -> None:
        """Read points and snapshots again; what is asked meanwhile is read once more."""
        self._again = self._reading
        if not self._reading:
            self._reading = True
            host = self.vmhost.host
            errands.send(self, lambda: view_protection(host), self._have, self._failed, "protection")

    def _have(self, view: ProtectionView) -> None:
        self._view = view
        self._guests = {guest.uuid: guest for guest in view.guests}
        self._grid.show(tuple(self._guests))
        here = [guest for guest in view.guests if guest.objectives]
        bare = sum(bool(guest.protection.problem) for guest in here)
        if not here:
            self.say("this host has no guests of vmhost")
        else:
            text = f"{bare} of {len(here)} guests are not protected" if bare else "all guests are protected"
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

    @property
    def _grid(self) -> Grid:
        return self.query_one("#guests", Grid)

    @property
    def _guest(self) -> Guarded | None:
        return self._guests.get(self._grid.key or "")

    @property
    def _pane(self) -> KeptPane:
        return self.query_one(KeptPane)

    def _show_kept(self) -> None:
        guest = self._guest
        self._pane.show(self._view, guest, protection_lines(guest, self.vmhost.signs) if guest else ())

    def _cells(self, key: str, columns: Sequence[Column]) -> tuple[Cell, ...]:
        return protection_cells(self._guests[key], self._view.now, columns, self.vmhost.signs)

    def subject(self) -> Subject | None:
        return subject_of(self._guest)

    def kept(self) -> Kept | None:
        return self._pane.meant

    def on_grid_moved(self) -> None:
        self._show_kept()

    def on_grid_opened(self) -> None:
        self.action_open_guest()

    def action_back(self) -> None:
        """Leave the list of what is kept, then the screen."""
        if self._grid.has_focus:
            super().action_back()
        else:
            self._grid.focus()

    def action_open_guest(self) -> None:
        """Open the guest under the cursor."""
        guest = self._guest
        if guest is not None and not guest.gone:
            self.app.push_screen(GuestScreen(guest.uuid))
