"""The terminal interface on a fake host, with a hand that presses keys and an eye that reads the screen as text."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from textual import events
from textual.pilot import Pilot

from vmhost.ops.host import Host
from vmhost.testing import FakeHost
from vmhost.testing.demo import demo_host
from vmhost.tui.app import VmhostApp
from vmhost.tui.widgets.grid import Grid
from vmhost.tui.widgets.lines import Lines


class Stage:
    """A running app."""

    def __init__(self, app: VmhostApp, pilot: Pilot[int], fake: FakeHost) -> None:
        self.app = app
        self.pilot = pilot
        self.fake = fake

    @property
    def rows(self) -> list[str]:
        """The screen, line by line."""
        strips = self.app.screen._compositor.render_strips()
        return ["".join(segment.text for segment in strip) for strip in strips]

    @property
    def text(self) -> str:
        """The screen."""
        return "\n".join(self.rows)

    @property
    def place(self) -> str:
        """The class of the screen on top."""
        return type(self.app.screen).__name__

    def row(self, word: str) -> str:
        """Return the first line of the screen with a word in it. :raises AssertionError: there is none."""
        found = next((row for row in self.rows if word in row), None)
        assert found is not None, f"{word!r} is not on the screen:\n{self.text}"
        return found

    @property
    def grid(self) -> Grid:
        """The table of the screen on top."""
        return self.app.screen.query_one(Grid)

    def lines(self, selector: str = "Lines") -> str:
        """Return a whole text of the screen on top, also what is scrolled away."""
        return "\n".join(line.text for line in self.app.screen.query_one(selector, Lines).lines)

    async def press(self, *keys: str) -> None:
        """Press keys, and wait until they were dealt with."""
        await self.pilot.press(*keys)
        await self.pilot.pause()

    async def type(self, text: str) -> None:
        """Type a text into the field that has the focus, in one go as from a clipboard."""
        self.app.screen.focused.post_message(events.Paste(text))  # type: ignore[union-attr]
        await self.pilot.pause()

    async def until(self, condition: Callable[[], Any], seconds: float = 25.0) -> None:
        """Return when a condition holds. :raises AssertionError: it does not come to hold."""
        deadline = time.monotonic() + seconds
        while not _holds(condition):
            assert time.monotonic() < deadline, f"it did not come:\n{self.text}"
            await asyncio.sleep(0.01)
            await self.pilot.pause()

    async def shows(self, *words: str) -> None:
        """Return when all words are on the screen."""
        for word in words:
            await self.until(lambda word=word: word in self.text)

    async def tells(self, words: str) -> None:
        """Return when something is told in passing with these words in it."""
        await self.until(lambda: any(words in item.message for item in self.app._notifications))

    async def goto(self, name: str) -> None:
        """Put the cursor on a guest."""
        self.grid.go_to(self.fake.domain(name).uuid)
        await self.pilot.pause()

    async def picture(self) -> None:
        """Wait for another picture of the host."""
        before = self.app.picture
        self.app.wake()
        await self.until(lambda: self.app.picture is not before)


def _holds(condition: Callable[[], Any]) -> bool:
    try:
        return bool(condition())
    except AssertionError:
        return False


@asynccontextmanager
async def on_stage(
    fake: FakeHost | None = None,
    *,
    size: tuple[int, int] = (120, 40),
    wait: bool = True,
    toasts: bool = False,
    **more: Any,
) -> AsyncIterator[Stage]:
    """Run the app; by default on the host of the demonstration, whose time stands still.

    :param toasts: draw what is told in passing.
    """
    fake = fake or demo_host(speed=0)
    app = VmhostApp(Host(ports=fake.ports), **{"interval": 0.2, **more})
    async with app.run_test(size=size, notifications=toasts) as pilot:
        stage = Stage(app, pilot, fake)
        if wait:
            await stage.until(lambda: app.picture is not None)
            await pilot.pause()
        yield stage
