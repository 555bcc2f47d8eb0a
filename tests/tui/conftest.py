"""A pilot that does not wait for an idle processor: the watch of the host never lets it be idle for long. And tmux."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tui.tmux import Tmux


async def _a_moment(*_: float) -> None:
    await asyncio.sleep(0.002)


@pytest.fixture(autouse=True)
def quick_pilot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for the queues of messages only, which the pilot does besides."""
    monkeypatch.setattr("textual.app.wait_for_idle", _a_moment)
    monkeypatch.setattr("textual.pilot.wait_for_idle", _a_moment)


@pytest.fixture
def tmux(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Tmux]:
    """A shell in tmux, 100x30 unless the test says otherwise."""
    width, height = getattr(request, "param", (100, 30))
    made = Tmux(tmp_path, width, height)
    yield made
    made.end()
