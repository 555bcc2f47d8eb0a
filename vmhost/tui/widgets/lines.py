"""A long text of which only what is visible is made safe and drawn: XML, logs, differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from vmhost.model.text import sanitize
from vmhost.tui.rows.cells import LONGEST, Line, Tone

_TAB = 8


class Lines(ScrollView, can_focus=True):
    """A text by lines.

    :param follow: keep the end in view while text is added, as long as the person has not scrolled away from it.
    """

    DEFAULT_CSS = """
    Lines { height: 1fr; scrollbar-size: 0 1; background: $background; color: $foreground; }
    Lines > .lines--dim { color: $quiet; }
    Lines > .lines--good { color: $success; }
    Lines > .lines--warn { color: $warning; }
    Lines > .lines--bad { color: $error; text-style: bold; }
    Lines > .lines--lively { color: $primary; text-style: bold; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {f"lines--{tone}" for tone in Tone if tone is not Tone.PLAIN}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("k", "scroll_up", show=False),
        Binding("j", "scroll_down", show=False),
        Binding("less_than_sign", "scroll_left", show=False),
        Binding("greater_than_sign", "scroll_right", show=False),
        Binding("g", "scroll_home", show=False),
        Binding("G", "scroll_end", show=False),
    ]

    def __init__(self, *, follow: bool = False, **more: str) -> None:
        super().__init__(**more)  # type: ignore[arg-type]
        self.follow = follow
        self._at_end = True
        self._lines: tuple[Line, ...] = ()
        self._styles: dict[Tone, Style] = {}

    @property
    def lines(self) -> tuple[Line, ...]:
        """The text."""
        return self._lines

    def show(self, lines: Sequence[Line], *, dropped: int = 0) -> None:
        """Show a text; nothing is drawn when it is the same.

        :param dropped: lines that went from its beginning since it was shown last: whoever reads what follows them
            goes on to see that.
        """
        found = tuple(lines)
        if found == self._lines:
            return
        self._lines = found
        width = max((min(len(line.text), LONGEST) for line in found), default=0)
        self.virtual_size = Size(width, len(found))
        self.refresh()
        self._keep_end()
        if dropped and not self._at_end:
            self._go_up_to(self.scroll_y - dropped)

    def to_end(self) -> None:
        """Go to the end, and stay there while text is added if it is followed."""
        self._at_end = True
        self.scroll_to(y=self.max_scroll_y, animate=False, force=True, immediate=True)

    def _keep_end(self) -> None:
        # Whether it is at the end is remembered, not measured: more text may come before a scroll is carried out.
        if self.follow and self._at_end:
            self.to_end()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        self._at_end = self.scroll_target_y > self.max_scroll_y - 1

    def watch_show_vertical_scrollbar(self, shown: bool) -> None:
        """Put a bar that has only just appeared where the text is: it may have been scrolled before."""
        if shown:
            self.vertical_scrollbar.position = self.scroll_y

    def action_scroll_home(self) -> None:
        self._go_up_to(0)

    def action_scroll_up(self) -> None:
        self._go_up_to(self.scroll_y - 1)

    def action_page_up(self) -> None:
        self._go_up_to(self.scroll_y - self.size.height)

    def action_scroll_end(self) -> None:
        self.to_end()

    def on_mouse_scroll_up(self) -> None:
        self._at_end = self.max_scroll_y <= 0

    def _go_up_to(self, line: float) -> None:
        # At once, and though no scroll bar is drawn yet: text that comes meanwhile must not go to the end again.
        self._at_end = self.max_scroll_y <= 0
        self.scroll_to(y=max(0, line), animate=False, force=True, immediate=True)

    def on_resize(self) -> None:
        self._keep_end()

    def render_line(self, y: int) -> Strip:
        x, top = self.scroll_offset
        width = self.size.width
        plain = self.rich_style
        if y + top >= len(self._lines):
            return Strip.blank(width, plain)
        line = self._lines[y + top]
        text = sanitize(line.text[:LONGEST]).expandtabs(_TAB)
        strip = Strip([Segment(text, self._style(line.tone))], cell_len(text))
        return strip.crop(x, x + width).adjust_cell_length(width, plain)

    def _style(self, tone: Tone) -> Style:
        if tone not in self._styles:
            found = self.rich_style
            if tone is not Tone.PLAIN:
                found += self.get_component_rich_style(f"lines--{tone}", partial=True)
            self._styles[tone] = found
        return self._styles[tone]

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._styles.clear()
