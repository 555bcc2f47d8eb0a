"""The spec that a guest was given last."""

from __future__ import annotations

from pydantic import ValidationError

from vmhost.model.observed import ObservedDomain
from vmhost.model.spec import GuestSpec


def applied_spec(domain: ObservedDomain) -> GuestSpec | None:
    """Return the spec that was applied last, or None for a foreign guest and for one of a newer vmhost."""
    if domain.metadata is None or not domain.metadata.readable:
        return None
    try:
        return GuestSpec.model_validate_json(domain.metadata.spec)
    except ValidationError:
        return None
