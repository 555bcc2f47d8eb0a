"""An image: a read-only base that guests' root disks lie on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Literal

Firmware = Literal["bios", "uefi"]
"""What a guest boots by."""

Source = Literal["build", "pull", "import"]
"""Where an image comes from: built from Debian's mirrors, downloaded, or a file that was here already."""

Status = Literal["ok", "unproven"]
"""``unproven``: an image that was never fetched and booted by the project's own tests."""


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """What the store knows of an image.

    ``id`` is the SHA-256 of what it was made from (recipe or source), ``sha256`` that of the file; sizes are bytes;
    ``created`` is ISO 8601 in UTC; ``firmware`` is what it boots by.
    """

    name: str
    id: str
    path: Path
    format: str
    virtual_size: int
    size: int
    sha256: str
    created: str
    firmware: frozenset[str]
    source: Source
    status: Status = "ok"


@dataclass(frozen=True, slots=True)
class Obtainable:
    """An image that can be had: by which command, what vouches for it, and whether the project's own tests had it."""

    name: str
    source: Source
    vouched_by: str
    status: Status


def how_to_get(name: str) -> str:
    """Return what to type for an image that is not here."""
    return f"vmhost image build {quote(name)}" if name.startswith("debian-") else "vmhost image list --available"
