"""Steps that plug memory into a running guest; a part of :mod:`vmhost.model.steps`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class PlugMemory:
    """Plug a memory module of ``size`` bytes into a running guest; its definition says the same from its next boot on.

    ``alias`` is what the module is known by.
    """

    uuid: str
    name: str
    alias: str
    size: int
    kind: Literal["plug-memory"] = "plug-memory"


@dataclass(frozen=True, slots=True)
class UnplugMemory:
    """Take a memory module out of a running guest, once the guest has let go of it."""

    uuid: str
    name: str
    alias: str
    kind: Literal["unplug-memory"] = "unplug-memory"
