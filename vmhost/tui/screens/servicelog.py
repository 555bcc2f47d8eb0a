"""The log of a service, merged over its guests and followed until it is left."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, ClassVar, Final

from textual.app import ComposeResult
from textual.binding import BindingType

from vmhost.tui import errands
from vmhost.tui.changes import line
from vmhost.tui.keymap import bindings
from vmhost.tui.rows.cells import Line, Tone
from vmhost.tui.rows.services import log_line
from vmhost.tui.screens.frame import Frame
from vmhost.tui.widgets.lines import Lines

if TYPE_CHECKING:
    from vmhost.model.errors import VmhostError

SINCE: Final = "10m"
SECONDS: Final = 600.0
KEPT: Final = 5000
"""Lines that are kept, the newest; a service may write for ever."""

_PAUSE: Final = 0.2
"""Seconds between two looks at what came: a service that writes much is drawn no more often."""


class ServiceLogScreen(Frame):
    """What a service writes in all its guests. The guests are read in a thread, which ends when the screen is left."""

    DEFAULT_CSS = "ServiceLogScreen #log { padding: 0 1; }"
    BINDINGS: ClassVar[list[BindingType]] = [*bindings("log")]
    AUTO_FOCUS = "#log"
    place = "log"

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service
        self._kept: deque[Line] = deque(maxlen=KEPT)
        self._came: deque[Line] = deque(maxlen=KEPT)
        self._left = threading.Event()

    def body(self) -> ComposeResult:
        yield Lines(follow=True, id="log")

    def title_of_place(self) -> str:
        return f"log of {self._service}"

    def on_mount(self) -> None:
        super().on_mount()
        self.say("reading the guests' journals; times are UTC by each guest's clock", Tone.DIM)
        self.set_interval(_PAUSE, self._take)
        errands.send(self, self._read, lambda _: None, self._failed, "service-log")

    def on_unmount(self) -> None:
        self._left.set()

    def _read(self) -> None:
        """Read until the screen is left; in a thread. What nobody takes in time gives way to what is newer."""
        found = self.vmhost.host.services.logs([self._service], since=SECONDS, follow=True, cancelled=self._left.is_set)
        for item in found:
            if self._left.is_set():
                return
            self._came.append(log_line(item))

    def _take(self) -> None:
        came, before = len(self._came), len(self._kept)
        self._kept.extend(self._came.popleft() for _ in range(came))
        if came:
            self.query_one("#log", Lines).show(tuple(self._kept), dropped=before + came - len(self._kept))

    def _failed(self, error: VmhostError) -> None:
        self._take()
        self.say(f"{self.vmhost.signs.crashed} not read: {' '.join(str(error).splitlines())}", Tone.BAD)

    def action_copy(self) -> None:
        """Copy the command that does the same."""
        command = line(("service", "logs", self._service, "--follow", "--since", SINCE))
        self.app.copy_to_clipboard(command)
        self.app.notify(f"copied: {command}", markup=False)
