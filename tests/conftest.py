"""What all tests share: how thorough a run is, how long a test may take, and that pure tests stay pure."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.purity import no_real_world

FULL = os.environ.get("VMHOST_TEST_FULL") == "1"
SEED = os.environ.get("VMHOST_TEST_SEED", "1")
PURE_ROOMS = frozenset({"model", "render", "plan"})
FULL_LIMIT = 3600  # seconds for thousands of made-up examples
TIME_LIMITS = {"lab": 120, "uml": 240, "guest": 420, "backup": 420}  # seconds; a test's own timeout marker wins

# Neither a deadline nor a verdict on how fast examples are made up: a busy machine is no fault of what is tested.
AT_LEISURE: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow], "print_blob": True}
settings.register_profile("sample", max_examples=100, **AT_LEISURE)
settings.register_profile("full", max_examples=5000, **AT_LEISURE)
settings.load_profile("full" if FULL else "sample")


def one_of(what: str, *variants: Any) -> Sequence[Any]:
    """Return all variants of a test in a full run, else one of them, which follows from the printed seed."""
    return variants if FULL else (random.Random(f"{SEED} {what}").choice(variants),)


@pytest.fixture(scope="session")
def full_run() -> bool:
    """Return True when nothing is to be sampled (``make test-full``)."""
    return FULL


@pytest.hookimpl(trylast=True)  # the plug-in of hypothesis marks its tests first
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what belongs to full runs, and give every test the time limit of its group.

    In a full run, those that make up examples get more.
    """
    left_out = [item for item in items if item.get_closest_marker("full") and not FULL]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    for item in items:
        limits = [seconds for marker, seconds in TIME_LIMITS.items() if item.get_closest_marker(marker)]
        if limits and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(max(limits)))
        if FULL and item.get_closest_marker("hypothesis"):
            item.add_marker(pytest.mark.timeout(FULL_LIMIT), append=False)


def _is_pure(item: pytest.Item) -> bool:
    room = item.path.relative_to(Path(__file__).parent).parts[0]
    return room in PURE_ROOMS and not any(item.get_closest_marker(marker) for marker in TIME_LIMITS)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Run the tests of pure rooms without a way out."""
    if not _is_pure(item):
        return (yield)
    with no_real_world():
        return (yield)
