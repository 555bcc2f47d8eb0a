"""One line of keys: as many as there is room for, and always how to get help and how to leave."""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.widgets import Static

from vmhost.tui.keymap import NO_OWN, Key, feet, shown

_GAP = 2


class FootKey(Static):
    """A key that can be clicked."""

    DEFAULT_CSS = "FootKey { width: auto; height: 1; padding: 0 1; text-wrap: nowrap; }"

    def __init__(self, key: Key) -> None:
        self._label = shown(key.keys.partition(",")[0])
        super().__init__(Content.assemble((self._label, "bold $primary"), " ", key.foot))
        self.key = key

    @property
    def room(self) -> int:
        """The width that it needs."""
        return len(self._label) + 1 + len(self.key.foot) + _GAP

    async def on_click(self) -> None:
        await self.app.run_action(self.key.action, self.screen)


class Foot(Horizontal):
    """The keys of a screen.

    :param place: as in the key map.
    """

    DEFAULT_CSS = """
    Foot { height: 1; dock: bottom; background: $surface; }
    Foot #own { width: 1fr; height: 1; overflow: hidden; }
    Foot #always { width: auto; height: 1; }
    """

    def __init__(self, *places: str) -> None:
        super().__init__()
        self._places = places

    def compose(self) -> ComposeResult:
        own = getattr(self.app, "own_keys", NO_OWN)
        always: Sequence[Key] = () if "form" in self._places else feet(("everywhere",), own)
        with Horizontal(id="own"):
            yield from (FootKey(key) for key in feet(self._places, own))
        with Horizontal(id="always"):
            yield from (FootKey(key) for key in always)

    def on_mount(self) -> None:
        self.fit()

    def on_resize(self) -> None:
        self.fit()

    def fit(self) -> None:
        """Show the keys that do something now and have room."""
        left = self.app.size.width - sum(key.room for key in self.query("#always FootKey").results(FootKey))
        for key in self.query("#own FootKey").results(FootKey):
            works = self.screen.check_action(key.key.action, ()) is not False
            key.display = works and key.room <= left
            left -= key.room if works else 0
