"""Calls that may take long, each in a thread of its own; the answer comes back as a message.

The threads are daemons and not of a pool: a call that hangs inside libvirt must not keep anybody from leaving.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from textual.message import Message

from vmhost.model.errors import VmhostError

if TYPE_CHECKING:
    from textual.app import App
    from textual.dom import DOMNode

T = TypeVar("T")
_log = logging.getLogger(__name__)


class Answer(Message):
    """What an errand brings back: a call to make where widgets may be touched."""

    def __init__(self, owner: DOMNode, call: Callable[[], None]) -> None:
        super().__init__()
        self._owner = owner
        self._call = call

    def deliver(self) -> None:
        """Make the call, unless its screen is gone meanwhile, or going: then its widgets are gone before itself."""
        owner = self._owner
        if owner is owner.app or (owner.is_attached and owner.display):
            self._call()


def send(
    owner: DOMNode,
    call: Callable[[], T],
    then: Callable[[T], None],
    failed: Callable[[VmhostError], None],
    name: str = "errand",
) -> threading.Thread:
    """Make ``call`` in a thread, then ``then`` or ``failed`` in the app's, as long as the owner's screen is there."""
    app: App[object] = owner.app

    def work() -> None:
        try:
            result = call()
        except VmhostError as error:
            found = error
            app.post_message(Answer(owner, lambda: failed(found)))
        except Exception as error:  # noqa: BLE001 - told to the person like any error; a thread's end would say nothing
            _log.exception("an errand failed")
            unexpected = VmhostError(f"unexpected failure: {type(error).__name__}: {error}")
            app.post_message(Answer(owner, lambda: failed(unexpected)))
        else:
            app.post_message(Answer(owner, lambda: then(result)))

    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    return thread
