"""What a guest runs with, which may be more than its definition says until its next boot."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from vmhost.model.domains import DomainFacts
from vmhost.model.observed import ObservedDomain
from vmhost.render.parse.domain import parse_domain

KNOWN: Final = 1024
"""Running domains whose XML is read once, however often a plan asks."""


@dataclass(frozen=True, slots=True)
class Running:
    """vCPUs and bytes of memory that a guest has now; none of either when it does not run."""

    vcpus: int = 0
    memory: int = 0


NOTHING: Final = Running()
"""A guest that does not run, or that the plan ends before its definition counts."""


@lru_cache(maxsize=KNOWN)
def live_facts(xml: str) -> DomainFacts:
    """Return what the XML of a running domain says."""
    return parse_domain(xml)


def running_of(domain: ObservedDomain | None) -> Running:
    """Return what a guest runs with."""
    if domain is None or not domain.raw.live_xml:
        return NOTHING
    live = live_facts(domain.raw.live_xml)
    return Running(live.vcpus, live.memory)
