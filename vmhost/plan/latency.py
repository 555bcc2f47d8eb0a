"""What the looks of a probe come to: how many were bad, and how long the good ones took."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Final

from vmhost.model.services import KeptLook, ProbeHistory

TAIL: Final = 0.95


def histories(looks: Iterable[KeptLook], names: Mapping[str, str]) -> Iterator[ProbeHistory]:
    """Yield the history of each probe of guests that are there, by service, guest and probe.

    :param names: the guests' names by their UUIDs.
    """
    there = [look for look in looks if look.guest in names]
    there.sort(key=lambda look: (look.service, names[look.guest], look.probe))  # stable: the oldest stay first
    for _, group in groupby(there, key=lambda look: (look.service, look.guest, look.probe)):
        yield _history(tuple(group), names)


def _history(looks: tuple[KeptLook, ...], names: Mapping[str, str]) -> ProbeHistory:
    times = sorted(look.seconds for look in looks if look.good)
    bad = [look for look in looks if not look.good]
    return ProbeHistory(
        service=looks[0].service,
        guest=names[looks[0].guest],
        probe=looks[0].probe,
        looks=len(looks),
        bad=len(bad),
        since=looks[0].at,
        median=statistics.median(times) if times else None,
        tail=times[math.ceil(TAIL * len(times)) - 1] if times else None,
        most=times[-1] if times else None,
        last_bad=bad[-1].at if bad else None,
        text=bad[-1].text if bad else "",
        latest=tuple(look.seconds if look.good else None for look in looks),
    )
