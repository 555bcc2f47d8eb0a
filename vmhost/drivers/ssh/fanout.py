"""One function over many guests at once, with a bound on how many."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from vmhost.model.errors import VmhostError

Item = TypeVar("Item")
Result = TypeVar("Result")

WORKERS: Final = 8


def map_guests(
    function: Callable[[Item], Result], items: Mapping[str, Item], *, workers: int = WORKERS
) -> dict[str, Result | VmhostError]:
    """Call ``function`` with each guest's item, several at once, and return what each gave or the error it raised.

    The order of the answer is that of ``items``. A slow guest holds up one worker, not the others. Ctrl-C, and an error
    that is not a :class:`VmhostError`, stop the work that has not begun and are raised at once; calls under way end by
    their own deadlines, in threads that do not keep the program alive.

    :param workers: calls at once, 1 or more.
    """
    todo: queue.SimpleQueue[str] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[str, Result | BaseException]] = queue.SimpleQueue()
    for name in items:
        todo.put(name)
    stopped = threading.Event()

    def work() -> None:
        while not stopped.is_set():
            try:
                name = todo.get_nowait()
            except queue.Empty:
                return
            try:
                done.put((name, function(items[name])))
            except VmhostError as error:
                done.put((name, error))
            except BaseException as error:  # noqa: BLE001 - handed to the caller, who raises it
                stopped.set()
                done.put((name, error))

    threads = [threading.Thread(target=work, daemon=True, name=f"guest-{n}") for n in range(min(workers, len(items)))]
    for thread in threads:
        thread.start()
    answers: dict[str, Result | VmhostError] = {}
    try:
        while len(answers) < len(items):
            name, answer = done.get()
            if isinstance(answer, BaseException) and not isinstance(answer, VmhostError):
                raise answer
            answers[name] = answer
    finally:
        stopped.set()
    return {name: answers[name] for name in items}
