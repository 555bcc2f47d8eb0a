"""What a person may ask for, as data: how it is planned, and the command that does the same."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vmhost.model.permit import Permit

if TYPE_CHECKING:
    from vmhost.ops.forms import NewGuest
    from vmhost.ops.host import Host
    from vmhost.ops.power import Action
    from vmhost.ops.proposals import Proposal

Chosen = frozenset[str]


@dataclass(frozen=True, slots=True)
class Option:
    """Something that a person may permit besides, by pressing ``key``; ``flag`` is its name on the command line."""

    key: str
    flag: str
    words: str


@dataclass(frozen=True)
class Change:
    """A wish: ``propose`` plans it, one proposal for each guest that stands by itself; ``command`` is its equal."""

    title: str
    propose: Callable[[Host, Chosen], tuple[Proposal, ...]]
    command: Callable[[Chosen], str]
    options: tuple[Option, ...] = ()


_WORDS = {"start": "start", "stop": "shut down", "restart": "restart", "power-off": "power off"}
_VERBS = {"start": "start", "stop": "stop", "restart": "restart", "power-off": "stop --power-off"}


def power(names: Sequence[str], action: Action) -> Change:
    """Start, shut down, restart or power off guests."""
    options = (Option("p", "--discard-saved", "lose saved memory"),) if action == "start" else ()
    return Change(
        f"{_WORDS[action]} {_listed(names)}",
        lambda host, chosen: host.plan_power(names, action, discard_saved="--discard-saved" in chosen),
        lambda chosen: _line(f"guest {_VERBS[action]}", names, chosen),
        options,
    )


def delete(names: Sequence[str]) -> Change:
    """Delete guests."""
    return Change(
        f"delete {_listed(names)}",
        lambda host, chosen: (
            host.plan_delete(names, Permit(power_off="--power-off" in chosen, disks="--disks" in chosen)),
        ),
        lambda chosen: _line("guest delete", names, chosen),
        (
            Option("p", "--power-off", "power it off first if it runs"),
            Option("x", "--disks", "delete its disks too, for good"),
        ),
    )


def resize(name: str, cpus: int, memory: int, memory_text: str) -> Change:
    """Give a guest other vCPUs and memory."""
    return Change(
        f"resize {name}",
        lambda host, chosen: (
            host.plan_resize(name, cpus=cpus, memory=memory, permit=Permit(stop="--allow-stop" in chosen)),
        ),
        lambda chosen: _line(f"guest resize --cpus {cpus} --memory {shlex.quote(memory_text)}", (name,), chosen),
        (Option("b", "--allow-stop", "restart it now, so that it has them at once"),),
    )


def create(wish: NewGuest) -> Change:
    """Make a guest."""
    words = ["vmhost", "guest create", shlex.quote(wish.name), "--image", shlex.quote(wish.image), "--cpus", wish.cpus]
    words += ["--memory", shlex.quote(wish.memory), "--disk", shlex.quote(wish.disk), "--network", wish.network]
    words += ["--address", shlex.quote(wish.address)] if wish.address else []
    return Change(
        f"new guest {wish.name}",
        lambda host, _: (host.plan_create(wish),),
        lambda _: " ".join(words),
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{len(names)} guests"


def _line(command: str, names: Sequence[str], chosen: Chosen) -> str:
    return " ".join(["vmhost", command, *(shlex.quote(name) for name in names), *sorted(chosen)])
