"""Fixtures for tests that run in a lab (markers ``lab``, ``guest``, ``backup``); see plugins/inlab.py."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import uuid4

import pytest

from vmhost import lab as labs
from vmhost.drivers.command import Completed, run
from vmhost.lab import daemons

URI = daemons.URI


@dataclass(frozen=True)
class InLab:
    """The lab that the tests are in."""

    name: str
    uri: str = URI

    def virsh(self, *words: str, check: bool = True, timeout: float = 60) -> Completed:
        """Run virsh, the outside witness."""
        return run(["virsh", "--connect", self.uri, "--quiet", *words], timeout=timeout, check=check)

    def restart_libvirtd(self, *, kill: bool = False) -> None:
        """End libvirtd (kill: as a crash would) and start it again; returns when it answers."""
        daemons.restart_libvirtd(kill)

    def stop_libvirtd(self, *, kill: bool = False) -> None:
        """End libvirtd; ``start_libvirtd`` brings it back."""
        daemons.stop_libvirtd(kill)

    def start_libvirtd(self) -> None:
        """Start libvirtd; returns when it answers."""
        daemons.start_libvirtd()


@pytest.fixture(scope="session")
def lab() -> InLab:
    """The lab that this test run is in."""
    name = labs.inside()
    if name is None:
        pytest.fail("this test runs in a lab only: pytest without --no-lab, or vmhost lab exec NAME -- pytest")
    return InLab(name)


@pytest.fixture
def other_lab() -> Iterator[str]:
    """A further lab, of its own for this test, inside or outside of the one that the tests are in; gives its name."""
    name = f"other-{uuid4().hex[:8]}"
    labs.up(name)
    try:
        yield name
    finally:
        labs.down(name)


def lab_python(name: str, *arguments: str, timeout: float = 60, check: bool = True) -> Completed:
    """Run this Python in a lab: ``lab_python("x", "-m", "module", "word")`` or ``lab_python("x", "script.py")``."""
    return labs.run_inside(name, [sys.executable, *arguments], timeout=timeout, check=check)
