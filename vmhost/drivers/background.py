"""A call in a thread of its own, begun now and waited for later."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import Final, TypeVar

T = TypeVar("T")

WAKE: Final = 1.0
"""Seconds after which the waiting thread looks around: a signal that comes right before it sleeps does not wake it."""


def begun(call: Callable[[], T], name: str) -> Callable[[], T]:
    """Begin a call in another thread; return what waits for it and returns, or raises, what came of it.

    :param call: what is done; the process may end while it still runs, so it only looks, or is always waited for.
    :param name: the thread's.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:  # noqa: BLE001 - raised again below, in the thread that asked
            errors.append(error)

    thread = Thread(target=run, name=name, daemon=True)
    thread.start()

    def outcome() -> T:
        while thread.is_alive():
            thread.join(WAKE)
        if errors:
            raise errors[0]
        return results[0]

    return outcome
