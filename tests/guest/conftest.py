"""Two real Debian guests, booted once for those who share them, through the command line as a person types it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.labfixture import InLab
from vmhost.drivers.command import Completed, run
from vmhost.lab.cache import images as image_cache

ROOT = Path(__file__).parents[2]
SITE = ROOT / "examples" / "two-guests.yaml"
VMHOST = str(Path(sys.executable).with_name("vmhost"))
GUESTS = ("db-01", "web-01")
DEMO = pytest.mark.xdist_group("demo")
"""For tests with the guests that run for all of them: they share a lab."""


def vmhost(*words: str, check: bool = True, timeout: float = 60, stdin: bytes = b"") -> Completed:
    """Run the command line; ``check`` False returns whatever its exit code is."""
    return run([VMHOST, *words], timeout=timeout, check=check, input=stdin)


@dataclass(frozen=True)
class Booted:
    """The two guests after ``vmhost apply``: its outcome and what it said."""

    talk: str
    site: Path


@pytest.fixture(scope="session")
def image() -> str:
    """The image that the examples use; it is built before the lab is entered (tests/plugins/inlab.py)."""
    if not any(image_cache().glob("debian-12-*.json")):
        pytest.fail("there is no image debian-12: vmhost image build debian-12, outside of the lab")
    return "debian-12"


@contextmanager
def applied(site: Path) -> Iterator[Booted]:
    """Apply a site, and remove the guests that it made at the end."""
    before = names()
    done = vmhost("apply", str(site), "--yes", timeout=900)
    made = names() - before
    yield Booted(done.stderr.decode(), site)
    if made := made & names():
        vmhost("guest", "delete", *sorted(made), "--power-off", "--disks", "--yes", timeout=120)


def names() -> set[str]:
    """The guests that there are."""
    return set(vmhost("guest", "list", "-o", "name").text.split())


@pytest.fixture(scope="session")
def booted(lab: InLab, image: str) -> Iterator[Booted]:
    """Apply the example once for all tests that are marked with ``DEMO``."""
    del lab, image
    with applied(SITE) as found:
        yield found
