"""Work in several threads that is awaited in a way in which Ctrl-C is always heard."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Executor, Future, wait
from typing import Final, TypeVar

In = TypeVar("In")
Out = TypeVar("Out")

WAKE: Final = 1.0
"""Seconds after which the waiting thread looks around."""


def awaited(future: Future[Out]) -> Out:
    """Return what a call in another thread returned, or raise what it raised.

    Python runs handlers of signals in the main thread, between two instructions. A signal that arrives right before
    that thread falls asleep is noted, but nothing wakes the thread for it: it has to wake by itself.
    """
    while not wait((future,), WAKE).done:
        pass
    return future.result()


def outlast(futures: Collection[Future[Out]]) -> None:
    """Wait until all have ended, however often Ctrl-C comes; raise it afterwards, once."""
    interrupted: KeyboardInterrupt | None = None
    ended = not futures
    while not ended:
        try:
            ended = not wait(futures, WAKE).not_done
        except KeyboardInterrupt as error:
            interrupted = error
    if interrupted is not None:
        raise interrupted


def side_by_side(pool: Executor, call: Callable[[In], Out], items: Iterable[In]) -> Iterator[Out]:
    """Yield what ``call`` makes of each item, in order; what has not begun when the caller ends is not done."""
    futures = [pool.submit(call, item) for item in items]
    try:
        for future in futures:
            yield awaited(future)
    finally:
        for future in futures:
            future.cancel()
