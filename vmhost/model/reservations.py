"""What is reserved on a host beside its guests: VLAN ids of networks, and what rests after it was released."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from vmhost.model.errors import AlreadyThere

REST: Final = {"vlan": timedelta(hours=24), "address": timedelta(hours=1)}
"""How long nobody else gets what was released: switches, neighbours and name servers still remember who had it."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """One VLAN id or one address that is somebody's.

    ``realm`` is where it is unique: empty for VLAN ids, which are unique on the host; for addresses see
    ``vmhost.plan.addresses.realm_of``. ``owner`` is a network of ``site``, a guest, or words of whoever reserved it by
    hand, without a site. ``pool`` is the range that it was taken from. Times are ISO 8601 in UTC; ``until`` is empty
    while it is held, afterwards until when it rests.
    """

    kind: Literal["vlan", "address"]
    value: str
    owner: str
    site: str = ""
    realm: str = ""
    pool: str = ""
    since: str = ""
    until: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """What no two reservations have in common."""
        return self.kind, self.realm, self.value

    @property
    def held(self) -> bool:
        """Whether it is somebody's now; otherwise it rests."""
        return not self.until

    def is_of(self, site: str, owner: str) -> bool:
        """Whether it is, or was, this one's."""
        return (self.site, self.owner) == (site, owner)


def released(item: Reservation, now: str) -> Reservation:
    """Return a reservation as it is once it was given up: it rests for as long as :data:`REST` says."""
    return replace(item, until=_later(now, REST[item.kind]))


def in_force(items: Iterable[Reservation], now: str) -> tuple[Reservation, ...]:
    """Return those that are held or still rest."""
    return tuple(item for item in items if item.held or item.until > now)


def keep(have: Iterable[Reservation], items: Sequence[Reservation], now: str) -> tuple[Reservation, ...]:
    """Return what is reserved after some were added or replaced; what has rested long enough is left out.

    :raises AlreadyThere: another holds one of them.
    """
    there = {item.key: item for item in in_force(have, now)}
    for item in items:
        other = there.get(item.key)
        if other is not None and other.held and not other.is_of(item.site, item.owner):
            text = f"{item.kind} {item.value} is reserved for {other.owner}"
            raise AlreadyThere(text, subject=item.owner, hint="vmhost net vlan list")
        there[item.key] = item
    return tuple(there.values())


def iso(now: float) -> str:
    """Return a time, in seconds since the epoch, as reservations and metadata carry it."""
    return datetime.fromtimestamp(int(now), UTC).isoformat().replace("+00:00", "Z")


def _later(now: str, span: timedelta) -> str:
    return (datetime.fromisoformat(now) + span).isoformat().replace("+00:00", "Z")
