"""Waiting until a guest has let go of a device; libvirt itself returns before that."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from vmhost.model.errors import Unreachable

Domain = Any  # libvirt.virDomain

_LOOK_AGAIN: Final = 0.2


def await_gone(domain: Domain, there: Callable[[], bool], what: str, timeout: float) -> None:
    """Wait until a device is no longer in a domain.

    :raises Unreachable: the guest has not let go of it in ``timeout`` seconds; it may still do so.
    """
    deadline = time.monotonic() + timeout
    while there():
        if time.monotonic() >= deadline:
            text = f"the guest has not let go of {what} in {timeout:g} s"
            hint = f"virsh dumpxml {domain.name()}"
            raise Unreachable(text, subject=domain.name(), hint=hint, retryable=True)
        time.sleep(_LOOK_AGAIN)
