"""What all screens share: one line about the host, the body, one line of keys, and the way back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Static

from vmhost.model.text import sanitize
from vmhost.tui.rows.cells import Line, Tone
from vmhost.tui.rows.guests import summary
from vmhost.tui.widgets.foot import Foot

if TYPE_CHECKING:
    from vmhost.ops.watch import Picture
    from vmhost.tui.app import VmhostApp

STYLES = {
    Tone.PLAIN: "",
    Tone.DIM: "$quiet",
    Tone.GOOD: "$success",
    Tone.WARN: "$warning",
    Tone.BAD: "bold $error",
    Tone.LIVELY: "bold $primary",
}


class Frame(Screen[None]):
    """A screen with a head and a foot; ``name_of_place`` is its word in the key map and in the head."""

    DEFAULT_CSS = """
    Frame { layout: vertical; background: $background; color: $foreground; }
    Frame #head { height: 1; background: $surface; padding: 0 1; text-wrap: nowrap; text-overflow: ellipsis; }
    Frame #note { height: 1; padding: 0 1; display: none; text-wrap: nowrap; text-overflow: ellipsis; }
    Frame #note.shown { display: block; }
    """
    BINDINGS: ClassVar[list[BindingType]] = []
    place = ""
    _said = ""

    def compose(self) -> ComposeResult:
        yield Static(id="head")
        yield from self.body()
        yield Static(id="note")
        yield Foot(self.place)

    def body(self) -> ComposeResult:
        """Yield what lies between head and foot."""
        yield from ()

    @property
    def vmhost(self) -> VmhostApp:
        """The app."""
        from vmhost.tui.app import VmhostApp

        app = self.app
        assert isinstance(app, VmhostApp)
        return app

    def on_mount(self) -> None:
        self.watch(self.app, "picture", self._pictured)

    def on_screen_resume(self) -> None:
        self.vmhost.see(self.shown_guests(), soon=True)

    def _pictured(self, picture: Picture | None) -> None:
        if picture is None:
            return
        self._show_head(picture)
        self.show(picture)
        if self.is_current:
            self.vmhost.see(self.shown_guests())

    def show(self, picture: Picture) -> None:
        """Show a new picture of the host."""

    def shown_guests(self) -> frozenset[str] | None:
        """Return of which guests (UUIDs) this screen shows what they use of memory and disks; None: of all."""
        return frozenset()

    def title_of_place(self) -> str:
        """Return what the head says of this screen."""
        return self.place

    def _show_head(self, picture: Picture) -> None:
        host = sanitize(picture.observed.host.hostname)
        parts: list[tuple[str, str] | str] = [(f"{host} ", "bold $primary")]
        if picture.stale is not None:
            sign = self.vmhost.signs.warning
            parts.append((f"{sign} STALE: {sanitize(picture.stale.message.splitlines()[0])}  ", "bold $error"))
        elif picture.interrupted:
            parts.append(
                (f"{self.vmhost.signs.warning} an operation was interrupted: vmhost recover  ", "bold $warning")
            )
        place = self.title_of_place()
        parts.append((f" {sanitize(place)} ", "reverse"))
        parts.append(f"  {summary(picture)}")
        self.query_one("#head", Static).update(Content.assemble(*parts), layout=False)

    def say(self, text: str, tone: Tone = Tone.PLAIN) -> None:
        """Show a sentence above the keys; an empty one takes it away."""
        if text != self._said:
            self._said = text
            note = self.query_one("#note", Static)
            note.set_class(bool(text), "shown")
            note.update(styled([Line(text, tone)]))

    def action_back(self) -> None:
        """Go back to the screen before."""
        if len(self.app.screen_stack) > 2:
            self.app.pop_screen()


def styled(lines: Sequence[Line]) -> Content:
    """Return lines as one safe text with styles."""
    parts: list[tuple[str, str] | str] = []
    for number, line in enumerate(lines):
        text = ("\n" if number else "") + sanitize(line.text[:4096])
        parts.append((text, STYLES[line.tone]) if STYLES[line.tone] else text)
    return Content.assemble(*parts)
