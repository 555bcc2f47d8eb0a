"""There is no picture of the host: why, and what helps."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.screen import Screen
from textual.widgets import Static

from vmhost.model.errors import PermissionDenied, VmhostError
from vmhost.tui.rows.cells import Line, Tone
from vmhost.tui.rows.errors import error_lines
from vmhost.tui.screens.frame import styled
from vmhost.tui.widgets.foot import Foot


class TroubleScreen(Screen[None]):
    """Shows the error and its remedy; goes away by itself when the host answers."""

    DEFAULT_CSS = """
    TroubleScreen { align: center middle; background: $background; }
    TroubleScreen #words { width: 90%; max-width: 100; height: auto; border: round $error; padding: 1 2; }
    """

    def __init__(self, error: VmhostError) -> None:
        super().__init__()
        self._error = error

    def compose(self) -> ComposeResult:
        yield Static(id="words")
        yield Foot()

    def on_mount(self) -> None:
        self.tell(self._error)

    def tell(self, error: VmhostError) -> None:
        """Show another error."""
        lines = [Line("This host cannot be read", Tone.LIVELY), Line(""), *error_lines(error), Line("")]
        if isinstance(error, PermissionDenied):
            lines.append(Line("Members of the group libvirt may read; changing qemu:///system needs root:"))
            lines.append(Line("  sudo vmhost tui", Tone.LIVELY))
            lines.append(Line("  vmhost -c qemu:///session tui      # your own hypervisor", Tone.LIVELY))
        else:
            lines.append(Line("It is tried again every few seconds; this goes away when it answers.", Tone.DIM))
        lines.append(Line("  vmhost tui --demo                  # a look around without libvirt", Tone.DIM))
        self.query_one("#words", Static).update(styled(lines))
