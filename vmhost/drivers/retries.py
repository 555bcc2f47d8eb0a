"""Trying again: the one place where it is set up."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Out = TypeVar("Out")


def tried(call: Callable[[], Out], on: type[Exception], *, attempts: int | None = None, **how: float | None) -> Out:
    """Return what ``call`` returns; while it raises ``on``, call it again after a pause that grows.

    :param how: ``timeout``, ``wait_initial``, ``wait_max`` and ``wait_jitter`` in seconds, as stamina has them.
    """
    # Imported here: most commands try nothing again.
    import stamina
    from stamina.instrumentation import set_on_retry_hooks

    set_on_retry_hooks(())  # by default it writes to stdout, where data goes
    for attempt in stamina.retry_context(on=on, attempts=attempts, **how):  # type: ignore[arg-type]
        with attempt:
            return call()
    raise AssertionError("the last attempt returns or raises")
