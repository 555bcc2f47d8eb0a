"""Where this machine gets Debian from, and hence where an image gets it from."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vmhost.drivers.command import run
from vmhost.model.errors import Absent

KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_FORMAT: Final = "$(REPO_URI)|$(RELEASE)|$(ORIGIN)"
_SUITE = re.compile(r"(?P<base>[a-z]+)(?P<part>-updates|-security)?")
_APT_SETTINGS: Final = (
    "Acquire::http",
    "Acquire::https",
    "Acquire::Check-Valid-Until",
    "Acquire::Check-Date",
    "Acquire::Retries",
)


@dataclass(frozen=True, slots=True)
class AptSource:
    """A repository and one of its suites."""

    uri: str
    suite: str


def host_sources() -> tuple[AptSource, ...]:
    """Return what APT of this machine takes from Debian, in APT's own reading of its files; empty on other systems.

    Source: ``apt-get indextargets``, which APT offers to programs (apt-get(8), acquire-additional-files.md in apt-doc).
    """
    lines = run(["apt-get", "indextargets", "--format", _FORMAT, "Created-By: Packages"], timeout=60).text.splitlines()
    return parse_targets(lines)


def parse_targets(lines: Iterable[str]) -> tuple[AptSource, ...]:
    """Return the sources of Debian among lines of ``apt-get indextargets``, written as :data:`_FORMAT` says."""
    found: dict[AptSource, None] = {}
    for line in lines:
        uri, suite, origin = line.strip().split("|")
        # Before the first "apt-get update" APT does not know the origin yet; a mirror's path ends like this then.
        if origin == "Debian" or uri.rstrip("/").endswith(("/debian", "/debian-security")):
            found[AptSource(uri.rstrip("/"), suite)] = None
    return tuple(found)


def sources_for(suite: str, host: Iterable[AptSource]) -> tuple[AptSource, ...]:
    """Return the sources of a suite on the mirrors that the host uses: the suite, its updates and security.

    ``sid`` has neither updates nor security. Empty when the host has no mirror of Debian.
    """
    wanted: dict[AptSource, None] = {}
    for source in host:
        match = _SUITE.fullmatch(source.suite)
        if match and (suite != "sid" or not match["part"]):
            wanted[AptSource(source.uri, suite + (match["part"] or ""))] = None
    return tuple(wanted)


def sources_file(sources: Iterable[AptSource]) -> str:
    """Return the ``debian.sources`` of the image (deb822, sources.list(5)).

    :raises Absent: Debian's keyring is not installed here, so nothing could be verified.
    """
    if not KEYRING.exists():
        hint = "apt-get install debian-archive-keyring"
        raise Absent("Debian's keyring is not installed", subject=str(KEYRING), hint=hint)
    return "\n".join(
        f"Types: deb\nURIs: {source.uri}\nSuites: {source.suite}\nComponents: main\nSigned-By: {KEYRING}\n"
        for source in sources
    )


def host_apt_settings() -> str:
    """Return how this machine's APT fetches (proxies, retries, checks of dates), as text for ``apt.conf``."""
    return run(["apt-config", "dump", "--format", '%F "%v";%n', *_APT_SETTINGS], timeout=60).text
