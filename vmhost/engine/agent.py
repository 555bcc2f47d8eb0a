"""Commands in a guest through its agent (QEMU guest agent protocol: guest-exec, guest-exec-status)."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

from vmhost.model.errors import DriverError
from vmhost.ports import Hypervisor

ANSWER = 5.0
AT_ONCE = 2.0
"""Seconds that somebody who only looks waits for an agent."""
_TIMES = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")


def begin_command(hypervisor: Hypervisor, uuid: str, argv: Sequence[str]) -> int:
    """Begin a command as root in a guest and return its process id there.

    :raises DriverError: the agent is not connected, or the guest does not let it run commands.
    """
    path, *rest = argv
    return int(_ask(hypervisor, uuid, "guest-exec", {"path": path, "arg": rest, "capture-output": True})["pid"])


def output_of(hypervisor: Hypervisor, uuid: str, pid: int) -> bytes | None:
    """Return what a command wrote to its standard output, or None while it still runs.

    :raises DriverError: the agent does not answer, or does not know the command.
    """
    status = _ask(hypervisor, uuid, "guest-exec-status", {"pid": pid})
    return base64.b64decode(status.get("out-data", "")) if status.get("exited") else None


def stolen(hypervisor: Hypervisor, uuid: str) -> float | None:
    """Return which part of its time since its boot a guest was ready to run and the host ran others, by its own count.

    None: it does not say. The agent knows it from QEMU 7.1 on (guest-get-cpustats).
    """
    try:
        answer = json.loads(hypervisor.agent(uuid, json.dumps({"execute": "guest-get-cpustats"}), AT_ONCE))
        times = [{name: int(one.get(name, 0)) for name in _TIMES} for one in answer["return"]]
    except (DriverError, ValueError, TypeError, KeyError, AttributeError):
        return None
    whole = sum(sum(one.values()) for one in times)
    return sum(one["steal"] for one in times) / whole if whole else None


def _ask(hypervisor: Hypervisor, uuid: str, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    answer = json.loads(hypervisor.agent(uuid, json.dumps({"execute": name, "arguments": arguments}), ANSWER))
    value = answer.get("return") if isinstance(answer, dict) else None
    if not isinstance(value, dict):
        raise DriverError(f"the guest agent gave no sensible answer to {name}", subject=uuid)
    return value
