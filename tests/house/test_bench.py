"""The benchmarks are run by people, now and then: what they are made of has to be there all the same."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

BENCHMARKS = sorted(path.stem for path in (Path(__file__).parents[2] / "bench").glob("bench_*.py"))


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_finds_what_it_measures(name: str) -> None:
    assert callable(importlib.import_module(f"bench.{name}").main)
