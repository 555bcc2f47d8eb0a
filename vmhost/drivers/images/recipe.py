"""Recipes: everything that an image of Debian is made from, as data, and the identity that follows from it."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, Final

from vmhost.drivers.files import checksum
from vmhost.model.errors import NotFound
from vmhost.model.units import check_name, shown

PREFIX: Final = "debian-"
ARCHITECTURE: Final = "amd64"


@dataclass(frozen=True, slots=True)
class RecipeFile:
    """A file of the image: its path without leading slash, its bytes; scripts are executable."""

    path: str
    data: bytes

    @property
    def mode(self) -> int:
        """Its permissions: ``0755`` for what begins with ``#!``, otherwise ``0644``."""
        return 0o755 if self.data.startswith(b"#!") else 0o644


@dataclass(frozen=True, slots=True)
class Recipe:
    """What an image is made from.

    ``early`` are files that are there before the packages (their installation reads some of them), ``late`` come after;
    ``date`` (``2026-11-20``, or empty) sets a rebuild from newer packages apart from an older image of the same recipe.
    """

    name: str
    suite: str
    format: int
    packages: tuple[str, ...]
    early: tuple[RecipeFile, ...]
    late: tuple[RecipeFile, ...]
    customize: bytes
    mke2fs_conf: bytes
    date: str = ""

    @property
    def id(self) -> str:
        """The SHA-256 of all this, in hex. Mirrors and tools have no part in it: they must not matter."""
        return checksum(
            {
                "name": self.name,
                "suite": self.suite,
                "architecture": ARCHITECTURE,
                "format": self.format,
                "packages": sorted(self.packages),
                "early": _digests(self.early),
                "late": _digests(self.late),
                "customize": sha256(self.customize).hexdigest(),
                "mke2fs": sha256(self.mke2fs_conf).hexdigest(),
                "date": self.date,
            }
        )


def load(name: str, *, date: str = "") -> Recipe:
    """Return the recipe of an image: ``debian-12``, or ``debian-`` and any suite that the mirrors hold.

    :raises NotFound: the name is none of these.
    """
    table, place = _table()
    suite = _suite(name, table["suites"])
    without = table["without"].get(suite, [])
    return Recipe(
        name=name,
        suite=suite,
        format=table["format"],
        packages=tuple(package for package in table["packages"] if package not in without),
        early=tuple(_tree(place / "files", "")),
        late=tuple(_tree(place / "boot", "boot/")),
        customize=(place / "customize.sh").read_bytes(),
        mke2fs_conf=(place / "mke2fs.conf").read_bytes(),
        date=date,
    )


def names() -> tuple[str, ...]:
    """Return the names of the releases that have a recipe, oldest first."""
    return tuple(f"{PREFIX}{number}" for number in sorted(_table()[0]["suites"], key=int))


def _table() -> tuple[dict[str, Any], Traversable]:
    place = files("vmhost") / "data" / "images" / "debian"
    return tomllib.loads((place / "recipe.toml").read_text()), place


def _suite(name: str, suites: dict[str, str]) -> str:
    word = name.removeprefix(PREFIX)
    if word in suites:
        return suites[word]
    if name == word or not (word.isascii() and word.isalpha() and word.islower()):
        text = f"there is no recipe of that name, only of {', '.join(names())} and debian-SUITE"
        raise NotFound(text, subject=shown(name), hint="vmhost image list --available")
    return check_name(word)


def _tree(place: Traversable, prefix: str) -> Iterator[RecipeFile]:
    for entry in sorted(place.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from _tree(entry, f"{prefix}{entry.name}/")
        else:
            yield RecipeFile(f"{prefix}{entry.name}", entry.read_bytes())


def _digests(tree: tuple[RecipeFile, ...]) -> dict[str, list[object]]:
    return {file.path: [file.mode, sha256(file.data).hexdigest()] for file in tree}
