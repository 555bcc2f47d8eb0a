"""The distributions' cloud images that ``image pull`` knows: addresses and keyrings, never hashes or keys."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal
from urllib.parse import urljoin

from vmhost.model.errors import NotFound
from vmhost.model.image import Status, how_to_get
from vmhost.model.units import shown


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """Where an image comes from, and what vouches for it.

    ``checksums`` lists digests of files beside it; ``signature`` is a detached OpenPGP signature of that list and
    ``keyring`` the packaged file that it is checked with. Without one only the server's TLS certificate vouches.
    """

    name: str
    url: str
    checksums: str
    algorithm: Literal["sha256", "sha512"]
    signature: str = ""
    keyring: Path | None = None
    keyring_package: str = ""
    firmware: frozenset[str] = frozenset({"bios", "uefi"})
    format: Literal["qcow2", "raw"] = "qcow2"
    proven: bool = False

    @property
    def status(self) -> Status:
        """Whether the project's own tests fetched and booted it."""
        return "ok" if self.proven else "unproven"

    @property
    def vouched_by(self) -> str:
        """Who says that it is what it should be."""
        return f"signature ({self.keyring_package})" if self.signature else "TLS certificate alone"

    @property
    def file(self) -> str:
        """The name of the image in the list of checksums."""
        return self.url.rpartition("/")[2]


def entry(name: str) -> CatalogueEntry:
    """Return the catalogue's entry of a name. :raises NotFound: it has none."""
    known = catalogue()
    if name not in known:
        raise NotFound(f"the catalogue has {', '.join(known)}", subject=shown(name), hint=how_to_get(name))
    return known[name]


def catalogue() -> dict[str, CatalogueEntry]:
    """Return all entries by name."""
    text = (files("vmhost") / "data" / "images" / "catalogue.toml").read_text()
    return {name: _entry(name, table) for name, table in tomllib.loads(text).items()}


def _entry(name: str, table: dict[str, str]) -> CatalogueEntry:
    base = table["base"]
    algorithm = table["algorithm"]
    assert algorithm in ("sha256", "sha512")
    return CatalogueEntry(
        name=name,
        url=urljoin(base, table["image"]),
        checksums=urljoin(base, table["checksums"]),
        algorithm="sha256" if algorithm == "sha256" else "sha512",
        signature=urljoin(base, table["signature"]) if "signature" in table else "",
        keyring=Path(table["keyring"]) if "keyring" in table else None,
        keyring_package=table.get("keyring_package", ""),
        proven=bool(table.get("proven", False)),
    )
