"""The harm that a person allows, each kind by its own name."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Permit:
    """What a plan may do beyond what is harmless.

    ``stop``: shut running guests down; ``power_off``: take the power from guests that are removed; ``disks``: delete
    the disks of guests that are removed; ``discard_saved``: lose saved memory. ``replace``, ``prune`` and
    ``overwrite`` name guests, the last those of which a command's changes, and others' files of disks, are given up.
    """

    stop: bool = False
    power_off: bool = False
    disks: bool = False
    discard_saved: bool = False
    replace: frozenset[str] = frozenset()
    prune: frozenset[str] = frozenset()
    overwrite: frozenset[str] = frozenset()
