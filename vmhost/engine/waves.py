"""Which steps of a plan may be done side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from vmhost.model.plan import Planned
from vmhost.model.snapsteps import MakeOverlay
from vmhost.model.steps import CreateSeed, CreateVolume, DefineDomain

INDEPENDENT: Final = (CreateVolume, CreateSeed, DefineDomain, MakeOverlay)
"""Each makes a thing of its own and looks at no other: libvirt takes a definition before its disks are there."""

AT_ONCE: Final = 8


def in_waves(steps: Sequence[Planned]) -> Iterator[range]:
    """Return the numbers of the steps, in order and in groups: those of a group do not depend on each other.

    :param steps: of one plan, from the first; a group has at most 8.
    """
    first = 0
    while first < len(steps):
        end = first + 1
        while end < len(steps) and end - first < AT_ONCE and _independent(steps[first]) and _independent(steps[end]):
            end += 1
        yield range(first, end)
        first = end


def _independent(item: Planned) -> bool:
    return isinstance(item.do, INDEPENDENT)
