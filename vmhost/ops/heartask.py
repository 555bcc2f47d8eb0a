"""Asking a guest whether it is there, and what its silence is worth."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum
from math import ceil
from typing import TYPE_CHECKING, Final

from vmhost.engine.services.probing import PING
from vmhost.engine.session import ssh_target
from vmhost.model.errors import HostKeyMismatch, PermissionDenied, Silent, VmhostError
from vmhost.model.reach import Jump
from vmhost.ports import GREETING

if TYPE_CHECKING:
    from vmhost.model.observed import ObservedDomain
    from vmhost.model.spec.heartbeat import HeartbeatSpec
    from vmhost.ports import Ports

GRACE: Final = 3.0
"""Seconds that a question may take longer than its own time-outs; beyond, the host is to blame."""

_AGENTS: Final = threading.BoundedSemaphore(3)
"""libvirtd carries out five requests of a client at once: guests that hang leave some to the others."""


class Reply(StrEnum):
    """What came of one question. Unsure: something on the way failed, or somebody answered with an error."""

    ANSWERED = "answered"
    SILENT = "silent"
    UNSURE = "unsure"


@dataclass(frozen=True, slots=True)
class Replies:
    """What came of all questions of a look, by way; ``text`` says it, ``slow``: one took longer than it could."""

    by_way: dict[str, Reply]
    text: str
    slow: bool

    @property
    def answered(self) -> bool:
        return Reply.ANSWERED in self.by_way.values()

    def silent(self, heard: Collection[str]) -> bool:
        """Whether every way by which the guest has answered before brings nothing but silence."""
        return bool(heard) and all(self.by_way.get(way) is Reply.SILENT for way in heard)


def ask(domain: ObservedDomain, spec: HeartbeatSpec, ports: Ports, *, learn: bool = False) -> Replies:
    """Ask a guest by the ways of its heartbeat, until one answers; ``learn``: by all of them."""
    ways: tuple[tuple[str, Callable[[], tuple[Reply, str, float]], float], ...] = (
        ("agent", lambda: _ask_agent(domain, spec, ports), GREETING + max(1, ceil(spec.timeout))),
        ("ssh", lambda: _ask_ssh(domain, spec, ports), 2 * spec.timeout),
    )
    by_way, said, slow = {}, [], False
    for way, question, most in ways:
        if spec.by in ("any", way):
            by_way[way], text, seconds = question()
            slow |= seconds > most + GRACE
            said.append(f"{way}: {text}")
            if by_way[way] is Reply.ANSWERED and not learn:
                break
    return Replies(by_way, "; ".join(said), slow)


def _ask_agent(domain: ObservedDomain, spec: HeartbeatSpec, ports: Ports) -> tuple[Reply, str, float]:
    with _AGENTS:
        began = ports.clock.monotonic()
        try:
            ports.hypervisor.agent(domain.uuid, PING, spec.timeout)
        except VmhostError as error:
            reply = Reply.SILENT if isinstance(error, Silent) else Reply.UNSURE
            return reply, error.message, ports.clock.monotonic() - began
        return Reply.ANSWERED, "", ports.clock.monotonic() - began


def _ask_ssh(domain: ObservedDomain, spec: HeartbeatSpec, ports: Ports) -> tuple[Reply, str, float]:
    """Sign in anew and run a command: a connection that is still open proves nothing.

    Who is asked through another machine may be well when that one is silent.
    """
    began = ports.clock.monotonic()
    reply, text, through = Reply.ANSWERED, "", False
    try:
        target = ssh_target(domain, ports)
        through = isinstance(target.via, Jump)
        session = ports.shell.connect(target, deadline=began + spec.timeout)
        try:
            session.run(("true",), timeout=spec.timeout)
        finally:
            session.close()
    except (PermissionDenied, HostKeyMismatch) as error:
        text = error.message  # it does not let us in, yet somebody answers: no restart would mend that
    except VmhostError as error:
        reply, text = Reply.SILENT if isinstance(error, Silent) and not through else Reply.UNSURE, error.message
    return reply, text, ports.clock.monotonic() - began
