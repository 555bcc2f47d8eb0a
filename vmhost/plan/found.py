"""A guest by its name, and whether it is one that vmhost may change."""

from __future__ import annotations

from shlex import quote
from typing import Final

from vmhost.model.domains import meant
from vmhost.model.observed import ObservedDomain, ObservedGuests
from vmhost.plan.request import NotFound, Protected, Refused

UNPROTECT: Final = "take 'protect: true' out of its site, then vmhost apply SITE"
"""What to do where a guest is protected, and is not to be any more."""


def find(name: str, observed: ObservedGuests) -> ObservedDomain | None:
    """Return the domain of that name or UUID, or None."""
    return meant(name, observed.domains)


def foreign(domain: ObservedDomain) -> str:
    """Return what a guest is that is none of ours."""
    return f"foreign, made of a copy of the definition of guest {domain.copied}" if domain.copied else "foreign"


def find_ours(name: str, observed: ObservedGuests, *, since: str = "") -> ObservedDomain:
    """Return a guest of vmhost.

    :param since: why even this would change it, where that is not plain.
    :raises NotFound: there is no such domain; :raises Refused: it is foreign, or made by a newer vmhost.
    """
    domain = find(name, observed)
    if domain is None:
        raise NotFound("there is no such guest", subject=name, hint="vmhost guest list")
    if domain.metadata is None:
        hint = f"virsh dominfo {quote(domain.name)}"
        text = f"this guest is {foreign(domain)}: {f'{since}, and ' if since else ''}vmhost does not change it"
        raise Refused(text, subject=name, hint=hint)
    if not domain.metadata.readable:
        raise Refused("its metadata is newer than this vmhost", subject=name, hint="vmhost --version")
    return domain


def refuse_protected(domain: ObservedDomain) -> None:
    """:raises Protected: its site says that it is neither deleted nor replaced, whatever the flags."""
    if domain.metadata and domain.metadata.protect:
        raise Protected("it is protected", subject=domain.name, hint=UNPROTECT)
