"""The host."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.widgets import Static

from vmhost.tui import errands
from vmhost.tui.keymap import bindings
from vmhost.tui.rows.cells import Line, Tone
from vmhost.tui.rows.cores import FITS, core_lines
from vmhost.tui.rows.errors import error_lines
from vmhost.tui.rows.host import finding_lines, host_lines
from vmhost.tui.screens.frame import Frame
from vmhost.tui.widgets.lines import Lines

if TYPE_CHECKING:
    from vmhost.model.capacity import Capacity
    from vmhost.model.errors import VmhostError
    from vmhost.model.outcome import Finding
    from vmhost.ops.watch import Picture


MEASURED: Final = 0.5
"""Seconds in which it is seen who waits for pCPUs, and what the uplinks carry."""


class HostScreen(Frame):
    """What the host has, what is promised of it, and what ails it."""

    DEFAULT_CSS = """
    HostScreen #halves { height: 1fr; layout: vertical; }
    HostScreen #halves.wide { layout: horizontal; }
    HostScreen #facts { height: 3fr; padding: 0 1; }
    HostScreen #right { height: 2fr; }
    HostScreen #halves.wide #facts { width: 1fr; height: 1fr; }
    HostScreen #halves.wide #right { width: 1fr; height: 1fr; }
    HostScreen #title { height: 1; padding: 0 1; background: $surface; color: $primary; text-style: bold; }
    HostScreen #findings { padding: 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [*bindings("host"), Binding("escape", "back", show=False)]
    AUTO_FOCUS = "#facts"
    place = "host"
    _WIDE = 150

    def __init__(self) -> None:
        super().__init__()
        self._observed: object = None
        self._asking = self._again = False
        self._capacity: Capacity | None = None
        self._cores: list[Line] = [Line("counting", Tone.DIM)]

    def body(self) -> ComposeResult:
        with Container(id="halves"):
            yield Lines(id="facts")
            with Container(id="right"):
                yield Static("FINDINGS", id="title")
                yield Lines(id="findings")

    def on_mount(self) -> None:
        super().on_mount()
        self._examine()

    def on_resize(self) -> None:
        self.query_one("#halves").set_class(self.size.width >= self._WIDE, "wide")

    def shown_guests(self) -> frozenset[str] | None:
        return None

    def show(self, picture: Picture) -> None:
        if self._observed is not picture.observed:
            self._observed = picture.observed
            self._ask_capacity()
        self._show_facts(picture)

    def _show_facts(self, picture: Picture) -> None:
        signs = self.vmhost.signs
        self.query_one("#facts", Lines).show([*host_lines(picture, self._capacity, signs), Line(""), *self._cores])

    def _ask_capacity(self) -> None:
        """Count and measure; what comes meanwhile is asked when the answer is there."""
        self._again = self._asking
        if self._asking:
            return
        self._asking = True
        host = self.vmhost.host
        errands.send(
            self, lambda: host.capacity(fits=FITS, measure=MEASURED), self._counted, self._not_counted, "capacity"
        )

    def _counted(self, capacity: Capacity) -> None:
        self._capacity = capacity
        self._answered(core_lines(capacity, self.vmhost.signs))

    def _not_counted(self, error: VmhostError) -> None:
        self._answered(error_lines(error))

    def _answered(self, cores: list[Line]) -> None:
        self._asking = False
        self._cores = cores
        if self.vmhost.picture is not None:
            self._show_facts(self.vmhost.picture)
        if self._again:
            self._ask_capacity()

    def action_examine(self) -> None:
        """Examine the host, and count and measure again."""
        self._ask_capacity()
        self._examine()

    def _examine(self) -> None:
        self.query_one("#findings", Lines).show([Line("examining", Tone.DIM)])
        host = self.vmhost.host
        errands.send(self, host.doctor, self._examined, self._failed, "doctor")

    def _examined(self, findings: tuple[Finding, ...]) -> None:
        self.query_one("#findings", Lines).show(finding_lines(findings, self.vmhost.signs))

    def _failed(self, error: VmhostError) -> None:
        self.query_one("#findings", Lines).show(error_lines(error))
