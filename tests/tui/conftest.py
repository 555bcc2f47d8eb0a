"""A pilot that does not wait for an idle processor: the watch of the host never lets it be idle for long."""

from __future__ import annotations

import asyncio

import pytest


async def _a_moment(*_: float) -> None:
    await asyncio.sleep(0.002)


@pytest.fixture(autouse=True)
def quick_pilot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for the queues of messages only, which the pilot does besides."""
    monkeypatch.setattr("textual.app.wait_for_idle", _a_moment)
    monkeypatch.setattr("textual.pilot.wait_for_idle", _a_moment)
