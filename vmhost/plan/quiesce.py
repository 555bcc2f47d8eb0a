"""What is done around the instant of a snapshot or a backup, so that what it holds is in order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from vmhost.model.observed import ObservedDomain
from vmhost.model.plan import Change, Planned
from vmhost.model.snapsteps import Freeze, PostThaw, PreFreeze, SeeThawed, Thaw
from vmhost.model.steps import Step
from vmhost.render.service import state_of

FREEZE: Final = 10.0
"""Seconds that a guest has to freeze its file systems, its own hooks included."""


@dataclass(frozen=True, slots=True)
class Around:
    """Steps before and after the instant, and those behind the commit point."""

    before: tuple[Planned, ...] = ()
    after: tuple[Planned, ...] = ()
    last: tuple[Planned, ...] = ()


def around(domain: ObservedDomain, *, required: bool = False) -> Around:
    """Return the steps around an instant at which a guest is frozen. ``required``: that it is not is a failure."""
    uuid, name = domain.uuid, domain.name
    names = ", ".join(services_with_hooks(domain))
    thaw = Thaw(uuid, name, must=True)
    freeze = _planned(Freeze(uuid, name, FREEZE, required=required), thaw, name, "freeze its file systems")
    thawed = _planned(Thaw(uuid, name), None, name, "thaw its file systems")
    seen = _planned(SeeThawed(uuid, name), None, name, "see that it is thawed")
    if not names:
        return Around((freeze,), (thawed,), (seen,))
    tell = _planned(PreFreeze(uuid, name), PostThaw(uuid, name, must=True), name, f"services get ready: {names}")
    return Around(
        (tell, freeze),
        (thawed, _planned(PostThaw(uuid, name), None, name, f"services go on: {names}")),
        (seen, _planned(PostThaw(uuid, name, must=True), None, name, f"see that services go on: {names}")),
    )


def thawing(domain: ObservedDomain) -> Iterator[Planned]:
    """Yield the steps that thaw a guest which was left frozen, and let its services go on."""
    uuid, name = domain.uuid, domain.name
    yield _planned(Thaw(uuid, name, must=True), None, name, "thaw its file systems")
    names = ", ".join(services_with_hooks(domain))
    if names:
        yield _planned(PostThaw(uuid, name, must=True), None, name, f"services go on: {names}")


def services_with_hooks(domain: ObservedDomain) -> Iterator[str]:
    """Yield the services of a guest that have hooks, by name."""
    for service in sorted(domain.metadata.services if domain.metadata else (), key=lambda service: service.name):
        state = state_of(service)
        if state is not None and (state.hooks.pre_freeze is not None or state.hooks.post_thaw is not None):
            yield service.name


def _planned(do: Step, undo: Step | None, name: str, text: str) -> Planned:
    return Planned(do, undo, Change.LIVE, name, f"{name}: {text}")
