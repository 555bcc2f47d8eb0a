"""What a person may ask for of services inside guests: planned as any change, with the command that does the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vmhost.tui.changes import Change, Chosen, Option, line, listed

if TYPE_CHECKING:
    from vmhost.model.services import Rolling
    from vmhost.ops.host import Host
    from vmhost.ops.serviceproposals import ServiceProposal
    from vmhost.ops.services import Verb

Wanted = Mapping[str, Sequence[str]]
"""Services, each with the guests that are meant; none: all that have it."""


def act(wanted: Wanted, verb: Verb) -> Change:
    """Start, stop or restart services."""

    def propose(host: Host, _: Chosen) -> tuple[ServiceProposal, ...]:
        from vmhost.ops.serviceproposals import propose_act

        return tuple(propose_act(host, name, verb, guests) for name, guests in wanted.items())

    def command(_: Chosen) -> str:
        return "; ".join(line(("service", verb, name, *_guests(guests))) for name, guests in wanted.items())

    return Change(f"{verb} {_listed(wanted)}", propose, command)


def delete(name: str, guests: Sequence[str]) -> Change:
    """Take a service out of guests."""

    def propose(host: Host, _: Chosen) -> tuple[ServiceProposal, ...]:
        from vmhost.ops.serviceproposals import propose_delete

        return (propose_delete(host, name, guests),)

    words = ("service", "delete", name, *_guests(guests))
    return Change(f"delete {_listed({name: guests})}", propose, lambda _: line(words))


def deploy(file: str, only: Sequence[str], guests: Sequence[str]) -> Change:
    """Bring the services of a site file to its guests."""

    def propose(host: Host, _: Chosen) -> tuple[ServiceProposal, ...]:
        from vmhost.ops.serviceproposals import propose_deploy

        return (propose_deploy(host, file, only, guests),)

    words = ["service", "deploy", file]
    for name in only:
        words += ["--only", name]
    return Change(f"deploy {Path(file).name}", propose, lambda _: line((*words, *_guests(guests))))


def roll(name: str, how: Rolling, *, file: str = "", to: str = "") -> Change:
    """Change a service guest by guest, to what a site file says or to another version."""

    def propose(host: Host, chosen: Chosen) -> tuple[ServiceProposal, ...]:
        from vmhost.ops.serviceproposals import propose_roll

        return (propose_roll(host, name, how, file=file, to=to, rollback="--rollback-on-failure" in chosen),)

    words = ["service", "roll", name, *([file] if file else []), *(["--to", to] if to else []), *_rolling(how)]
    return Change(
        f"roll {name} to {to or Path(file).name}",
        propose,
        lambda chosen: line(words, (), chosen),
        (Option("b", "--rollback-on-failure", "take everything back when one fails"),),
    )


def roll_back(name: str, how: Rolling) -> Change:
    """Take the last roll of a service back."""

    def propose(host: Host, _: Chosen) -> tuple[ServiceProposal, ...]:
        from vmhost.ops.serviceproposals import propose_back

        return (propose_back(host, name, how),)

    return Change(f"roll {name} back", propose, lambda _: line(("service", "roll", name, "--back")))


def _rolling(how: Rolling) -> tuple[str, ...]:
    return ("--canary", str(how.canary), "--batch", str(how.batch), "--max-unavailable", str(how.unavailable))


def _guests(guests: Sequence[str]) -> list[str]:
    return [word for guest in guests for word in ("--guest", guest)]


def _listed(wanted: Wanted) -> str:
    parts = [f"{name} in {listed(guests)}" if guests else name for name, guests in wanted.items()]
    return "; ".join(parts) if len(parts) <= 3 else f"{len(parts)} services"
