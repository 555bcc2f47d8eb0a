"""What a planner is given: the wish, the world, what chance has drawn, and what the person permits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vmhost.model.errors import Conflict, NoCapacity, NotFound, Protected, Refused
from vmhost.model.observed import Observed
from vmhost.model.permit import Permit
from vmhost.model.plan import Note, Planned
from vmhost.model.spec import Site
from vmhost.render.templates import Templates


@dataclass(frozen=True, slots=True)
class Drawn:
    """Identities for a guest that does not exist yet, drawn before planning so that planning stays pure.

    ``macs`` and ``ssh_ports`` hold one for each NIC of the spec; ``host_key`` is the public line.
    """

    uuid: str
    host_key: str
    macs: tuple[str, ...] = ()
    ssh_ports: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """Everything that planning a site needs.

    ``disks`` and ``logs`` are directories of the host; ``login_key`` is the public line of the site's own SSH key;
    ``direct`` holds those directories of disks in which QEMU can pass the host's cache by; ``applied`` is the time
    (ISO 8601, UTC) that metadata will carry, ``user`` and ``owner`` the person; ``command`` changes a guest past the
    site's file, and is noted there.
    """

    site: Site
    observed: Observed
    drawn: Mapping[str, Drawn]
    login_key: str
    domain_templates: Templates
    seed_templates: Templates
    disks: str
    logs: str
    applied: str
    user: str
    permit: Permit = field(default_factory=Permit)
    direct: frozenset[str] = frozenset()
    command: str = ""


@dataclass(frozen=True, slots=True)
class Parts:
    """The steps of one guest on both sides of the commit point, and what was left alone."""

    steps: tuple[Planned, ...] = ()
    after: tuple[Planned, ...] = ()
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a wish cannot be met; ``kind`` is the error that a single refusal becomes."""

    subject: str
    text: str
    hint: str = ""
    kind: type[Refused] | type[NotFound] = Conflict


def raise_all(refusals: list[Refusal]) -> None:
    """Raise one error for all refusals, or return when there are none.

    :raises Refused: with every reason, one a line; :raises NotFound: when the only one is about something missing.
    """
    if not refusals:
        return
    if len(refusals) == 1:
        only = refusals[0]
        raise only.kind(only.text, subject=only.subject, hint=only.hint)
    text = "\n".join(f"{item.subject}: {item.text}" for item in refusals)
    hint = "; ".join(dict.fromkeys(item.hint for item in refusals if item.hint))
    kinds = {item.kind for item in refusals}
    kind = kinds.pop() if len(kinds) == 1 else Refused
    raise kind(f"{len(refusals)} reasons against it:\n{text}", hint=hint)


__all__ = [
    "Conflict",
    "Drawn",
    "NoCapacity",
    "NotFound",
    "Parts",
    "Permit",
    "Protected",
    "Refusal",
    "Refused",
    "Request",
    "raise_all",
]
