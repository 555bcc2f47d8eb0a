"""The spec that a guest was given last."""

from __future__ import annotations

from functools import lru_cache

from pydantic import ValidationError

from vmhost.model.observed import ObservedDomain
from vmhost.model.spec import BackupSpec, GuestSpec
from vmhost.plan.protection import NO_WISH


def applied_spec(domain: ObservedDomain) -> GuestSpec | None:
    """Return the spec that was applied last, or None for a foreign guest and for one of a newer vmhost."""
    if domain.metadata is None or not domain.metadata.readable:
        return None
    return read_spec(domain.metadata.spec)


def backup_wish(domain: ObservedDomain) -> BackupSpec:
    """Return what a guest's site says of its protection, which may be nothing."""
    spec = applied_spec(domain)
    return spec.backup if spec and spec.backup else NO_WISH


@lru_cache(maxsize=1024)
def read_spec(text: str) -> GuestSpec | None:
    """Read a spec once: it is asked for many times while a guest is planned, and is a frozen value.

    None: this vmhost cannot read it.
    """
    try:
        return GuestSpec.model_validate_json(text)
    except ValidationError:
        return None
