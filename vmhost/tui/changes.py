"""What a person may ask for, as data: how it is planned, and the command that does the same."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmhost.model.permit import Permit

if TYPE_CHECKING:
    from vmhost.ops.forms import NewGuest
    from vmhost.ops.host import Host
    from vmhost.ops.power import Action
    from vmhost.ops.proposals import Proposal
    from vmhost.ops.serviceproposals import ServiceProposal

    Proposed = Proposal | ServiceProposal

Chosen = frozenset[str]


@dataclass(frozen=True, slots=True)
class Option:
    """Something that a person may permit besides, by pressing ``key``; ``flag`` is its name on the command line."""

    key: str
    flag: str
    words: str


@dataclass(frozen=True)
class Change:
    """A wish: ``propose`` plans it, one proposal for each guest that stands by itself; ``command`` is its equal;
    ``afterwards`` is what the person does when it is done.
    """

    title: str
    propose: Callable[[Host, Chosen], tuple[Proposed, ...]]
    command: Callable[[Chosen], str]
    options: tuple[Option, ...] = ()
    afterwards: str = ""


_WORDS = {"start": "start", "stop": "shut down", "restart": "restart", "power-off": "power off"}
_VERBS = {"start": "start", "stop": "stop", "restart": "restart", "power-off": "stop --power-off"}


def power(names: Sequence[str], action: Action) -> Change:
    """Start, shut down, restart or power off guests."""
    options = (Option("p", "--discard-saved", "lose saved memory"),) if action == "start" else ()
    return Change(
        f"{_WORDS[action]} {listed(names)}",
        lambda host, chosen: host.plan_power(names, action, discard_saved="--discard-saved" in chosen),
        lambda chosen: line(f"guest {_VERBS[action]}".split(), names, chosen),
        options,
    )


def delete(names: Sequence[str]) -> Change:
    """Delete guests."""
    return Change(
        f"delete {listed(names)}",
        lambda host, chosen: (
            host.plan_delete(names, Permit(power_off="--power-off" in chosen, disks="--disks" in chosen)),
        ),
        lambda chosen: line(("guest", "delete"), names, chosen),
        (
            Option("p", "--power-off", "power it off first if it runs"),
            Option("x", "--disks", "delete its disks too, for good"),
        ),
    )


def resize(name: str, cpus: int, memory: int, memory_text: str) -> Change:
    """Give a guest other vCPUs and memory."""
    command = ("guest", "resize", "--cpus", str(cpus), "--memory", memory_text)
    return Change(
        f"resize {name}",
        lambda host, chosen: (
            host.plan_resize(name, cpus=cpus, memory=memory, permit=Permit(stop="--allow-stop" in chosen)),
        ),
        lambda chosen: line(command, (name,), chosen),
        (Option("b", "--allow-stop", "restart it now, so that it has them at once"),),
    )


def create(wish: NewGuest) -> Change:
    """Make a guest."""
    words = ["guest", "create", wish.name]
    for option in ("profile", "site", "image", "cpus", "memory", "disk", "network", "address"):
        words += [f"--{option}", getattr(wish, option)] if getattr(wish, option) else []
    return Change(
        f"new guest {wish.name}",
        lambda host, _: (host.plan_create(wish),),
        lambda _: line(words),
    )


def pin(name: str, cpus: Mapping[str, Any], flags: Sequence[str]) -> Change:
    """Give a guest other pCPUs; ``cpus`` as in a site file, ``flags`` the same for the command line."""
    return Change(
        f"pin {name}",
        lambda host, chosen: (host.plan_pin(name, permit=Permit(stop="--allow-stop" in chosen), **cpus),),
        lambda chosen: line(("guest", "pin", *flags), (name,), chosen),
        (Option("b", "--allow-stop", "restart it now if that is needed"),),
    )


def back_up(name: str) -> Change:
    """Take a point of a guest."""
    return Change(
        f"back up {name}",
        lambda host, chosen: (host.backups.plan(name, full="--full" in chosen),),
        lambda chosen: line(("backup", "run"), (name,), chosen),
        (Option("x", "--full", "a full copy, whatever an increment could rest on"),),
    )


def snapshot(name: str) -> Change:
    """Make a snapshot of a guest, called after the time."""
    return Change(
        f"snapshot of {name}",
        lambda host, _: (host.snapshots.plan_create(name),),
        lambda _: line(("snapshot", "create", name)),
    )


def apply_site(file: str) -> Change:
    """Bring the host to a site file."""

    def propose(host: Host, chosen: Chosen) -> tuple[Proposal, ...]:
        from vmhost.ops.sites import load_site

        permit = Permit(stop="--allow-stop" in chosen, discard_saved="--discard-saved" in chosen)
        return (host.plan(load_site(file), permit),)

    return Change(
        f"apply {Path(file).name}",
        propose,
        lambda chosen: line(("apply",), (file,), chosen),
        (
            Option("b", "--allow-stop", "restart guests whose change waits for that"),
            Option("p", "--discard-saved", "lose saved memory"),
        ),
    )


def apply_network(file: str, seconds: int) -> Change:
    """Bring the host's network alone to a site file."""

    def propose(host: Host, _: Chosen) -> tuple[Proposal, ...]:
        from vmhost.ops.sites import load_site

        return (host.plan_network(load_site(file), confirm=seconds),)

    return Change(
        f"network of {Path(file).name}",
        propose,
        lambda _: line(("net", "apply", file, "--confirm", str(seconds))),
        afterwards="if it waits for a confirmation: look whether you still reach everything, then esc, and y on :net",
    )


def confirm_network() -> Change:
    """Let the network change that waits stay."""
    return Change(
        "confirm the network", lambda host, _: (host.plan_confirmation(),), lambda _: line(("net", "confirm"))
    )


def listed(names: Sequence[str]) -> str:
    """Return names of guests, or how many they are."""
    return ", ".join(names) if len(names) <= 3 else f"{len(names)} guests"


def line(words: Sequence[str], names: Sequence[str] = (), chosen: Chosen = frozenset()) -> str:
    """Return a command line of vmhost: what is done, to which, and what is permitted besides."""
    return shlex.join(["vmhost", *words, *names, *sorted(chosen)])
