"""A call in a thread of its own."""

from __future__ import annotations

from threading import Event, current_thread

import pytest

from vmhost.drivers.background import begun


def test_it_runs_beside_its_caller_and_is_waited_for() -> None:
    met = Event()

    def call() -> str:
        assert met.wait(30)
        return current_thread().name

    outcome = begun(call, "aside")
    met.set()
    assert outcome() == "aside"


def test_what_it_raises_is_raised_where_it_is_waited_for() -> None:
    def call() -> None:
        raise LookupError("gone")

    outcome = begun(call, "aside")
    with pytest.raises(LookupError, match="gone"):
        outcome()
