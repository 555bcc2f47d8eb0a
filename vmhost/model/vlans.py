"""The VLANs of a bridge port: which one its untagged frames belong to, and which may pass it tagged."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from vmhost.model.units import parse_vid, parse_vid_range, shown


@dataclass(frozen=True, slots=True)
class PortVlans:
    """A port's row of the bridge's VLAN table.

    ``pvid`` is given to untagged frames that come in, 0: they are dropped. Frames of the VLANs in ``untagged`` go out
    without a tag, those of ``tagged`` with it, all others not at all. A port with none of them carries nothing.
    """

    pvid: int = 0
    untagged: frozenset[int] = frozenset()
    tagged: frozenset[int] = frozenset()

    def __str__(self) -> str:
        words = [f"PVID {self.pvid}"] if self.pvid else []
        extra = self.untagged - {self.pvid}
        words += [f"untagged {format_vids(extra)}"] if extra else []
        words += [f"tagged {format_vids(self.tagged)}"] if self.tagged else []
        return ", ".join(words) or "no VLAN"


NO_VLAN: Final = PortVlans()
"""A port that carries nothing: what every port of our bridges is born as."""


def port_vlans(pvid: int, tagged: Iterable[int] = ()) -> PortVlans:
    """Return an access port (``pvid``), a trunk (``tagged``, ``pvid`` 0) or a hybrid port (both).

    :raises ValueError: an id outside 1 to 4094, or one that would be both.
    """
    vids = frozenset(parse_vid(vid) for vid in tagged)
    if not pvid:
        return PortVlans(tagged=vids)
    if parse_vid(pvid) in vids:
        raise ValueError(f"{pvid} is the port's untagged VLAN: it cannot be tagged as well")
    return PortVlans(pvid, frozenset({pvid}), vids)


def parse_vids(text: str) -> frozenset[int]:
    """Return the VLAN ids of ``100,200-299``; of an empty text, none.

    :raises ValueError: for another form, and for ids that IEEE 802.1Q does not allow.
    """
    found: set[int] = set()
    for part in filter(None, (word.strip() for word in text.split(","))):
        if "-" in part[1:]:
            first, last = parse_vid_range(part)
            found.update(range(first, last + 1))
        elif part.isascii() and part.isdecimal() and len(part) < 10:
            found.add(parse_vid(int(part)))
        else:
            raise ValueError(f"{shown(text)} is not a set of VLAN ids: write for example 100,200-299")
    return frozenset(found)


def format_vids(vids: Iterable[int]) -> str:
    """Return VLAN ids as :func:`parse_vids` reads them, in order and as short as possible."""
    return ",".join(f"{first}" if first == last else f"{first}-{last}" for first, last in ranges(vids))


def ranges(vids: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Return VLAN ids as ranges, first and last id each."""
    ordered = sorted(set(vids))
    if not ordered:
        return ()
    breaks = [number for number, (one, other) in enumerate(pairwise(ordered), 1) if other != one + 1]
    edges = [0, *breaks, len(ordered)]
    return tuple((ordered[start], ordered[end - 1]) for start, end in pairwise(edges))
