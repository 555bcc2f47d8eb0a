"""Whether a guest was left frozen: light, since every listing asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmhost.render.parse.snapshots import parse_snapshots

if TYPE_CHECKING:
    from vmhost.model.domains import ObservedDomain


def frozen_since(domain: ObservedDomain) -> str:
    """Return since when a guest's file systems are frozen and nobody could thaw them, or an empty text."""
    return parse_snapshots(domain.raw.xml).frozen if domain.active and domain.metadata else ""
