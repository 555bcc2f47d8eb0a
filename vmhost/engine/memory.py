"""Memory plugged into a running guest, and brought online there by its agent (guest-set-memory-blocks)."""

from __future__ import annotations

import json
from threading import Event
from typing import Any, Final

from vmhost.engine.agent import ANSWER
from vmhost.engine.context import Context
from vmhost.model.errors import DriverError
from vmhost.model.events import Notice
from vmhost.model.memorysteps import PlugMemory
from vmhost.ports import Hypervisor

SEEN: Final = 5.0
"""Seconds in which a guest that takes memory has seen the new module."""
_LOOK_AGAIN: Final = 0.2


def plug_memory(step: PlugMemory, context: Context) -> None:
    """Plug a module in, and ask the guest's agent to use it; where none answers, that is said.

    :raises DriverError: it was not plugged in.
    """
    hypervisor, clock = context.ports.hypervisor, context.ports.clock
    before = _blocks(hypervisor, step.uuid)
    hypervisor.plug_memory(step.uuid, step.alias, step.size)
    deadline = clock.monotonic() + SEEN
    while before is not None and clock.monotonic() < deadline:
        new = {index: online for index, online in (_blocks(hypervisor, step.uuid) or {}).items() if index not in before}
        if new and (all(new.values()) or _bring_online(hypervisor, step.uuid, new)):
            return
        Event().wait(_LOOK_AGAIN)
    text = "its agent did not bring the new memory online: unless the guest does so by itself, it does not use it yet"
    context.on_event(Notice(step.name, text))


def _blocks(hypervisor: Hypervisor, uuid: str) -> dict[int, bool] | None:
    """Return the guest's blocks of memory and whether it uses them; None: it does not say."""
    found = _ask(hypervisor, uuid, "guest-get-memory-blocks", {})
    try:
        return None if found is None else {int(one["phys-index"]): bool(one["online"]) for one in found}
    except (KeyError, TypeError, ValueError):
        return None


def _bring_online(hypervisor: Hypervisor, uuid: str, new: dict[int, bool]) -> bool:
    wish = [{"phys-index": index, "online": True} for index, online in new.items() if not online]
    found = _ask(hypervisor, uuid, "guest-set-memory-blocks", {"mem-blks": wish})
    return found is not None and all(one.get("response") == "success" for one in found if isinstance(one, dict))


def _ask(hypervisor: Hypervisor, uuid: str, name: str, arguments: dict[str, Any]) -> list[Any] | None:
    question = {"execute": name, **({"arguments": arguments} if arguments else {})}
    try:
        answer = json.loads(hypervisor.agent(uuid, json.dumps(question), ANSWER))
    except (DriverError, ValueError):
        return None
    found = answer.get("return") if isinstance(answer, dict) else None
    return found if isinstance(found, list) else None
